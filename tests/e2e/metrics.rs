//! A real gateway exports what its table says and nothing else, and the figures are those of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lianxin_gateway::{METRICS, MetricRow};
use lianxin_harness::{Stage, eventually};
use lianxin_proto::messages::History;
use lianxin_trust::Endpoint;
use lianxin_types::{ChannelId, Clock, Sequence, SystemClock};
use tokio::io::AsyncWriteExt as _;

use crate::operation::http;
use crate::talk::{accept, create, receive, send, soon};
use crate::zone::connect_to;

/// One scrape: names of families with their kinds, and samples with their labels.
struct Scrape {
    kinds: BTreeMap<String, String>,
    units: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_every_row_of_the_table_and_nothing_else_and_counts_what_happened() {
    let stage = Stage::start().await.expect("a gateway process");
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    for client in [&jiwei, &shenji] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", at_jiwei.invite(&[shenji.device().clone()])).await.expect("invited");
    let at_shenji = accept(&shenji).await;
    for text in ["一", "二", "三"] {
        send(&at_jiwei, text).await;
    }
    receive(&at_shenji, 3).await;
    // Two who are refused: one who asks for a channel that does not exist, and one who does not speak TLS.
    ask_for_an_invented_channel(&stage).await;
    let mut stranger = tokio::net::TcpStream::connect(stage.gateway.address()).await.expect("connects");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let address = stage.gateway.metrics();
    let counted = || async move {
        Scrape::of(address).await.value(r#"lianxin_handshake_refusals_total{reason="protocol"}"#) == 1.0
    };
    eventually(Duration::from_secs(30), "the stranger is counted", counted).await.expect("counted");

    let scrape = Scrape::of(address).await;
    let table: BTreeMap<String, String> =
        METRICS.iter().map(|row| (row.family(), row.kind.as_str().to_owned())).collect();
    assert_eq!(scrape.kinds, table);
    let units = METRICS.iter().filter_map(|row| Some((row.family(), row.unit?.to_owned()))).collect();
    assert_eq!(scrape.units, units);
    let wanted: BTreeSet<String> = METRICS.iter().flat_map(MetricRow::sample_names).collect();
    let found: BTreeSet<String> = scrape.samples.keys().map(|name| bare(name).to_owned()).collect();
    assert_eq!(found, wanted, "every row has a sample here, and no sample is of something else");

    for (name, wanted) in [
        ("lianxin_messages_accepted_total", 3.0),
        // The start, and the commit that seats the other one.
        ("lianxin_commits_accepted_total", 2.0),
        (r#"lianxin_refusals_total{reason="CHANNEL_NOT_AVAILABLE"}"#, 1.0),
        (r#"lianxin_refusals_total{reason="WRONG_EPOCH"}"#, 0.0),
        ("lianxin_zone_writable", 1.0),
        ("lianxin_fencing_number", 1.0),
        ("lianxin_receive_streams", 2.0),
    ] {
        assert_eq!(scrape.value(name), wanted, "{name}");
    }
    let at_least = [
        ("lianxin_events_delivered_total", 4.0),
        ("lianxin_catch_up_pages_total", 2.0),
        ("lianxin_connections", 2.0),
        ("lianxin_commit_duration_seconds_count", 1.0),
        ("process_open_fds", 10.0),
        ("process_resident_memory_bytes", 1e6),
    ];
    for (name, least) in at_least {
        assert!(scrape.value(name) >= least, "{name} is {}", scrape.value(name));
    }
    expiries_are_those_of_the_files(&stage, &scrape);
    histograms_add_up(&scrape);
    // The stranger is counted before its record is written.
    let written = || async move { Scrape::of(address).await.value("lianxin_queued_units") == 0.0 };
    eventually(Duration::from_secs(30), "nothing waits for the committer", written).await.expect("written");
}

fn expiries_are_those_of_the_files(stage: &Stage, scrape: &Scrape) {
    let federation = stage.minted.federation().expect("minted");
    let bundle = &federation.bundle().bundle;
    let lists = federation.revocation_lists_expire().expect("there are lists");
    assert_eq!(scrape.value("lianxin_trust_bundle_version"), bundle.version as f64);
    assert_eq!(scrape.value("lianxin_trust_bundle_expiry_timestamp_seconds"), bundle.expires.seconds() as f64);
    assert_eq!(scrape.value("lianxin_revocation_list_expiry_timestamp_seconds"), lists.seconds() as f64);
    let now = SystemClock.now().seconds() as f64;
    let days = |name| ((scrape.value(name) - now) / 86_400.0).round() as i64;
    assert_eq!(days("lianxin_certificate_expiry_timestamp_seconds"), 30, "as minted");
    assert_eq!(days("process_start_time_seconds"), 0);
}

/// A fresh zone: each leaf was written by a commit of this process, and each batch is in both distributions.
fn histograms_add_up(scrape: &Scrape) {
    assert_eq!(scrape.value("lianxin_commit_batch_units_sum"), scrape.value("lianxin_audit_leaves_total"));
    assert_eq!(scrape.value("lianxin_commit_batch_units_count"), scrape.value("lianxin_commit_duration_seconds_count"));
    for family in ["lianxin_commit_batch_units", "lianxin_commit_duration_seconds"] {
        let all = scrape.value(&format!(r#"{family}_bucket{{le="+Inf"}}"#));
        assert_eq!(all, scrape.value(&format!("{family}_count")), "buckets are cumulative");
    }
}

async fn ask_for_an_invented_channel(stage: &Stage) {
    let address = stage.gateway.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    let app = stage.minted.app("jiwei", "app-2").expect("minted");
    let connection = connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await.expect("connects");
    let wanted = History { channel: ChannelId([0xEE; 16]), after: Sequence(0), events_max: 1 };
    connection.history(wanted).await.expect_err("there is no such channel");
}

impl Scrape {
    async fn of(address: std::net::SocketAddr) -> Self {
        let answer = http(address, "/metrics").await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        assert!(head.contains("200 OK"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        let described = |word: &str| {
            let lines = body.lines().filter_map(|line| line.strip_prefix(word)?.split_once(' '));
            lines.map(|(name, what)| (name.to_owned(), what.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| line.rsplit_once(' '));
        let samples = samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect();
        Self { kinds: described("# TYPE "), units: described("# UNIT "), samples }
    }

    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("{sample} is not among {:?}", self.samples.keys()))
    }
}

/// The name of a sample without its labels.
fn bare(sample: &str) -> &str {
    sample.split('{').next().unwrap_or(sample)
}
