//! A disk that becomes full under a real gateway process: typed refusals, reads as long as their records fit, then nothing but
//! health, and everything again by itself when there is space. Nothing that was acknowledged is lost.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lianxin_certs_dev::FederationPlan;
use lianxin_connection::{CallError, Connection};
use lianxin_harness::{Gateway, Stage};
use lianxin_proto::ReasonCode;
use lianxin_proto::channels::GetGroupInfo;
use lianxin_proto::messages::History;
use lianxin_sdk::{ChannelId, ClientError, Sequence};
use lianxin_trust::Endpoint;
use lianxin_types::{Clock as _, SystemClock};

use crate::talk::{accept, create, join, own, receive, send, soon, texts};
use crate::zone::{audit, check_store, connect_to, open_store};

/// A small file system of memory on a folder, until it is dropped.
struct SmallDisk {
    folder: PathBuf,
}

const DISK_BYTES: u64 = 64 * 1024 * 1024;

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a temporary folder");
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output().ok()?;
        mounted.status.success().then(|| Self { folder: folder.to_owned() })
    }

    fn free(&self) -> u64 {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&self.folder).output().expect("df runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number of bytes")
    }

    /// Writes until only `free` bytes are left, as somebody else on the machine would.
    fn fill(&self, free: u64) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).expect("a file of its own");
        let chunk = [0x55; 64 * 1024];
        while self.free() > free + chunk.len() as u64 {
            filler.write_all(&chunk).expect("there is space");
        }
    }

    /// Takes the last bytes, too, which no whole chunk fits.
    fn fill_to_the_brim(&self) {
        self.fill(0);
        let mut filler = File::options().append(true).open(self.filler()).expect("it was filled");
        while filler.write_all(&[0x55; 512]).is_ok() {}
    }

    fn clean(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("somebody-else")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A gateway that is killed a moment later still holds it: it goes when that is gone.
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).status());
    }
}

async fn raw(stage: &Stage, department: &str) -> Connection {
    let app = stage.minted.app(department, "app-1").expect("minted");
    let address = stage.gateway.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await.expect("connects")
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> ReasonCode {
    match result {
        Err(CallError::Refused(problem)) => problem.code,
        other => panic!("{other:?}"),
    }
}

async fn page(stage: &Stage, path: &str) -> String {
    stage.gateway.page(path).await.expect("alive")
}

async fn until(what: &str, stage: &Stage, path: &str, wanted: &str) {
    soon(what, async {
        while !page(stage, path).await.contains(wanted) {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn history(connection: &Connection, channel: ChannelId) -> Result<usize, CallError> {
    let wanted = History { channel, after: Sequence(0), events_max: 50 };
    connection.history(wanted).await.map(|page| page.events.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_by_name_and_survived() {
    let mut stage = Stage::set_up(FederationPlan::default()).expect("minted");
    let Some(disk) = SmallDisk::mount(&stage.gateway.zone_folder()) else {
        // Mounting needs rights that a test may not have. Then `a_write_that_fails_under_the_store_…` below, which needs none,
        // and the store's own tests on a disk whose free space is set, say what can be said.
        return;
    };
    stage.gateway.start().await.expect("starts");
    let (jiwei, shenji) = (stage.client("jiwei", "app-1"), stage.client("shenji", "app-1"));
    let (jiwei, shenji) = (jiwei.await.expect("opens"), shenji.await.expect("opens"));
    for client in [&jiwei, &shenji] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let ours = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", ours.invite(&[shenji.device().clone()])).await.expect("invited");
    let theirs = accept(&shenji).await;
    send(&ours, "之前").await;
    let reader = raw(&stage, "shenji").await;
    let before = history(&reader, ours.id()).await.expect("a member");

    // Less free than the threshold: nothing is changed any more, and everybody is told why.
    disk.fill(Gateway::FREE_BYTES_MIN - Gateway::RESERVE_BYTES - 2 * 1024 * 1024);
    until("audit records only", &stage, "/metrics", "lianxin_disk_room 1").await;
    let ready = page(&stage, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\nnot-ready disk-full: "), "{ready}");
    match soon("an answer", jiwei.create(crate::talk::label(), &crate::talk::departments(&["jiwei"]))).await {
        Err(ClientError::Refused(problem)) => {
            assert_eq!((problem.code, problem.try_again), (ReasonCode::DiskFull, true));
        }
        other => panic!("{:?}", other.map(|channel| channel.id())),
    }
    // What waits is sent when it can be; it must not be lost, and not be doubled.
    let waiting = tokio::spawn({
        let ours = ours.clone();
        async move { ours.send("满时").await }
    });
    // Reads go on, each with its record; so do refusals with their reasons.
    for _ in 0..20 {
        assert_eq!(history(&reader, ours.id()).await.expect("reads go on"), before);
    }
    let stranger = raw(&stage, "waibu").await;
    assert_eq!(code(history(&stranger, ours.id()).await), ReasonCode::ChannelNotAvailable);

    // Not even a record fits: everything is refused but health.
    disk.fill(512 * 1024);
    until("no room at all", &stage, "/metrics", "lianxin_disk_room 0").await;
    assert_eq!(code(history(&reader, ours.id()).await), ReasonCode::DiskFull);
    assert_eq!(code(history(&stranger, ours.id()).await), ReasonCode::DiskFull);
    assert_eq!(code(reader.group_info(GetGroupInfo { channel: ours.id() }).await), ReasonCode::DiskFull);
    assert!(page(&stage, "/healthz").await.starts_with("HTTP/1.1 200"));

    // Space again: no restart, and what waited goes out.
    let process = stage.gateway.process_id();
    disk.clean();
    until("everything is written again", &stage, "/readyz", "HTTP/1.1 200").await;
    soon("the receipt", waiting).await.expect("runs on").expect("accepted in the end");
    send(&ours, "之后").await;
    let received = receive(&theirs, 3).await;
    assert_eq!(texts(&received), ["之前", "满时", "之后"]);
    assert_eq!(stage.gateway.process_id(), process, "it is the same process");
    assert!(page(&stage, "/metrics").await.contains("lianxin_disk_room 2"));

    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop((reader, stranger));
    stage.gateway.stop().await.expect("stops in order");
    check_store(&stage.gateway.zone_folder(), stage.folder());
    let records = audit(&*open_store(&stage.gateway.zone_folder()));
    let bodies = records.iter().map(|record| String::from_utf8_lossy(&record.parts[0].body).into_owned());
    let refused = bodies.filter(|body| body.contains("DISK_FULL")).count();
    assert!(refused >= 1, "refusals were recorded while there was room for that");
    drop(disk);
}

/// A stage whose zone lies in the folder `zone` of a folder of its own, which is given, and that reads trust files anew every
/// second.
fn apart() -> (Stage, PathBuf) {
    let stage = Stage::set_up(FederationPlan::default()).expect("minted");
    let (config, folder) = (stage.gateway.config_file(), stage.folder().join("small"));
    let text = std::fs::read_to_string(&config).expect("written");
    let (zone, moved) = (stage.gateway.zone_folder(), folder.join("zone"));
    let moved = text.replace(&zone.display().to_string(), &moved.display().to_string());
    assert_ne!(moved, text);
    std::fs::write(&config, moved.replace("[trust]", "[trust]\nreread_seconds = 1")).expect("written");
    (stage, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_lives_and_serves_when_there_is_space() {
    let (mut stage, folder) = apart();
    // As above: without the right to mount there is nothing to be seen here.
    let Some(disk) = SmallDisk::mount(&folder) else { return };
    stage.gateway.start().await.expect("starts");
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let ours = create(&jiwei, &["jiwei"]).await;
    send(&ours, "之前").await;
    // Somebody else takes the space, also what the zone had in reserve while it ran.
    soon("no room at all", async {
        loop {
            // The reserve is given up when the gateway looks at its disk, which may be after the rest was taken.
            disk.fill(0);
            if page(&stage, "/metrics").await.contains("lianxin_disk_room 0") {
                return;
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    disk.fill_to_the_brim();
    stage.gateway.stop().await.expect("stops in order");
    disk.fill_to_the_brim();
    stage.gateway.start_alive().await.expect("lives on a full disk");
    let ready = page(&stage, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("not-ready "), "{ready}");
    assert!(page(&stage, "/livez").await.starts_with("HTTP/1.1 200"));
    disk.clean();
    until("everything is written again", &stage, "/readyz", "HTTP/1.1 200").await;
    send(&ours, "之后").await;
    assert_eq!(texts(&own(&ours, 2).await), ["之前", "之后"]);
    jiwei.close().await.expect("closes");
    stage.gateway.stop().await.expect("stops in order");
    check_store(&folder.join("zone"), stage.folder());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_in_force_is_kept_as_soon_as_there_is_space_for_it() {
    let (mut stage, folder) = apart();
    let minted = stage.minted.at(SystemClock.now());
    // The zone has a disk of its own, and the file beside it has not.
    let Some(disk) = SmallDisk::mount(&folder) else { return };
    let Some(_of_the_zone) = SmallDisk::mount(&folder.join("zone")) else { return };
    stage.gateway.start().await.expect("starts");
    stage.gateway.stop().await.expect("stops in order");

    // The same trust needs no space; a newer bundle does, and is in force all the same.
    disk.fill_to_the_brim();
    let log = stage.gateway.log_file();
    let said = |wanted: &str| std::fs::read_to_string(&log).expect("there").contains(wanted);
    stage.gateway.start().await.expect("the same trust");
    stage.gateway.stop().await.expect("stops in order");
    assert!(!said("is not kept yet"));
    minted.succeed(|_| ()).expect("signed");
    stage.gateway.start().await.expect("a newer bundle");
    assert!(said("the trust in force is not kept yet"));
    assert_eq!(stage.gateway.scrape("lianxin_trust_bundle_version").await.expect("exported"), 2);
    disk.clean();
    soon("the trust to be kept", async {
        while !said("the trust in force is kept") {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    stage.gateway.stop().await.expect("stops in order");
    std::fs::copy(minted.bundle_history_folder().join("1.note"), minted.bundle_file()).expect("copied");
    let refused = stage.gateway.start().await.expect_err("an older bundle").to_string();
    assert!(refused.contains("trust bundle 1 is older than 2"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_under_the_store_closes_the_zone_until_it_works_again() {
    let mut stage = Stage::set_up(FederationPlan::default()).expect("minted");
    // As on a disk that is full all at once: no file may grow any more. The signal that comes with it is ignored, so that
    // the write fails as it would for want of space.
    stage.gateway.start_through("trap '' XFSZ; exec \"$0\" \"$@\"").await.expect("starts");
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    soon("a connection", jiwei.connected()).await.expect("connects");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&channel, &shenji).await;
    shenji.close().await.expect("closes");
    let mut acknowledged = vec![send(&channel, "之前").await];
    let process = stage.gateway.process_id().expect("runs");
    let limit = |bytes: &str| {
        let done = Command::new("prlimit").args(["--pid", &process.to_string(), &format!("--fsize={bytes}:")]).status();
        assert!(done.expect("prlimit runs").success());
    };
    let reader = raw(&stage, "jiwei").await;
    limit("4096");
    // Every answer is either an acknowledgement or says that the zone is closed.
    let refused = soon("a refusal", async {
        loop {
            match history(&reader, channel.id()).await {
                Ok(_) => {}
                refused => break code(refused),
            }
        }
    });
    assert_eq!(refused.await, ReasonCode::ZoneUnavailable);
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.send("满时").await }
    });
    until("not ready", &stage, "/readyz", "not-ready zone-unavailable: ").await;
    limit("unlimited");
    until("open again", &stage, "/readyz", "HTTP/1.1 200").await;
    let receipt = soon("the receipt", waiting).await.expect("runs on").expect("accepted in the end");
    acknowledged.push(receipt.sequence.0);
    acknowledged.push(send(&channel, "之后").await);
    let received = own(&channel, 3).await;
    assert_eq!(texts(&received), ["之前", "满时", "之后"]);
    assert_eq!(received.iter().map(|message| message.sequence.0).collect::<Vec<_>>(), acknowledged);
    assert_eq!(stage.gateway.process_id(), Some(process), "it is the same process");
    jiwei.close().await.expect("closes");
    drop(reader);
    stage.gateway.stop().await.expect("stops in order");
    check_store(&stage.gateway.zone_folder(), stage.folder());
}
