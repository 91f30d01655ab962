//! Requests that never became a message: bytes that are no protobuf, a message over the gateway's own bound, one that was
//! begun and not finished. tonic answers them before any handler runs, with a bare status; here they become refusals like
//! all others, by name and on record.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use lianxin_operations::Refusal;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::status::to_status;
use crate::unfinished::{TimelyBody, Unfinished};
use crate::{Face, Peer, REQUEST_BYTES_MAX};

/// The word in the records for a request of which nothing more is known.
pub(crate) const ACTION: &str = "unread-request";

/// The refusal that a status stands for which tonic made while it read a request. `None` for what a handler answered, and
/// for a connection that broke while it was read: there is nobody to refuse.
pub(crate) fn refusal_of(status: &Status) -> Option<Refusal> {
    if let Some(source) = status.source() {
        return source.is::<Unfinished>().then_some(Refusal::TooSlow);
    }
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::Internal => Some(Refusal::Malformed { field: "request" }),
        // The frame is refused by its announced length, which tonic keeps to itself.
        Code::OutOfRange => Some(Refusal::TooLarge { field: "request", limit: REQUEST_BYTES_MAX as u64, found: 0 }),
        _ => None,
    }
}

/// One of the services, with an answer of ours to what it could not read.
#[derive(Clone)]
pub struct Answering<S> {
    face: Face,
    service: S,
}

impl<S> Answering<S> {
    pub(crate) fn new(face: Face, service: S) -> Self {
        Self { face, service }
    }
}

impl<S: NamedService> NamedService for Answering<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Answering<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (face, peer) = (self.face.clone(), request.extensions().get::<Peer>().cloned());
        let (clock, within) = (face.operations().clock(), face.patience.message_duration_max);
        let answered = self.service.call(request.map(|body| Body::new(TimelyBody::new(body, clock, within))));
        Box::pin(async move {
            let answer = answered.await?;
            match answer.extensions().get::<Status>().and_then(refusal_of) {
                Some(refusal) => Ok(face.refuse_unread(peer, refusal).await.into_http()),
                None => Ok(answer),
            }
        })
    }
}

impl Face {
    /// Refuses, as the handler would have that was never reached: the caller first, its turn, the record.
    async fn refuse_unread(&self, peer: Option<Peer>, refusal: Refusal) -> Status {
        let refused = async {
            let caller = self.caller_behind(peer.as_ref())?;
            self.paced(&caller).await?;
            Err::<Infallible, _>(to_status(&self.operations().refused(&caller, ACTION, refusal).await))
        };
        match refused.await {
            Ok(never) => match never {},
            Err(status) => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_was_not_read_is_refused_here() {
        assert_eq!(refusal_of(&Status::internal("invalid wire type")), Some(Refusal::Malformed { field: "request" }));
        let found = refusal_of(&Status::out_of_range("too long"));
        assert!(matches!(found, Some(Refusal::TooLarge { field: "request", found: 0, .. })), "{found:?}");
        assert_eq!(refusal_of(&to_status(&Refusal::Internal)), None, "a handler's own answer");
        assert_eq!(refusal_of(&to_status(&Refusal::Duplicate)), None);
        let broken = Status::from_error(Box::new(std::io::Error::other("connection lost")));
        assert_eq!(refusal_of(&broken), None);
        let late = Status::from_error(Box::new(Unfinished { within: Duration::from_secs(1) }));
        assert_eq!(refusal_of(&late), Some(Refusal::TooSlow));
        assert_eq!(refusal_of(&Status::cancelled("timeout")), None);
        assert_eq!(refusal_of(&Status::unimplemented("no such call")), None);
    }
}
