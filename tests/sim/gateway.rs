//! The gateway of a simulation: the real rooms over a store in memory. A crash drops them where they stand; what the store had
//! accepted is there when it is opened again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lianxin_certs_dev::Minted;
use lianxin_gateway::{Config, Embedded, InnerLine};
use lianxin_store::{MemoryEngine, Zone, ZoneOptions, ZoneStore};
use lianxin_types::{ChannelId, Sequence};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::timeline::SimClock;

/// Where the gateway runs, or does not.
pub(crate) struct Plant {
    config: Config,
    engine: MemoryEngine,
    clock: SimClock,
    random: Arc<Chance>,
    running: Mutex<Option<Running>>,
}

struct Running {
    gateway: Embedded,
    store: Arc<dyn ZoneStore>,
    /// Cancelled when it crashes.
    gone: CancellationToken,
}

impl Plant {
    pub(crate) fn new(minted: &Minted, clock: SimClock, random: Chance) -> Arc<Self> {
        Arc::new(Self {
            config: configuration(minted),
            engine: MemoryEngine::new(),
            clock,
            random: Arc::new(random),
            running: Mutex::default(),
        })
    }

    pub(crate) fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the gateway over what the store holds, unless it runs.
    pub(crate) async fn start(&self) {
        if self.running().is_some() {
            return;
        }
        let zone = self.config.zone.clone();
        let clock: Arc<SimClock> = Arc::new(self.clock.clone());
        let store = Zone::open(zone, self.engine.reopened(), clock.clone(), ZoneOptions::default());
        let store: Arc<dyn ZoneStore> = Arc::new(store.expect("what was acknowledged opens again"));
        let random = Arc::clone(&self.random);
        let gateway = Embedded::open(&self.config, Arc::clone(&store), clock, random).await.expect("it opens");
        let running = Running { gateway, store, gone: CancellationToken::new() };
        *self.running() = Some(running);
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn crash(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.gone.cancel();
            drop(running.gateway);
        }
    }

    /// A line to it, and what breaks the line when it crashes; `None` while it is down.
    pub(crate) fn line(&self, chain: &Arc<Vec<Vec<u8>>>) -> Option<(InnerLine, CancellationToken)> {
        let running = self.running();
        running.as_ref().map(|running| (running.gateway.line(Arc::clone(chain)), running.gone.clone()))
    }

    /// What it has accepted.
    ///
    /// # Panics
    /// While it is down.
    pub(crate) fn store(&self) -> Arc<dyn ZoneStore> {
        let running = self.running();
        Arc::clone(&running.as_ref().expect("the gateway runs").store)
    }

    /// How many members a channel has; 0 while it is down.
    pub(crate) fn members(&self, channel: &ChannelId) -> usize {
        let running = self.running();
        let head = running.as_ref().and_then(|running| running.store.head(channel).expect("readable"));
        head.map_or(0, |head| head.members.len())
    }

    /// A channel's whole log.
    pub(crate) fn log(&self, channel: &ChannelId) -> Vec<Arc<lianxin_store::StoredEvent>> {
        let (store, mut log) = (self.store(), Vec::new());
        loop {
            let after = Sequence(log.len() as u64);
            let page = store.read(channel, after, 1_000, 64 * 1024 * 1024).expect("readable");
            if page.events.is_empty() {
                return log;
            }
            log.extend(page.events);
        }
    }
}

fn configuration(minted: &Minted) -> Config {
    let lists = minted.revocation_list_files().expect("minted");
    let lists: Vec<_> = lists.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let text = format!(
        r#"
            zone = "cn-zj-1"
            listen = "127.0.0.1:0"
            [tls]
            certificate = "gateway/tls.pem"
            key = "gateway/tls.key"
            [trust]
            roots = "roots.json"
            bundle = "trust-bundle.note"
            revocation_lists = [{lists}]
            removal_key = "gateway/removal.key"
            [store]
            engine = "sled"
            folder = "nothing-is-stored-here"
            [audit]
            pseudonym_key = "pseudonym.key"
        "#,
        lists = lists.join(", "),
    );
    Config::parse(&text, &minted.folder().join("gateway.toml")).expect("a good configuration")
}
