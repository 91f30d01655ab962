//! A wire between a device and the gateway that can swallow answers: what was accepted, and never acknowledged.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A listener on loopback that carries every connection to the gateway, byte for byte. It carries until it is dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
    swallowed: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

/// What is done with what comes back from the gateway.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Requests go through, answers do not.
    is_held: bool,
    /// Answers go through, requests do not.
    is_dumb: bool,
    /// How often the line was cut. A connection lives as long as this does not change.
    cuts: u64,
}

impl Line {
    /// A line to this gateway, which lets everything through.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn to(gateway: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, changes) = watch::channel(State::default());
        let swallowed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&swallowed);
        let accepting = tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let (changes, counter) = (changes.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    // A gateway that does not listen is a connection that breaks.
                    if let Ok(upstream) = TcpStream::connect(gateway).await {
                        carry(device, upstream, changes, &counter).await;
                    }
                });
            }
        });
        Ok(Self { address, state, swallowed, accepting })
    }

    /// Where devices connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on requests go through and answers do not.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.is_held = true);
    }

    /// From now on answers go through and requests wait, until [`Line::release`].
    pub fn hold_requests(&self) {
        self.state.send_modify(|state| state.is_dumb = true);
    }

    /// Lets everything through again, also what waited.
    pub fn release(&self) {
        self.state.send_modify(|state| (state.is_held, state.is_dumb) = (false, false));
    }

    /// Breaks all connections and forgets the answers that were held back: the number of their bytes since the line was made,
    /// encrypted as they are. New connections are carried in both directions.
    pub fn cut(&self) -> u64 {
        self.state.send_modify(|state| *state = State { cuts: state.cuts + 1, ..State::default() });
        self.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(device: TcpStream, gateway: TcpStream, mut state: watch::Receiver<State>, swallowed: &AtomicU64) {
    let ((mut from_device, mut to_device), (mut from_gateway, mut to_gateway)) =
        (device.into_split(), gateway.into_split());
    let mut ended = state.clone();
    let cuts = state.borrow().cuts;
    let mut mouth = state.clone();
    let up = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let count = from_device.read(&mut bytes).await?;
            if count == 0 || mouth.wait_for(|state| !state.is_dumb || state.cuts != cuts).await.is_err() {
                return Ok::<_, std::io::Error>(());
            }
            to_gateway.write_all(&bytes[..count]).await?;
        }
    };
    let down = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let count = from_gateway.read(&mut bytes).await?;
            if count == 0 {
                return Ok::<_, std::io::Error>(());
            }
            if state.borrow().is_held {
                swallowed.fetch_add(count as u64, Ordering::Relaxed);
            }
            if state.wait_for(|state| !state.is_held || state.cuts != cuts).await.is_err() {
                return Ok(());
            }
            if state.borrow().cuts != cuts {
                return Ok(());
            }
            to_device.write_all(&bytes[..count]).await?;
        }
    };
    // Whatever ends first ends both directions: the sockets close with this task.
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = ended.wait_for(|state| state.cuts != cuts) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::before;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_held_answer_is_gone_with_the_cut_and_the_next_connection_is_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let line = Line::to(listener.local_addr().expect("bound")).await.expect("a port");
        let mut device = TcpStream::connect(line.address()).await.expect("the line listens");
        let (mut gateway, _) = listener.accept().await.expect("carried");
        let mut heard = [0; 3];

        device.write_all(b"one").await.expect("open");
        before(SOON, "a request", gateway.read_exact(&mut heard)).await.expect("soon").expect("open");
        line.hold();
        gateway.write_all(b"yes").await.expect("open");
        device.write_all(b"two").await.expect("requests go through");
        before(SOON, "another", gateway.read_exact(&mut heard)).await.expect("soon").expect("open");
        while line.swallowed.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(line.cut(), 3);
        let end = before(SOON, "the end", device.read(&mut heard)).await.expect("soon");
        assert!(!matches!(end, Ok(1..)), "the answer came through: {end:?}");

        let mut device = TcpStream::connect(line.address()).await.expect("the line listens");
        let (mut gateway, _) = listener.accept().await.expect("carried");
        gateway.write_all(b"yes").await.expect("open");
        before(SOON, "an answer", device.read_exact(&mut heard)).await.expect("soon").expect("open");
        assert_eq!(&heard, b"yes");
    }
}
