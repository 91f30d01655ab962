//! The SDK's examples, run as their users would run them: as programs, against a real gateway, with what they print.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lianxin_harness::{Binaries, Stage, before, ensure_examples_built, eventually};
use lianxin_sdk::{Client, Config, DeviceUri};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const SOON: Duration = Duration::from_secs(60);

/// A gateway, and a folder in which the examples keep their states.
struct Office {
    stage: Stage,
    binaries: Binaries,
    folder: PathBuf,
}

/// A running example.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Office {
    async fn open() -> Self {
        let binaries = ensure_examples_built().expect("built");
        let stage = Stage::start().await.expect("a gateway");
        let folder = stage.folder().join("examples");
        std::fs::create_dir_all(&folder).expect("a folder");
        Self { stage, binaries, folder }
    }

    fn start(&self, example: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(self.binaries.example(example).expect("built"));
        command.arg(self.stage.minted.folder()).args(arguments).current_dir(&self.folder);
        command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().expect("starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Running { process, lines }
    }

    /// Runs it to its end and gives what it prints.
    async fn run(&self, example: &str, arguments: &[&str]) -> Vec<String> {
        self.start(example, arguments).rest().await
    }

    /// Who the examples of a department are.
    fn device(&self, department: &str) -> DeviceUri {
        self.stage.device(department, "app-2").expect("minted")
    }

    /// The client that the examples of a department open, in this process.
    async fn client(&self, department: &str) -> Client {
        let state = self.folder.join(format!("state-{department}"));
        let config = Config::from_certs_dev(self.stage.minted.folder(), department, "app-2", state);
        Client::open(config.expect("minted")).await.expect("opens")
    }

    /// The conversation of the README.
    async fn talk(&self) -> (Vec<String>, Vec<String>) {
        let mut answers = self.start("two_departments", &["shenji"]);
        let uri = self.device("shenji");
        assert_eq!(answers.line().await, format!("I am {}", uri.as_str()));
        let asked = self.run("two_departments", &["jiwei", uri.as_str()]).await;
        (asked, answers.rest().await)
    }
}

impl Running {
    async fn line(&mut self) -> String {
        let line = before(SOON, "a line", self.lines.next_line()).await.expect("soon").expect("readable");
        line.expect("it goes on")
    }

    /// Everything up to this line.
    async fn until(&mut self, expected: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != expected) {
            lines.push(self.line().await);
        }
        lines
    }

    async fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = before(SOON, "its end", self.lines.next_line()).await.expect("soon").expect("readable") {
            lines.push(line);
        }
        let status = before(SOON, "its end", self.process.wait()).await.expect("soon").expect("it ends");
        assert!(status.success(), "{status}: {lines:?}");
        lines
    }

    async fn terminate(&self) {
        let id = self.process.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill").success());
    }
}

#[tokio::test]
async fn the_page_of_the_readme_runs_as_it_stands_and_its_history_can_be_read() {
    let office = Office::open().await;
    let (asked, answered) = office.talk().await;
    let (jiwei, shenji) = (office.device("jiwei"), office.device("shenji"));
    assert_eq!(asked[0], format!("I am {}", jiwei.as_str()));
    assert!(asked[1].starts_with("event 3 of the channel, leaf "), "{asked:?}");
    assert_eq!(asked[2..], ["shenji: 已收到，稍后提供。"]);
    let there = [&jiwei, &shenji].map(|device| format!("in the channel: {}", device.as_str()));
    assert_eq!(answered, [&there[0], &there[1], "jiwei: 请提供三月份台账。"]);

    // The gateway is not needed for what lies here; what shenji answered jiwei has read.
    let found = office.run("history", &["jiwei", "台账"]).await;
    let title = "「联合核查」 2 members, 0 unread";
    assert_eq!(found, [title, "     3 we: 请提供三月份台账。", "1 with 台账"]);
    let all = office.run("history", &["jiwei"]).await;
    assert_eq!(all, [title, "     3 we: 请提供三月份台账。", "     4 shenji: 已收到，稍后提供。", "read up to 4"]);
    assert_eq!(office.run("history", &["jiwei", "发票"]).await, [title, "0 with 发票"]);

    // Looking for a word reads nothing, showing the newest does.
    let [at_jiwei, at_shenji] = [office.client("jiwei").await, office.client("shenji").await];
    let channel = at_shenji.channels().await.expect("readable").remove(0);
    let last = channel.send("补充一份。").await.expect("accepted").sequence;
    let channel = at_jiwei.channel(channel.id());
    let has_come = || async { channel.message(last).await.expect("readable").is_some() };
    eventually(SOON, "it comes", has_come).await.expect("soon");
    for client in [at_jiwei, at_shenji] {
        client.close().await.expect("closes");
    }
    let unread = "「联合核查」 2 members, 1 unread";
    assert_eq!(office.run("history", &["jiwei", "一份"]).await[0], unread);
    let all = office.run("history", &["jiwei"]).await;
    assert_eq!((all[0].as_str(), all.last()), (unread, Some(&format!("read up to {}", last.0))));
    assert_eq!(office.run("history", &["jiwei", "一份"]).await[0], title);
}

#[tokio::test]
async fn a_long_running_application_answers_tells_and_closes_and_goes_on_later() {
    let office = Office::open().await;
    office.talk().await;
    let jiwei = office.client("jiwei").await;
    let channel = jiwei.channels().await.expect("readable").remove(0);
    // Nobody is there: it waits.
    let early = channel.send("有人在吗？").await.expect("accepted");

    let mut serving = office.start("long_running", &["shenji"]);
    assert_eq!(serving.line().await, format!("I am {}", office.device("shenji").as_str()));
    let mut replies = channel.receive();
    serving.until("jiwei: 有人在吗？").await;
    let reply = before(SOON, "an answer", replies.next()).await.expect("soon").expect("open").expect("a message");
    assert_eq!(reply.text(), Some(format!("收到第 {} 号。", early.sequence.0).as_str()));
    let guest = office.stage.client("shenji", "app-1").await.expect("opens");
    guest.connected().await.expect("connected");
    channel.invite(std::slice::from_ref(guest.device())).await.expect("invited");
    let came = format!("{} came, let in by {}", guest.device().as_str(), office.device("jiwei").as_str());
    serving.until(&came).await;
    serving.terminate().await;
    let rest = serving.rest().await;
    assert!(rest.ends_with(&["asked to stop".to_owned(), "closed".to_owned()]), "{rest:?}");

    // What it has read does not come again, what came meanwhile does.
    channel.send("还有一事。").await.expect("accepted");
    let mut serving = office.start("long_running", &["shenji"]);
    let mut told = serving.until("jiwei: 还有一事。").await;
    serving.terminate().await;
    told.extend(serving.rest().await);
    let heard: Vec<_> = told.iter().filter(|line| line.starts_with("jiwei: ")).collect();
    assert_eq!(heard, ["jiwei: 还有一事。"], "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("closed"));
    for client in [jiwei, guest] {
        client.close().await.expect("closes");
    }
}

#[tokio::test]
async fn each_refusal_is_told_apart() {
    let office = Office::open().await;
    // It was never there, so the gateway has no key package of it; it is refused before that counts.
    let stranger = office.device("waibu");
    let told = office.run("refusals", &["jiwei", stranger.as_str()]).await;
    let [named, large, member, nobody] = &told[..] else { panic!("{told:?}") };
    let expected = [
        (named, "invite a department that the channel does not name", "open a channel that names it"),
        (large, "send more than 64 KiB", "cut it into pieces of 65536 bytes"),
        (member, "send where one is no member", "wait for an invitation"),
    ];
    for (line, what, advice) in expected {
        assert!(line.starts_with(&format!("{what}: failed: ")) && line.ends_with(advice), "{line}");
    }
    assert!(nobody.starts_with("name a department that does not exist: failed: "), "{nobody}");
    assert!(!nobody.contains("done") && nobody.contains("department"), "{nobody}");
}

/// What is printed in the README and what is run here are the same.
#[test]
fn the_readmes_code_is_that_of_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let example = |name: &str| {
        std::fs::read_to_string(root.join("client-sdk/examples").join(name).with_extension("rs")).expect("an example")
    };
    let blocks: Vec<&str> =
        readme.split("```rust,no_run\n").skip(1).map(|rest| rest.split("```").next().expect("it ends")).collect();
    let [page, watch] = blocks[..] else { panic!("{} blocks of code", blocks.len()) };
    assert!(example("two_departments").ends_with(&format!("\n\n{page}")), "the page of the README is another");
    let (_imports, function) = watch.split_once("\n\n").expect("imports first");
    assert!(example("long_running").ends_with(&format!("\n\n{function}")), "the README watches otherwise");
    assert!(!readme.contains("```rust\n"), "code that is not compared");
}
