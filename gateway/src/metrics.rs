//! Metrics and readiness over plain HTTP on loopback: `/metrics`, `/healthz` (the process lives), `/readyz` (the zone takes
//! writes).

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lianxin_operations::Operations;
use lianxin_store::{Room, ZoneStore};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What is measured, read at each scrape.
struct Figures {
    operations: Operations,
    store: Arc<dyn ZoneStore>,
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.operations.statistics().view();
        let health = self.store.health();
        let counters = [
            ("lianxin_messages_accepted", "Application messages accepted.", counts.messages_accepted),
            ("lianxin_commits_accepted", "Starts, commits and leaves accepted.", counts.commits_accepted),
            ("lianxin_refusals", "Requests of known callers refused.", counts.refusals),
            ("lianxin_handshake_refusals", "Connections refused before a caller was known.", counts.handshake_refusals),
            ("lianxin_streams_cut_off", "Streams whose client took nothing for too long.", counts.streams_cut_off),
            ("lianxin_reloads", "Configurations and trust files taken over while serving.", counts.reloads),
            ("lianxin_reload_refusals", "Reloads refused; nothing was changed.", counts.reload_refusals),
            ("lianxin_trust_rereads", "Times that bundle and revocation lists were read again.", counts.trust_rereads),
            ("lianxin_audit_leaves", "Leaves in the zone's audit log.", health.leaf_count),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let bundle_version = self.operations.federation().bundle().bundle.version;
        let gauges = [
            ("lianxin_trust_bundle_version", "Version of the trust bundle in force.", bundle_version),
            ("lianxin_receive_streams", "Receive streams open.", counts.receive_streams),
            ("lianxin_send_streams", "Send streams open.", counts.send_streams),
            ("lianxin_queued_units", "Units waiting for the committer.", health.queued_units as u64),
            ("lianxin_zone_writable", "1 if the zone takes writes.", u64::from(health.is_writable)),
            ("lianxin_disk_room", "2: room for every unit, 1: for audit records only, 0: for none.", room(health.room)),
            (
                "lianxin_zone_quarantined",
                "1 if the zone is closed since it is damaged.",
                u64::from(health.is_quarantined),
            ),
            ("lianxin_fencing_number", "Openings of the zone so far.", health.fencing_number),
            ("lianxin_journal_buckets", "Buckets of the journal that are kept.", health.journal.buckets),
            ("lianxin_journal_first_bucket", "First bucket that has not been dropped.", health.journal.first_bucket),
            ("lianxin_journal_uncopied_buckets", "Closed buckets without copies.", health.journal.uncopied_buckets),
            (
                "lianxin_snapshot_leaf",
                "Leaf up to which the newest complete snapshot of the state goes; 0 without one.",
                health.journal.snapshot_leaf.unwrap_or(0),
            ),
            (
                "lianxin_snapshot_rows_written",
                "Rows written of the snapshot that is being written; 0 if none is.",
                health.journal.snapshot_rows_written,
            ),
            ("lianxin_journal_fault", "1 if closed buckets cannot be kept.", u64::from(health.journal.fault.is_some())),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

const fn room(room: Room) -> u64 {
    match room {
        Room::Everything => 2,
        Room::AuditOnly => 1,
        Room::Nothing => 0,
    }
}

/// Serves until the task is dropped. One connection at a time per scraper is plenty: at most eight are open.
pub(crate) async fn serve(listener: TcpListener, operations: Operations, store: Arc<dyn ZoneStore>) {
    const CONNECTIONS_MAX: usize = 8;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { operations, store: Arc::clone(&store) }));
    let registry = Arc::new(registry);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (registry, store) = (Arc::clone(&registry), Arc::clone(&store));
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let answer = answer(&request, &registry, &*store);
                async { Ok::<_, Infallible>(answer) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let served = http.keep_alive(false).serve_connection(TokioIo::new(socket), answer);
            if let Err(error) = served.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "metrics connection ended");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry, store: &dyn ZoneStore) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => plain(StatusCode::OK, text),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n".into()),
            }
        }
        "/healthz" => plain(StatusCode::OK, "ok\n".into()),
        "/readyz" if store.health().is_writable => plain(StatusCode::OK, "ok\n".into()),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "the zone takes no writes\n".into()),
        _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz\n".into()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
