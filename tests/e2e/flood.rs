//! One department floods, another one works: how long the honest one's sends take alone and during each flood, measured in
//! one run, by turns.
//!
//! The gateway is a process of its own. Everybody shares one machine here, so the flooder's own work is bounded: it attacks
//! many times faster than the gateway allows, not as fast as it could burn the processors that the honest one needs, too.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lianxin_connection::{CallError, Connection, FrameStream, ReceiveControl};
use lianxin_harness::Stage;
use lianxin_proto::ReasonCode;
use lianxin_proto::key_packages::Claim;
use lianxin_proto::messages::Receive;
use lianxin_sdk::Channel;
use lianxin_trust::Endpoint;
use lianxin_types::{ChannelId, Clock as _, Sequence, SystemClock};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::attacks::give_up_calls_at_once;
use crate::effort::share;
use crate::raw::fresh_id;
use crate::talk::{create, join, receive, send, soon};
use crate::zone::connect_to;

/// Issue 3: one caller that floods does not move the p99 of another department by more than this.
const RATIO_MAX: f64 = 3.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// Connections from one address, five times as fast as one may make them, that never say anything.
    Handshakes,
    /// Claims of key packages in a channel that is not there, on all streams of two connections.
    Claims,
    /// Calls given up in the breath that began them, on one connection after another.
    Resets,
    /// Receive streams on a busy channel that nobody reads.
    SlowReading,
}

const FLOODS: [Flood; 4] = [Flood::Handshakes, Flood::Claims, Flood::Resets, Flood::SlowReading];

/// What the flooder knows.
#[derive(Clone)]
struct Target {
    stage: Arc<Stage>,
    /// A channel of its own with a long log.
    channel: ChannelId,
}

/// A flood under way, on a thread of its own.
struct Running {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(flood: Flood, target: Target) -> Self {
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&refused));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let flooder = Flooder { target, stop: stopping, refused: counting };
            runtime.block_on(async {
                match flood {
                    Flood::Handshakes => flooder.handshakes().await,
                    Flood::Claims => flooder.claims().await,
                    Flood::Resets => flooder.resets().await,
                    Flood::SlowReading => flooder.slow_reading().await,
                }
            });
        });
        Self { stop, refused, thread }
    }

    /// Ready once the gateway has refused something.
    async fn met(&self) {
        soon("a refusal of the flood", async {
            while self.refused.load(Ordering::Relaxed) == 0 {
                SystemClock.sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flooder does not fail");
        self.refused.load(Ordering::Relaxed)
    }
}

struct Flooder {
    target: Target,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Flooder {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn address(&self) -> SocketAddr {
        self.target.stage.gateway.address()
    }

    async fn connect(&self, app: &str) -> Connection {
        connect(&self.target.stage, app).await
    }

    async fn handshakes(&self) {
        const EVERY: Duration = Duration::from_millis(3);
        let mut open = std::collections::VecDeque::new();
        while self.goes_on() {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).expect("loopback has many addresses");
            let Ok(mut tcp) = socket.connect(self.address()).await else { continue };
            tokio::select! {
                biased;
                _end = tcp.read_u8() => self.refused(),
                () = SystemClock.sleep(EVERY) => open.push_back(tcp),
            }
            if open.len() > 200 {
                open.pop_front();
            }
        }
    }

    async fn claims(&self) {
        let connections = [self.connect("app-1").await, self.connect("app-1").await];
        let claim = async |connection: &Connection| {
            while self.goes_on() {
                let owner = "lianxin://shenji/app/nobody/1".parse().expect("well formed");
                let claim = Claim { id: fresh_id(), channel: ChannelId([0xEE; 16]), owners: vec![owner] };
                match connection.claim(claim).await {
                    Err(CallError::Refused(problem)) => {
                        let expected = [ReasonCode::ChannelNotAvailable, ReasonCode::ResourceExhausted];
                        assert!(expected.contains(&problem.code), "{problem:?}");
                        self.refused();
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let callers = connections.iter().flat_map(|connection| std::iter::repeat_n(connection, 8)).map(claim);
        futures_util::future::join_all(callers).await;
    }

    async fn resets(&self) {
        let app = self.target.stage.minted.app("jiwei", "app-1").expect("minted");
        while self.goes_on() {
            if give_up_calls_at_once(self.address(), &app).await.is_ok() {
                self.refused();
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    }

    async fn slow_reading(&self) {
        let mut open: Vec<(Connection, Vec<(ReceiveControl, FrameStream)>)> = Vec::new();
        while self.goes_on() {
            open.clear();
            for _ in 0..2 {
                let connection = self.connect("app-1").await;
                let mut streams = Vec::new();
                for _ in 0..7 {
                    let (control, mut frames) = connection.receive_stream();
                    // One frame says that it is open; what follows is never read.
                    let opened = soon("an answer", frames.next()).await;
                    if !matches!(opened, Some(Ok(_))) {
                        break;
                    }
                    let follow = Receive::Follow { channel: self.target.channel, after: Sequence(0) };
                    control.request(follow).await.expect("asked");
                    streams.push((control, frames));
                }
                open.push((connection, streams));
            }
            // The gateway ends each after two seconds without a read.
            for _ in 0..40 {
                if self.goes_on() {
                    SystemClock.sleep(Duration::from_millis(100)).await;
                }
            }
            let (_, streams) = &mut open[0];
            let Some((_, frames)) = streams.first_mut() else { continue };
            while self.goes_on() {
                let Some(Ok(_)) = soon("the end of a stream that was not read", frames.next()).await else {
                    self.refused();
                    break;
                };
            }
        }
    }
}

async fn connect(stage: &Stage, app: &str) -> Connection {
    let app = stage.minted.app("jiwei", app).expect("minted");
    let address = stage.gateway.address();
    let patience = async {
        loop {
            // A place of the connection before may come free a moment later.
            let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
            match connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await {
                Ok(connection) => return connection,
                Err(_) => SystemClock.sleep(Duration::from_millis(50)).await,
            }
        }
    };
    soon("a connection", patience).await
}

/// 99th percentile of the time from a send to its receipt, one after another.
async fn p99(channel: &Channel, sends: usize) -> Duration {
    let mut times = Vec::with_capacity(sends);
    for number in 0..sends {
        let start = SystemClock.monotonic();
        send(channel, format!("第{number}条")).await;
        times.push(SystemClock.monotonic().since(start));
    }
    times.sort();
    times[(sends * 99).div_ceil(100) - 1]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_department_does_not_move_anothers_p99() {
    let mut stage = Stage::set_up(lianxin_certs_dev::FederationPlan::default()).expect("minted");
    let config = stage.gateway.config_file();
    let text = std::fs::read_to_string(&config).expect("written");
    std::fs::write(&config, format!("{text}\n[strength]\nstall_seconds_max = 2\n")).expect("written");
    stage.gateway.start().await.expect("a gateway process");
    let stage = Arc::new(stage);

    let mut clients = Vec::new();
    for (department, app) in [("shenji", "app-1"), ("weijian", "app-1"), ("jiwei", "app-1")] {
        let client = stage.client(department, app).await.expect("opens");
        soon("a connection", client.connected()).await.expect("connects");
        clients.push(client);
    }
    let honest = create(&clients[0], &["shenji", "weijian"]).await;
    let reader = join(&honest, &clients[1]).await;
    let flooders = create(&clients[2], &["jiwei"]).await;
    let large = "洪".repeat(20_000);
    for _ in 0..60 {
        send(&flooders, large.clone()).await;
    }
    let target = Target { stage: Arc::clone(&stage), channel: flooders.id() };

    let (rounds, sends) = (share(1, 7), share(20, 200));
    let mut sent = 0;
    let mut report = Vec::new();
    for flood in FLOODS {
        let mut ratios = Vec::new();
        let mut refused = 0;
        for _ in 0..rounds {
            let alone = p99(&honest, sends).await;
            let running = Running::start(flood, target.clone());
            running.met().await;
            let during = p99(&honest, sends).await;
            refused += running.end();
            sent += 2 * sends;
            ratios.push(during.as_secs_f64() / alone.as_secs_f64());
        }
        assert!(refused > 0, "{flood:?} was refused");
        report.push((flood, median(ratios.clone()), ratios));
    }
    let received = receive(&reader, sent).await;
    assert_eq!(received.len(), sent, "everything honest arrived");
    for (flood, median, ratios) in &report {
        let ratios: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!("{flood:?}: the honest p99 moved by {median:.2} (median of {})", ratios.join(" "));
    }
    if rounds > 1 {
        for (flood, median, _) in report {
            assert!(median <= RATIO_MAX, "{flood:?} moved the p99 of another department by {median:.2}");
        }
    }
}
