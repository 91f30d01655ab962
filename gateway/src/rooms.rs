//! The rooms over one zone, put together: the same for a gateway that listens and for one that a simulation drives.

use std::sync::Arc;
use std::time::Duration;

use lianxin_audit::{PseudonymKey, Pseudonyms};
use lianxin_delivery::Fanout;
use lianxin_identity::Callers;
use lianxin_operations::{Operations, Parts, RemovalKey};
use lianxin_rpc::{Face, Patience};
use lianxin_store::ZoneStore;
use lianxin_trust::{Federation, VerifiedBundle};
use lianxin_types::{Clock, Digest, Random};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::config::Config;
use crate::error::ServeError;
use crate::reload::PSEUDONYM_KEY;
use crate::strength::Strength;
use crate::trust::{Contents, Trust};

/// What the configuration's files hold, verified.
pub(crate) struct Secrets {
    pub(crate) removal_key: RemovalKey,
    pub(crate) pseudonyms: Pseudonyms,
}

impl Secrets {
    /// Loads the zone's removal key, and the pseudonym key, which is made if it is not there.
    ///
    /// # Errors
    /// [`ServeError::File`], [`ServeError::Trust`].
    pub(crate) fn load(
        config: &Config,
        trust: &Trust,
        contents: &mut Contents,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, ServeError> {
        let removal_key = crate::removal_key::load(config, &trust.federation, clock.now())?;
        let key = crate::secret::load_or_create(&config.pseudonym_key, random)
            .map_err(|source| ServeError::File { path: config.pseudonym_key.clone(), source })?;
        contents.insert(PSEUDONYM_KEY, Digest::sha256(&key));
        Ok(Self { removal_key, pseudonyms: Pseudonyms::new(PseudonymKey::new(key)) })
    }
}

/// Operations on one zone, with the tasks that they need.
pub(crate) struct Rooms {
    pub(crate) operations: Operations,
    pub(crate) callers: Arc<Callers>,
    /// Ends them when dropped.
    pub(crate) tasks: JoinSet<()>,
}

impl Rooms {
    /// Puts them together and starts their tasks; records the start, or sees to it that it is recorded before anybody is served.
    ///
    /// # Errors
    /// [`ServeError::Audit`] if the zone takes records and not this one.
    pub(crate) async fn open(
        config: &Config,
        (federation, predecessors): (Federation, Vec<VerifiedBundle>),
        secrets: Secrets,
        store: Arc<dyn ZoneStore>,
        (clock, random): (Arc<dyn Clock>, Arc<dyn Random>),
    ) -> Result<Self, ServeError> {
        let callers = Arc::new(Callers::new(federation, predecessors, Arc::clone(&clock)));
        let fanout = Fanout::new();
        let operations = Operations::new(Parts {
            store: Arc::clone(&store),
            callers: Arc::clone(&callers),
            pseudonyms: secrets.pseudonyms,
            removal_key: secrets.removal_key,
            clock: Arc::clone(&clock),
            random,
            fanout: Arc::clone(&fanout),
            queue_units_max: config.strength.queue_units_max,
            queue_bytes_max: config.strength.queue_bytes_max,
        });
        let mut tasks = JoinSet::new();
        if crate::store::takes_records(&*store) {
            let started = operations.started(VERSION, config.digest).await;
            started.map_err(|fault| ServeError::Audit { fault: fault.to_string() })?;
        } else {
            tasks.spawn(start_later(operations.clone(), Arc::clone(&store), Arc::clone(&clock), config.digest));
        }
        tasks.spawn(fanout.run(store, clock));
        tasks.spawn(operations.clone().record_counts());
        tasks.spawn(operations.clone().sweep_removals());
        Ok(Self { operations, callers, tasks })
    }
}

/// How patient the face is with slow clients.
pub(crate) fn patience(strength: &Strength) -> Patience {
    let Strength { stall_duration_max, message_duration_max, .. } = *strength;
    Patience { stall_duration_max, message_duration_max }
}

/// The contract's services. Streams end once `stopping` turns true.
pub(crate) fn services(operations: Operations, patience: Patience, stopping: watch::Receiver<bool>) -> Routes {
    let face = Face::new(operations, patience, stopping);
    Routes::new(face.channels())
        .add_service(face.messages())
        .add_service(face.key_packages())
        .add_service(face.certificates())
        .add_service(face.directory())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Records the start of a gateway whose zone took no records when it started: quarantined, or on a full disk. Until then it
/// serves nobody, since no call goes without its record.
async fn start_later(operations: Operations, store: Arc<dyn ZoneStore>, clock: Arc<dyn Clock>, configuration: Digest) {
    tracing::error!("the zone takes no records: alive and not ready until it does");
    loop {
        clock.sleep(Duration::from_millis(500)).await;
        if crate::store::takes_records(&*store) && operations.started(VERSION, configuration).await.is_ok() {
            tracing::info!("the zone takes records: started");
            return;
        }
    }
}
