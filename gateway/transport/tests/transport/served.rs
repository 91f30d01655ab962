//! The stream as tonic takes it: a handler finds the peer's certificate in the request.

use std::convert::Infallible;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use lianxin_transport::PeerCertificate;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::transport::{Endpoint, Server};
use tower::{ServiceExt as _, service_fn};

use crate::stage::Stage;

#[tokio::test]
async fn a_handler_finds_who_calls_and_a_drain_ends_the_server() {
    let mut stage = Stage::new().await;
    let handler = service_fn(|request: Request<Body>| async move {
        let peer = request.extensions().get::<PeerCertificate>().expect("the listener put it there").clone();
        let answer =
            Response::builder().header("certificates", peer.chain.len()).header("source", peer.source.to_string());
        Ok::<_, Infallible>(answer.body(Body::empty()).expect("a response"))
    });
    let incoming = stage.incoming.take().expect("not taken yet");
    let (drain, drained) = oneshot::channel::<()>();
    let server =
        tokio::spawn(Server::builder().serve_with_incoming_shutdown(handler, incoming, async { drop(drained.await) }));

    let (caller, address) = (stage.app("weijian", "app-1"), stage.address);
    let connector = service_fn(move |_| {
        let caller = caller.clone();
        async move { caller.connect(address).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://gateway").connect_with_connector(connector).await.expect("connected");
    let request = Request::builder().uri("http://gateway/x").body(Body::empty()).expect("a request");
    let response = channel.oneshot(request).await.expect("answered");

    assert_eq!(response.headers()["certificates"], "1");
    assert!(response.headers()["source"].to_str().expect("text").starts_with("127.0.0.1:"));
    drain.send(()).expect("the server waits for it");
    server.await.expect("no panic").expect("drained");
}
