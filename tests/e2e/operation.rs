//! What an operator does with a real gateway process: check its configuration, start it, look at it, stop it.

use std::process::Command;

use lianxin_harness::{Stage, ensure_built};
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::Frame;
use lianxin_trust::Endpoint;

use crate::talk::{accept, create, join, receive, send, soon};
use crate::zone::{audit, connect_to, open_store};

pub(crate) fn gateway(arguments: &[&str]) -> std::process::Output {
    let program = ensure_built().expect("built").path("lianxin-gateway").expect("there");
    Command::new(program).args(arguments).output().expect("runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_tells_its_streams_ends_well_and_says_so_in_the_audit_log() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let address = stage.gateway.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    let app = stage.minted.app("jiwei", "app-1").expect("minted");
    let connection = connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await.expect("connects");
    let (_control, mut frames) = connection.receive_stream();
    let first = soon("a stream", frames.next()).await.expect("open").expect("opens");
    assert!(matches!(first, Frame::Opened { .. }));

    let status = stage.gateway.stop().await.expect("stops in time");
    assert!(status.success(), "{status}");
    let told = soon("the reason", async {
        loop {
            match frames.next().await {
                Some(Ok(Frame::Closed { channel: None, reason })) => break Some(reason.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
        }
    });
    assert_eq!(told.await, Some(ReasonCode::ShuttingDown));
    let records = audit(&*open_store(&stage.gateway.zone_folder()));
    let last: serde_json::Value = serde_json::from_slice(&records.last().expect("some").parts[0].body).expect("JSON");
    assert_eq!(last["event"], "gateway-stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_zone_is_refused_and_told_by_whom_it_is_held() {
    let stage = Stage::start().await.expect("a gateway process");
    let config = stage.gateway.config_file();
    let second = tokio::task::spawn_blocking(move || gateway(&["serve", "--config", &config.display().to_string()]));
    let second = soon("an end", second).await.expect("runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = stage.gateway.process_id().expect("runs").to_string();
    assert!(said.contains("held by process") && said.contains(&holder), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_by_name_before_anything_is_opened() {
    let stage = Stage::set_up(lianxin_certs_dev::FederationPlan::default()).expect("minted");
    let config = stage.gateway.config_file();
    let check = |path: &std::path::Path| gateway(&["check-config", "--config", &path.display().to_string()]);
    let good = check(&config);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    for row in lianxin_types::LIMITS.rows() {
        assert!(said.contains(row.name) && said.contains(&row.value.to_string()), "{} is not in {said}", row.name);
    }
    let text = std::fs::read_to_string(&config).expect("there");
    let wrong = config.with_file_name("wrong.toml");
    for (change, names) in [("surprise = 1\n", "surprise"), ("[surprise]\nkey = 1\n", "surprise")] {
        let text = if change.starts_with('[') { format!("{text}\n{change}") } else { format!("{change}{text}") };
        std::fs::write(&wrong, text).expect("written");
        let refused = check(&wrong);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(names), "{said}");
    }
    assert!(!stage.gateway.zone_folder().exists(), "checking opens nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_metrics_hold_no_identity_and_no_word() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    for client in [&jiwei, &shenji] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", at_jiwei.invite(&[shenji.device().clone()])).await.expect("invited");
    let at_shenji = accept(&shenji).await;
    send(&at_jiwei, "线索一号").await;
    receive(&at_shenji, 1).await;

    let metrics = http(stage.gateway.metrics(), "/metrics").await;
    assert!(metrics.contains("lianxin_messages_accepted_total 1"), "{metrics}");
    assert!(http(stage.gateway.metrics(), "/readyz").await.contains("ok"));
    let opaque: Vec<_> = [&jiwei, &shenji].map(|client| client.device().opaque_id().to_owned()).into();
    let channel = at_jiwei.id().to_hex();
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    stage.gateway.stop().await.expect("stops");
    let log = std::fs::read_to_string(stage.gateway.log_file()).expect("there");
    assert!(log.contains("session opened"), "the log says something at all: {log}");
    for hidden in opaque.iter().map(String::as_str).chain(["线索一号", &channel]) {
        assert!(!log.contains(hidden) && !metrics.contains(hidden), "{hidden} is shown");
    }
}

pub(crate) async fn http(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answers");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_checked_by_command_and_damage_is_named() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let config = stage.gateway.config_file().display().to_string();
    let check = async |more: &'static [&'static str]| {
        let config = config.clone();
        let run =
            tokio::task::spawn_blocking(move || gateway(&[&["store", "check", "--config", &config], more].concat()));
        let output = soon("an end", run).await.expect("runs");
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let (code, said) = check(&[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("held by process"), "{said}");

    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&channel, &shenji).await;
    for body in ["一", "二", "三"] {
        send(&channel, body).await;
    }
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    stage.gateway.stop().await.expect("stops in order");
    let (code, said) = check(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("everything is as it was written") && said.contains("opened 1 times"), "{said}");
    // Without its number the next open would begin again at 1.
    let fencing = stage.gateway.zone_folder().join("fencing");
    let number = std::fs::read(&fencing).expect("there");
    for (bytes, fault) in [(None, "missing"), (Some("one"), "not a number")] {
        match bytes {
            None => std::fs::remove_file(&fencing).expect("removed"),
            Some(bytes) => std::fs::write(&fencing, bytes).expect("written"),
        }
        let (code, said) = check(&[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("the zone's fencing number") && said.contains(fault), "{said}");
    }
    std::fs::write(&fencing, number).expect("written");

    let folder = stage.gateway.zone_folder();
    let buckets = std::fs::read_dir(folder.join("buckets")).expect("readable");
    let bucket = buckets.map(|entry| entry.expect("readable").path()).next().expect("one bucket");
    std::fs::write(bucket.join("blobs/9"), b"never synced").expect("writable");
    let (code, said) = check(&["--json"]).await;
    assert_eq!(code, Some(1), "{said}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!((&lines[0]["bucket"], &lines[0]["fault"]), (&1.into(), &"must not be there".into()), "{said}");
    assert_eq!((&lines[1]["is_clean"], &lines[1]["findings"]), (&false.into(), &1.into()), "{said}");
    assert_eq!(lines[1]["fencing_number"], 1, "{said}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
