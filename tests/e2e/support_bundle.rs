//! What a supporter is sent: how the gateway is, and nothing of who talks and what is said.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use lianxin_harness::{DiskSearch, Stage};
use lianxin_trust::Usage;
use lianxin_types::{Clock as _, SystemClock};

use crate::operation::{gateway, http};
use crate::talk::{accept, create, receive, send, soon};

/// Said in the channel; in no log.
const WORDS: [&str; 2] = ["planted-word-7731", "线索一号材料"];

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_no_identity_no_key_no_channel_and_no_word_and_needs_no_healthy_zone() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let planted = talk(&stage).await;
    let log = hostile_log(&stage, &planted);
    let hostile_name = stage.gateway.zone_folder().join(planted[0].replace('/', "%2F"));
    fs::write(hostile_name, WORDS[0]).expect("written");

    // Beside the running gateway, which holds the lock and does not notice.
    let first = stage.folder().join("first.tar");
    bundle(&stage, &first, Some(&log));
    assert!(http(stage.gateway.metrics(), "/readyz").await.contains("200 OK"));
    let texts = texts_of(&first);
    let has = |texts: &BTreeMap<String, String>, file: &str, text: &str| {
        let found = &texts[&format!("lianxin-support/{file}")];
        assert!(found.contains(text), "{file} does not say {text}: {found}");
    };
    for (file, text) in [
        ("README.txt", "What is not in it"),
        ("version.txt", env!("CARGO_PKG_VERSION")),
        ("configuration.txt", "zone = cn-zj-1"),
        ("configuration.txt", "tls.key = (a file, "),
        ("limits.txt", "device_channels_max"),
        ("trust.txt", "bundle: version "),
        ("trust.txt", "revocation list of jiwei: number "),
        ("trust.txt", "certificate: expires "),
        ("zone.txt", "fencing number 1\n"),
        ("zone.txt", "which runs"),
        ("metrics.txt", "lianxin_messages_accepted_total 2\n"),
        ("metrics.txt", "# EOF"),
        ("system.txt", "the zone's holder"),
        ("log.txt", "session opened"),
        ("log.txt", "planted here: [identity]"),
    ] {
        has(&texts, file, text);
    }
    assert_nothing_of(&stage, &planted, &first, &log);

    // A broken zone, an answerless gateway, and a configuration that cannot be parsed.
    stage.gateway.kill().await.expect("killed");
    let zone = stage.gateway.zone_folder();
    fs::write(zone.join("format"), "not a number").expect("written");
    fs::write(zone.join("state/db"), [0xff; 100]).expect("written");
    let second = stage.folder().join("second.tar");
    bundle(&stage, &second, Some(&log));
    let texts = texts_of(&second);
    has(&texts, "zone.txt", "format unknown (invalid data)");
    has(&texts, "zone.txt", "which does not run any more");
    has(&texts, "metrics.txt", "no answer");
    assert_nothing_of(&stage, &planted, &second, &log);

    let config = stage.gateway.config_file();
    let text = fs::read_to_string(&config).expect("there");
    fs::write(&config, format!("{text}\n{} = = broken\n", planted[0])).expect("written");
    let third = stage.folder().join("third.tar");
    bundle(&stage, &third, None);
    has(&texts_of(&third), "configuration.txt", "it is refused: it cannot be parsed");
    assert_nothing_of(&stage, &planted, &third, &log);

    let arguments =
        ["support-bundle", "--config", &config.display().to_string(), "--out", &third.display().to_string()];
    let again = gateway(&arguments);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("an existing file is not replaced"), "{said}");
}

/// A conversation, and what must be in no bundle of the gateway that carried it: identities first.
async fn talk(stage: &Stage) -> Vec<String> {
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    for client in [&jiwei, &shenji] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", at_jiwei.invite(&[shenji.device().clone()])).await.expect("invited");
    let at_shenji = accept(&shenji).await;
    for word in WORDS {
        send(&at_jiwei, word).await;
    }
    receive(&at_shenji, WORDS.len()).await;

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut secret: Vec<String> = [&jiwei, &shenji].map(|client| client.device().as_str().to_owned()).into();
    secret.extend([&jiwei, &shenji].map(|client| client.device().opaque_id().to_owned()));
    let channel = at_jiwei.id().to_hex();
    let pseudonym_key =
        fs::read(stage.gateway.config_file().with_file_name("pseudonym.key")).expect("made at the start");
    secret.extend([channel.to_uppercase(), channel, hex(&pseudonym_key)]);
    for department in ["jiwei", "shenji"] {
        let app = stage.minted.app(department, "app-1").expect("minted");
        let certificate = fs::read_to_string(&app.tls_certificate).expect("there");
        let key = fs::read_to_string(&app.tls_key).expect("there");
        // Whole lines of base64; the last one may be short.
        let lines = certificate.lines().chain(key.lines()).filter(|line| line.len() >= 24 && !line.starts_with("---"));
        secret.extend(lines.map(str::to_owned));
        let serial = serial(stage, &certificate);
        secret.push(serial.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"));
        secret.push(hex(&serial));
    }
    let gateway_key = fs::read_to_string(stage.minted.gateway().tls_key).expect("there");
    secret.extend(gateway_key.lines().filter(|line| line.len() >= 24 && !line.starts_with("---")).map(str::to_owned));
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    secret
}

fn serial(stage: &Stage, certificate: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    let federation = stage.minted.federation().expect("minted");
    federation.identify(&[&der], Usage::TlsClient, SystemClock.now()).expect("good").serial
}

/// The gateway's own log, and behind it what never is in one: each secret as a careless hand would write it.
fn hostile_log(stage: &Stage, planted: &[String]) -> std::path::PathBuf {
    let mut text = fs::read_to_string(stage.gateway.log_file()).expect("there");
    for secret in planted.iter().map(String::as_str).chain([WORDS[1]]) {
        text += &format!("ERROR planted here: {secret} key={secret} \"{secret}\"\n");
    }
    for department in ["jiwei", "shenji"] {
        let app = stage.minted.app(department, "app-1").expect("minted");
        text += &fs::read_to_string(&app.tls_key).expect("there");
        text += &format!("{:?}\n", fs::read_to_string(&app.tls_certificate).expect("there"));
    }
    let path = stage.folder().join("hostile.log");
    fs::write(&path, text).expect("written");
    path
}

fn bundle(stage: &Stage, out: &Path, log: Option<&Path>) {
    let (config, out) = (stage.gateway.config_file().display().to_string(), out.display().to_string());
    let log = log.map(|log| log.display().to_string());
    let mut arguments = vec!["support-bundle", "--config", &config, "--out", &out];
    arguments.extend(log.as_deref().into_iter().flat_map(|log| ["--log", log]));
    let done = gateway(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&out).expect("written").permissions().mode() & 0o777, 0o600);
}

fn texts_of(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(fs::File::open(archive).expect("written"));
    let entries = archive.entries().expect("a tar file").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("UTF-8");
        (name, text)
    });
    entries.collect()
}

fn assert_nothing_of(stage: &Stage, planted: &[String], archive: &Path, log: &Path) {
    let search = DiskSearch::new(planted.iter().map(String::as_str).chain(WORDS));
    let found = search.search(archive).expect("readable");
    assert!(found.hits.is_empty() && found.files == 1, "{:?}", found.hits);
    let bytes = fs::read(archive).expect("readable");
    let key = fs::read(stage.gateway.config_file().with_file_name("pseudonym.key")).expect("there");
    assert!(!bytes.windows(key.len()).any(|window| window == key), "the pseudonym key itself");
    // The search does find: the log that the archive was made from has every one of them.
    let control = search.search(log).expect("readable");
    assert_eq!(control.hits.len(), planted.len() + 1, "{:?}", control.hits);
}
