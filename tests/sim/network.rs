//! The network between the devices and the gateway. It carries whole calls and the frames of streams, and loses, delays, repeats and cuts
//! as the weather says. What is on its way is carried by tasks of its own, as by a socket: it goes on while nobody looks.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use lianxin_connection::{ConnectError, Dial, Dialling, Line, Target};
use lianxin_gateway::InnerLine;
use lianxin_types::Clock as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::chance::Chance;
use crate::gateway::Plant;
use crate::timeline::SimClock;
use crate::trace::Trace;
use crate::weather::{Fate, Loss, Weather};

/// Frames that are on their way in one direction of a stream.
const FRAMES_MAX: usize = 16;
/// What is on its way is carried this much longer than the line is believed to stand: an HTTP/2 keepalive finds it dead then.
const KEEPALIVE: Duration = Duration::from_secs(40);

/// One device's way to the gateway.
pub(crate) struct Wire {
    name: String,
    chain: Arc<Vec<Vec<u8>>>,
    plant: Arc<Plant>,
    clock: SimClock,
    seed: u64,
    chance: Chance,
    trace: Trace,
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    is_parted: bool,
    /// Ends the lines that stand.
    lines: CancellationToken,
    /// How many calls there were of each kind.
    calls: BTreeMap<String, u64>,
}

impl Wire {
    pub(crate) fn new(
        seed: u64,
        name: &str,
        chain: Vec<Vec<u8>>,
        plant: &Arc<Plant>,
        clock: SimClock,
        trace: &Trace,
    ) -> Arc<Self> {
        let state = State {
            weather: Weather::CLEAR,
            is_parted: false,
            lines: CancellationToken::new(),
            calls: BTreeMap::new(),
        };
        Arc::new(Self {
            name: name.to_owned(),
            chain: Arc::new(chain),
            plant: Arc::clone(plant),
            clock,
            seed,
            chance: Chance::new(seed, &format!("the wire of {name}")),
            trace: trace.clone(),
            state: Mutex::new(state),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.with(|state| state.weather = weather);
    }

    /// Nothing gets through any more; both ends notice when a keepalive does.
    pub(crate) fn part(self: &Arc<Self>) {
        let lines = self.with(|state| {
            state.is_parted = true;
            std::mem::take(&mut state.lines)
        });
        let noticed = self.clock.sleep(self.chance.millis(1..KEEPALIVE.as_millis() as u64));
        tokio::spawn(async move {
            noticed.await;
            lines.cancel();
        });
    }

    /// What is sent gets through again, over new lines.
    pub(crate) fn heal(&self) {
        self.with(|state| state.is_parted = false);
    }

    /// Breaks the lines that stand.
    pub(crate) fn cut(&self) {
        self.with(|state| std::mem::take(&mut state.lines)).cancel();
    }

    /// A stream of draws for one more call of its kind: what becomes of it does not depend on what else is on its way.
    fn chance_of(&self, kind: &str) -> Chance {
        let number = self.with(|state| {
            let number = state.calls.entry(kind.to_owned()).or_default();
            *number += 1;
            *number
        });
        Chance::new(self.seed, &format!("the wire of {}, {kind} {number}", self.name))
    }

    fn weather(&self) -> Weather {
        self.with(|state| state.weather)
    }

    fn is_parted(&self) -> bool {
        self.with(|state| state.is_parted)
    }

    async fn open(&self) -> Result<(InnerLine, CancellationToken), ConnectError> {
        self.clock.sleep(self.weather().delay(&self.chance_of("dial"))).await;
        let gateway = self.plant.line(&self.chain);
        let (false, Some((line, gone))) = (self.is_parted(), gateway) else {
            return Err(ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into()));
        };
        let cut = self.with(|state| state.lines.child_token());
        // Both ends of the line break together; whichever way.
        let both = cut.clone();
        let watched = line.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = gone.cancelled() => both.cancel(),
                () = watched.closed() => both.cancel(),
                () = both.cancelled() => {}
            }
        });
        Ok((line, cut))
    }
}

/// The dialling end of a device's wire.
pub(crate) struct Dialler(pub(crate) Arc<Wire>);

impl Dial for Dialler {
    fn dial<'a>(&'a self, _target: &'a Target) -> Dialling<'a> {
        Box::pin(async move {
            let (line, cut) = self.0.open().await?;
            let wire = Arc::clone(&self.0);
            let standing = cut.clone().drop_guard();
            let standing = Arc::new(standing);
            Ok(Line::new(tower::service_fn(move |request: Request<Body>| {
                let chance = wire.chance_of(request.uri().path());
                let carrier = Carrier { wire: Arc::clone(&wire), line: line.clone(), cut: cut.clone(), chance };
                let _held = Arc::clone(&standing);
                carrier.call(request)
            })))
        })
    }
}

/// Carries one call.
struct Carrier {
    wire: Arc<Wire>,
    line: InnerLine,
    cut: CancellationToken,
    chance: Chance,
}

fn broken() -> Status {
    Status::unavailable("the line is broken")
}

impl Carrier {
    async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (reply, replied) = oneshot::channel();
        let cut = self.cut.clone();
        tokio::spawn(async move {
            let is_stream = matches!(request.uri().path().rsplit('/').next(), Some("Send" | "Receive"));
            if is_stream { self.stream(request, reply).await } else { self.unary(request, reply).await }
        });
        tokio::select! {
            biased;
            () = cut.cancelled() => Err(broken()),
            replied = replied => replied.unwrap_or_else(|_| Err(broken())),
        }
    }

    /// Time on the way; nothing where the line breaks meanwhile, or nothing gets through.
    async fn travel(&self, chance: &Chance) -> Option<()> {
        let delay = self.wire.weather().delay(chance);
        tokio::select! {
            biased;
            () = self.cut.cancelled() => None,
            () = self.wire.clock.sleep(delay) => {
                if self.wire.is_parted() {
                    self.cut.cancelled().await;
                    return None;
                }
                Some(())
            }
        }
    }

    async fn unary(self, request: Request<Body>, mut reply: oneshot::Sender<Result<Response<Body>, Status>>) {
        tokio::select! {
            biased;
            // Who gives up a call resets its stream.
            () = reply.closed() => {}
            () = self.cut.cancelled() => {}
            answer = self.fated(request) => match answer {
                Some(answer) => { let _gone = reply.send(answer); }
                None => {
                    // There is no answer, until the caller gives up or the line breaks.
                    tokio::select! { () = reply.closed() => {}, () = self.cut.cancelled() => {} }
                }
            },
        }
    }

    async fn fated(&self, request: Request<Body>) -> Option<Result<Response<Body>, Status>> {
        let fate = self.wire.weather().fate(&self.chance);
        if fate != Fate::Delivered {
            self.wire.trace.fault(format_args!("{} {}: {fate:?}", self.wire.name, request.uri().path()));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let again = || Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        self.travel(&self.chance).await?;
        match fate {
            Fate::RequestLost(loss) => self.lost(loss),
            Fate::Delivered => self.answered(again()).await,
            Fate::ReplyLost(loss) => {
                let _lost = self.answered(again()).await?;
                self.lost(loss)
            }
            Fate::Repeated => {
                let first = self.answered(again()).await?;
                let second = self.answered(again()).await?;
                Some(if self.chance.happens(500) { first } else { second })
            }
        }
    }

    fn lost(&self, loss: Loss) -> Option<Result<Response<Body>, Status>> {
        match loss {
            Loss::Broken => self.cut.cancel(),
            Loss::Failed => return Some(Err(broken())),
            Loss::Silent => {}
        }
        None
    }

    /// The whole answer, and its way back.
    async fn answered(&self, request: Request<Body>) -> Option<Result<Response<Body>, Status>> {
        let (parts, body) = self.line.call(request).await.into_parts();
        let body = body.collect().await;
        self.travel(&self.chance).await?;
        Some(body.map(|body| Response::from_parts(parts, Body::new(body))))
    }

    async fn stream(self, request: Request<Body>, reply: oneshot::Sender<Result<Response<Body>, Status>>) {
        if self.travel(&self.chance).await.is_none() {
            return;
        }
        let carrier = Arc::new(self);
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let there = carrier.carry(body, &format!("requests of {path}"));
        let response = tokio::select! {
            biased;
            () = carrier.cut.cancelled() => return,
            response = carrier.line.call(Request::from_parts(parts, there)) => response,
        };
        if carrier.travel(&carrier.chance).await.is_none() {
            return;
        }
        let (parts, body) = response.into_parts();
        let back = carrier.carry(body, &format!("answers of {path}"));
        let _gone = reply.send(Ok(Response::from_parts(parts, back)));
    }

    /// Carries the frames of a body to the other end, one behind the other.
    fn carry(self: &Arc<Self>, mut body: Body, direction: &str) -> Body {
        let (sender, arrived) = mpsc::channel(FRAMES_MAX);
        let chance = self.wire.chance_of(direction);
        let carrier = Arc::clone(self);
        tokio::spawn(async move {
            let carried = async {
                while let Some(frame) = body.frame().await {
                    if carrier.travel(&chance).await.is_none() {
                        return;
                    }
                    if chance.happens(carrier.wire.weather().cuts) {
                        carrier.wire.trace.fault(format_args!("{}: the line is cut at a frame", carrier.wire.name));
                        carrier.cut.cancel();
                        return;
                    }
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = carrier.cut.cancelled() => {}
                () = sender.closed() => {}
                () = carried => return,
            }
            let _full_or_gone = sender.try_send(Err(broken()));
        });
        Body::new(Arriving(arrived))
    }
}

/// What has arrived of a body.
struct Arriving(mpsc::Receiver<Result<Frame<Bytes>, Status>>);

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx)
    }
}
