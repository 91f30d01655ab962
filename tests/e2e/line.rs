//! A wire to the gateway that swallows answers.

use std::net::SocketAddr;

use lianxin_certs_dev::AppPaths;
use lianxin_connection::Connection;
use lianxin_trust::Endpoint;
use lianxin_types::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::talk::soon;
use crate::zone::{Zone, connect_to};

/// What a line does with what comes back from the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Requests go through, answers do not.
    Held,
    Cut,
}

/// A wire between a device and the gateway that lets only requests through when it is told to.
struct Line {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
}

impl Line {
    async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (flow, state) = watch::channel(Flow::Open);
        tokio::spawn(async move {
            // Until the line is dropped, or nobody calls any more.
            while let Ok((device, _)) = listener.accept().await {
                let upstream = TcpStream::connect(gateway).await.expect("the gateway listens");
                tokio::spawn(carry(device, upstream, state.clone()));
            }
        });
        Self { address, flow }
    }

    fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn carry(device: TcpStream, gateway: TcpStream, mut state: watch::Receiver<Flow>) {
    let ((mut from_device, mut to_device), (mut from_gateway, mut to_gateway)) =
        (device.into_split(), gateway.into_split());
    let mut ended = state.clone();
    let up = async { tokio::io::copy(&mut from_device, &mut to_gateway).await.map(|_| ()) };
    let down = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let count = from_gateway.read(&mut bytes).await?;
            if count == 0 || state.wait_for(|flow| *flow != Flow::Held).await.is_err() {
                return Ok::<_, std::io::Error>(());
            }
            to_device.write_all(&bytes[..count]).await?;
        }
    };
    // Whatever ends first ends both directions: the sockets close with this task.
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = ended.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

/// Asks as this application over a line that swallows the answer, waits until the call has had its effect, and cuts the line.
pub(crate) async fn in_vain<T: std::fmt::Debug>(
    zone: &Zone,
    app: &AppPaths,
    ask: impl AsyncFnOnce(Connection) -> T,
    has_effect: impl AsyncFn() -> bool,
) {
    let line = Line::to(zone.address()).await;
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: line.address.port() };
    let connection = connect_to(&zone.minted, &app.tls_certificate, &app.tls_key, endpoint).await.expect("connects");
    line.set(Flow::Held);
    let accepted = async {
        while !has_effect().await {
            SystemClock.sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = ask(connection) => panic!("the line lets no answer through: {answer:?}"),
        () = soon("the effect", accepted) => line.set(Flow::Cut),
    }
}
