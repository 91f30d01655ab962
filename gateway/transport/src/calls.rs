//! Counts the calls of each connection, from the outside: a layer around the whole service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tower::{Layer, Service};

use crate::connection::PeerCertificate;
use crate::line::OpenCall;

/// The layer; it goes outside of all others. Calls over connections that are not [`crate::Accepted`] pass uncounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountCalls;

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct CountedCalls<S>(S);

impl<S> Layer<S> for CountCalls {
    type Service = CountedCalls<S>;

    fn layer(&self, inner: S) -> CountedCalls<S> {
        CountedCalls(inner)
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, A> Service<Request<Body>> for CountedCalls<S>
where
    S: Service<Request<Body>, Response = Response<A>>,
    S::Future: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(peer) = request.extensions().get::<PeerCertificate>() else {
            let answer = self.0.call(request);
            return Box::pin(async move { Ok(answer.await?.map(Body::new)) });
        };
        let mut call = peer.line.call_begins();
        let is_broken = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&is_broken);
        let answer = self.0.call(request.map(|body| Body::new(RequestBody { body, is_broken: note })));
        Box::pin(async move {
            // A call is given up when it is dropped before its answer, or answered because its request broke off.
            let answer = answer.await;
            if !is_broken.load(Ordering::Acquire) {
                call.answered();
            }
            Ok(answer?.map(|body| Body::new(AnswerBody { body, _call: call })))
        })
    }
}

/// A request's body that notes when it breaks off.
struct RequestBody {
    body: Body,
    is_broken: Arc<AtomicBool>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.is_broken.store(true, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that keeps its call open.
struct AnswerBody<B> {
    body: B,
    _call: OpenCall,
}

impl<B: HttpBody + Unpin> HttpBody for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
