//! The background task: connects, and connects again. What happens on a connection is [`crate::drive`]'s.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lianxin_connection::{CallError, ConnectError, Connection, ReasonCode, RefusedReason};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::drive::Drive;
use crate::error::chain;
use crate::shared::{Link, Shared};
use crate::{ClientError, Config, Event, certificates, key_packages, trust};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);
const DELAY_DOUBLINGS_MAX: u32 = 7;
const SOFTWARE: &str = concat!("lianxin-sdk/", env!("CARGO_PKG_VERSION"));

/// Everything that a connection needs.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
}

/// The end of the session, also by a panic.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.link.send_replace(Link::Closed);
        self.0.waiters.close();
        self.0.bells.close();
    }
}

impl Session {
    /// Runs until `closing` says so or its sender has gone.
    pub(crate) async fn run(self, mut closing: watch::Receiver<()>) {
        // However it ends, nobody waits for it any longer.
        let _end = End(Arc::clone(&self.shared));
        tokio::select! {
            biased;
            () = self.forever() => {}
            () = certificates::look_after(&self.shared) => {}
            // The sender never sends: it is dropped.
            _dropped = closing.changed() => {}
        }
    }

    async fn forever(&self) {
        let mut failures = 0;
        for number in 1_u64.. {
            match self.connect().await {
                Ok(connection) => {
                    let span = tracing::info_span!("connection", number);
                    let driven = AssertUnwindSafe(self.drive(connection)).catch_unwind().instrument(span).await;
                    // A panic was printed where it happened. It is ours, and the next connection may meet it again.
                    let (was_of_use, refused) = driven.unwrap_or((false, None));
                    if was_of_use {
                        failures = 0;
                    }
                    self.shared.link.send_replace(refused.clone().map_or(Link::Down, Link::Refused));
                    self.tell(Event::Disconnected { refused });
                }
                Err(error) => {
                    tracing::info!(error = %chain(&error), "no connection");
                    let error = Arc::new(error);
                    let refused = is_refusal(&error).then(|| Arc::clone(&error));
                    self.shared.link.send_replace(refused.clone().map_or(Link::Down, Link::Refused));
                    self.tell(Event::Disconnected { refused });
                }
            }
            self.shared.clock.sleep(self.delay(failures)).await;
            failures += 1;
        }
    }

    /// The zone's endpoints in their order. The first refusal is reported: the others would say the same.
    async fn connect(&self) -> Result<Connection, ConnectError> {
        let federation = self.shared.federation();
        let (mut last, identity) = (ConnectError::TimedOut, self.shared.tls_to_connect());
        for target in self.config.targets(federation.bundle()).unwrap_or_default() {
            let clock = Arc::clone(&self.shared.clock);
            let connected = match &self.config.dial {
                None => Connection::connect(&target, &identity, Arc::clone(&federation), clock, SOFTWARE).await,
                Some(dial) => Connection::connect_by(&**dial, &target, clock, SOFTWARE).await,
            };
            match connected {
                Ok((connection, hello)) => {
                    if hello.caller != self.shared.device {
                        tracing::warn!("the gateway knows this device under another name");
                    }
                    return Ok(connection);
                }
                Err(error) if is_refusal(&error) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Uses a connection until it breaks. Says whether it was of any use, and of the end whether it was a refusal of this device.
    async fn drive(&self, connection: Connection) -> (bool, Option<Arc<ConnectError>>) {
        if let Err(error) = trust::refresh(&self.shared, &connection).await {
            tracing::info!(error = %chain(&error), "trust not refreshed");
            return (false, refusal_in(&error));
        }
        // Before anybody is told: who sees this device connected may invite it.
        let replenished = key_packages::replenish(&self.shared, &connection).await;
        self.shared.link.send_replace(Link::Up(connection.clone()));
        self.tell(Event::Connected);
        let mut drive = Drive::new(Arc::clone(&self.shared), connection);
        drive.replenished(replenished);
        let error = match drive.run().await {
            Ok(()) => {
                tracing::info!("the connection is opened again with the renewed certificate");
                return (true, None);
            }
            Err(error) => error,
        };
        match &error {
            ClientError::Unanswered(_) | ClientError::Refused(_) => {
                tracing::info!(error = %chain(&error), "connection ended");
            }
            _ => {
                // What the state or this device's own records have done to one connection they may do to the next.
                tracing::error!(error = %chain(&error), "session stumbled");
                return (false, None);
            }
        }
        (true, refusal_in(&error))
    }

    /// Between half and all of a doubling delay, so that a fleet does not come back in step.
    fn delay(&self, failures: u32) -> Duration {
        let full = (DELAY_MIN * 2_u32.pow(failures.min(DELAY_DOUBLINGS_MAX))).min(DELAY_MAX);
        let random = u32::from(u16::from_be_bytes(self.shared.random.array()));
        full / 2 + full * random / (2 * u32::from(u16::MAX))
    }

    fn tell(&self, event: Event) {
        // Nobody need listen.
        let _listeners = self.shared.moment.send(event);
    }
}

/// Whether trying again at once is pointless.
fn is_refusal(error: &ConnectError) -> bool {
    is_of_time(error)
        || !matches!(error, ConnectError::Unreachable(_) | ConnectError::TimedOut | ConnectError::Hello(_))
}

/// A certificate that ended under an open connection: the next one is opened in vain.
fn refusal_in(error: &ClientError) -> Option<Arc<ConnectError>> {
    match error {
        ClientError::Refused(problem) if problem.code == ReasonCode::CertificateExpired => {
            Some(Arc::new(ConnectError::Hello(CallError::Refused(problem.clone()))))
        }
        _ => None,
    }
}

/// Whether the gateway holds our certificate for not valid now: a handshake tolerates a skew of the clocks, a call does not.
pub(crate) fn is_of_time(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused { reason } => *reason == RefusedReason::Expired,
        ConnectError::Hello(error) => {
            error.refusal().is_some_and(|problem| problem.code == ReasonCode::CertificateExpired)
        }
        _ => false,
    }
}
