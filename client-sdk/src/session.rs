//! The background task: connects, and connects again. What happens on a connection is [`crate::drive`]'s.

use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::{ConnectError, Connection, TlsIdentity};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::drive::Drive;
use crate::error::chain;
use crate::shared::{Link, Shared};
use crate::{ClientError, Config, Event, calls, trust};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);
const DELAY_DOUBLINGS_MAX: u32 = 7;
const SOFTWARE: &str = concat!("lianxin-sdk/", env!("CARGO_PKG_VERSION"));

/// Everything that a connection needs.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
    pub(crate) identity: TlsIdentity,
}

impl Session {
    /// Runs until `closing` says so or its sender has gone.
    pub(crate) async fn run(self, mut closing: watch::Receiver<()>) {
        tokio::select! {
            biased;
            () = self.forever() => {}
            // The sender never sends: it is dropped.
            _dropped = closing.changed() => {}
        }
        self.shared.link.send_replace(Link::Closed);
        self.shared.waiters.close();
        self.shared.bells.close();
    }

    async fn forever(&self) {
        let mut failures = 0;
        for number in 1_u64.. {
            match self.connect().await {
                Ok(connection) => {
                    let span = tracing::info_span!("connection", number);
                    if self.drive(connection).instrument(span).await {
                        failures = 0;
                    }
                    self.shared.link.send_replace(Link::Down);
                    self.tell(Event::Disconnected { refused: None });
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
        let mut last = ConnectError::TimedOut;
        for target in self.config.targets(federation.bundle()).unwrap_or_default() {
            let clock = Arc::clone(&self.shared.clock);
            let connected = match &self.config.dial {
                None => Connection::connect(&target, &self.identity, Arc::clone(&federation), clock, SOFTWARE).await,
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

    /// Uses a connection until it breaks. Says whether it was of any use.
    async fn drive(&self, connection: Connection) -> bool {
        if let Err(error) = trust::refresh(&self.shared, &connection).await {
            tracing::info!(error = %chain(&error), "trust not refreshed");
            return false;
        }
        // Before anybody is told: who sees this device connected may invite it.
        if let Err(error) = calls::replenish(&self.shared, &connection).await {
            tracing::warn!(error = %chain(&error), "key packages not published");
        }
        self.shared.link.send_replace(Link::Up(connection.clone()));
        self.tell(Event::Connected);
        let error = match Drive::new(Arc::clone(&self.shared), connection).run().await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        match &error {
            ClientError::Unanswered(_) | ClientError::Refused(_) => {
                tracing::info!(error = %chain(&error), "connection ended");
            }
            _ => tracing::error!(error = %chain(&error), "session stumbled"),
        }
        true
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
    !matches!(error, ConnectError::Unreachable(_) | ConnectError::TimedOut | ConnectError::Hello(_))
}
