//! Metrics and readiness over plain HTTP on loopback: `/metrics`, `/livez` and `/healthz` (the process lives), `/readyz` (it
//! may be sent work, or why not). What is exported is one table, printed in `METRICS.md`; `alerts.yml` beside it has rules that name nothing else.

#[cfg(test)]
mod document;
mod exporter;
mod figures;
mod process;
mod table;

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::readiness::Readiness;
pub(crate) use figures::Sources;
pub(crate) use process::{DiskSpace, ProcessFigures};
pub use table::{METRICS, MetricKind, MetricRow};

/// Serves until the task is dropped. One connection at a time per scraper is plenty: at most eight are open.
pub(crate) async fn serve(listener: TcpListener, sources: Sources) {
    const CONNECTIONS_MAX: usize = 8;
    let readiness = sources.readiness.clone();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    let registry = Arc::new(registry);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (registry, readiness) = (Arc::clone(&registry), readiness.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let answer = answer(&request, &registry, &readiness);
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

fn answer(request: &Request<Incoming>, registry: &Registry, readiness: &Readiness) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => typed(StatusCode::OK, OPEN_METRICS, text),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n".into()),
            }
        }
        // Whoever restarts what does not live asks here: nothing that a restart does not mend may be in the answer.
        "/livez" | "/healthz" => plain(StatusCode::OK, "ok\n".into()),
        "/readyz" => {
            let found = readiness.read();
            let status = if found.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            plain(status, found.page())
        }
        _ => plain(StatusCode::NOT_FOUND, "try /metrics, /livez, /readyz\n".into()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Prometheus 3 takes no scrape without it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
