//! The way to a gateway, for who brings another one than mutual TLS.

use std::future::Future;
use std::pin::Pin;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

use crate::{ConnectError, Target};

/// What carries the calls of one connection. An error means that the outcome of the call is unknown.
pub type Line = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// A line being opened.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Line, ConnectError>> + Send + 'a>>;

/// Opens lines to gateways. [`crate::Connection::connect`] needs none: it goes by mutual TLS. This is for a simulation, or an
/// application that has its gateway in the same process. Who the two ends are is then for the line to know: neither a
/// certificate is shown nor one checked.
pub trait Dial: Send + Sync + 'static {
    /// Opens a line to a gateway; the caller bounds the time.
    fn dial<'a>(&'a self, target: &'a Target) -> Dialling<'a>;
}
