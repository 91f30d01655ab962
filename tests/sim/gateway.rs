//! The gateway of a simulation: the real rooms over a store in memory. A crash drops them where they stand; what the store had
//! accepted is there when it is opened again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lianxin_certs_dev::Minted;
use lianxin_gateway::{Config, Embedded, InnerLine};
use lianxin_store::conformance::drop_buckets;
use lianxin_store::{MemoryEngine, Zone, ZoneOptions, ZoneStore};
use lianxin_types::{ChannelId, DeviceUri, Sequence};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::log::Log;
use crate::timeline::SimClock;
use crate::trace::Trace;

/// Where the gateway runs, or does not.
pub(crate) struct Plant {
    config: Config,
    engine: MemoryEngine,
    clock: SimClock,
    random: Arc<Chance>,
    /// What it has accepted since the beginning.
    pub(crate) log: Log,
    running: Mutex<Option<Running>>,
}

struct Running {
    gateway: Embedded,
    store: Arc<dyn ZoneStore>,
    /// Cancelled when it crashes.
    gone: CancellationToken,
    /// Writes down what it accepts.
    _scribe: JoinSet<()>,
}

/// Few enough that old events can be forgotten while a simulation lasts.
const BUCKET_RECORDS_MAX: u64 = 100;

impl Plant {
    pub(crate) fn new(minted: &Minted, states: &Path, clock: SimClock, random: Chance) -> Arc<Self> {
        Arc::new(Self {
            config: configuration(minted, states),
            engine: MemoryEngine::new(),
            clock,
            random: Arc::new(random),
            log: Log::default(),
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
        let options = ZoneOptions { bucket_records_max: BUCKET_RECORDS_MAX, ..ZoneOptions::default() };
        let store = Zone::open(zone, self.engine.reopened(), clock.clone(), options);
        let store: Arc<dyn ZoneStore> = Arc::new(store.expect("what was acknowledged opens again"));
        let random = Arc::clone(&self.random);
        let gateway = Embedded::open(&self.config, Arc::clone(&store), clock, random).await.expect("it opens");
        let mut scribe = JoinSet::new();
        scribe.spawn(self.log.clone().follow(Arc::clone(&store)));
        let running = Running { gateway, store, gone: CancellationToken::new(), _scribe: scribe };
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

    /// The members of a channel; nobody while it is down.
    pub(crate) fn members(&self, channel: &ChannelId) -> BTreeSet<DeviceUri> {
        let running = self.running();
        let head = running.as_ref().and_then(|running| running.store.head(channel).expect("readable"));
        head.map(|head| head.members.keys().cloned().collect()).unwrap_or_default()
    }

    /// Has retention end every bucket that may go.
    pub(crate) async fn forget_old_events(&self, trace: &Trace) {
        let Some(store) = self.running().as_ref().map(|running| Arc::clone(&running.store)) else { return };
        let Ok(may_go) = store.prepare_drop().await else { return };
        let retention = "lianxin://jiwei/app/gateway/retention".parse().expect("well formed");
        let ended = store.commit_many(vec![drop_buckets(&retention, may_go)]).await;
        let channels = store.channels(None, 2).expect("readable");
        for channel in channels {
            let first = store.read(&channel, Sequence(0), 1, usize::MAX).expect("readable").first_retained;
            self.log.pages().note_taken(first);
        }
        trace.fault(format_args!("retention ends the buckets before {may_go}: {}", ended.iter().all(Result::is_ok)));
    }
}

fn configuration(minted: &Minted, states: &Path) -> Config {
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
            pseudonym_key = {key:?}
        "#,
        lists = lists.join(", "),
        key = states.join("pseudonym.key").display().to_string(),
    );
    Config::parse(&text, &minted.folder().join("gateway.toml")).expect("a good configuration")
}
