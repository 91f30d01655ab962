//! Another configuration and other trust files for a running gateway: all of it or nothing, and on record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lianxin_operations::{Operations, RemovalKey, TrustInForce};
use lianxin_transport::ServerTls;
use lianxin_trust::{BundleError, SuccessionError, VerifiedBundle};
use lianxin_types::{Clock, Digest};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Change, Config, ConfigError};
use crate::error::ServeError;
use crate::telemetry::LogFilter;
use crate::trust::{Contents, Files, InForce, Kept, Trust};

/// Why a reload changed nothing.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The configuration cannot be used.
    #[error("read the configuration again")]
    Config(#[from] ConfigError),
    /// Keys have another value, or their files another content, and need a restart.
    #[error("change {} without a restart", keys.join(", "))]
    NeedsRestart {
        /// All of them, in the order of the sample.
        keys: Vec<&'static str>,
    },
    /// A file cannot be read, does not verify, or is older than what is in force.
    #[error("use the files of the configuration")]
    Files(#[from] ServeError),
    /// The reload cannot be recorded.
    #[error("record the reload in the audit log: {fault}")]
    Audit {
        /// Why.
        fault: String,
    },
    /// The gateway does not serve, or not any more.
    #[error("reload a gateway that does not serve")]
    Stopped,
}

impl ReloadError {
    /// The word for it in the audit record.
    fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) => "configuration",
            Self::NeedsRestart { .. } => "needs-restart",
            Self::Files(ServeError::Succession { source, .. }) => match source {
                SuccessionError::Bundle(BundleError::Older { .. }) => "bundle-older",
                SuccessionError::Bundle(BundleError::Fork { .. }) => "bundle-fork",
                SuccessionError::Bundle(_) => "bundle-chain-broken",
                SuccessionError::OlderRevocationList { .. } => "revocation-list-older",
                SuccessionError::MissingRevocationList { .. } => "revocation-list-missing",
            },
            Self::Files(_) => "files",
            Self::Audit { .. } => "audit",
            Self::Stopped => "stopped",
        }
    }
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys with another value, or whose files have another content, in the order of the sample.
    pub changed: Vec<&'static str>,
    /// Version of the trust bundle in force.
    pub bundle_version: u64,
}

/// Asks a serving gateway to read its configuration and files again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    requests: mpsc::Sender<Answer>,
}

type Answer = oneshot::Sender<Result<Reloaded, ReloadError>>;

impl ReloadHandle {
    /// Reads everything again and takes it over, or changes nothing.
    ///
    /// # Errors
    /// [`ReloadError`]; what was in force stays in force.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| ReloadError::Stopped)?;
        answered.await.map_err(|_| ReloadError::Stopped)?
    }
}

/// Owns what is in force; one task.
pub(crate) struct Reloader {
    requests: mpsc::Receiver<Answer>,
    config: Config,
    contents: Contents,
    predecessors: Vec<VerifiedBundle>,
    kept: Kept,
    parts: ReloadParts,
    pub(crate) log: Option<LogFilter>,
    /// What was refused last, so that re-reading does not record the same refusal every minute.
    refused: Option<String>,
}

/// Where a reload takes effect.
pub(crate) struct ReloadParts {
    pub(crate) operations: Operations,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) drain: watch::Sender<Duration>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What was read again and verified; nothing of it is in force yet.
struct Candidate {
    config: Config,
    contents: Contents,
    trust: Trust,
    removal_key: RemovalKey,
    changed: Vec<&'static str>,
}

/// Requests that wait; an operator who sends more signals waits with them.
const REQUESTS_MAX: usize = 4;

impl Reloader {
    pub(crate) fn new(
        config: Config,
        contents: Contents,
        predecessors: Vec<VerifiedBundle>,
        kept: Kept,
        parts: ReloadParts,
    ) -> (Self, ReloadHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let reloader = Self { requests, config, contents, predecessors, kept, parts, log: None, refused: None };
        (reloader, ReloadHandle { requests: sender })
    }

    /// Answers requests, and reads bundle and revocation lists again in the configured interval, until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let interval = Duration::from_secs(self.config.reread_seconds);
            let reread_at = self.parts.clock.monotonic().plus(interval);
            tokio::select! {
                // Without a handle nobody asks any more, and the re-reading goes on.
                Some(answer) = self.requests.recv() => {
                    let done = self.reload().await;
                    // Who asked may have gone.
                    drop(answer.send(done));
                }
                () = self.parts.clock.sleep_until(reread_at) => self.reread().await,
            }
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let candidate = match Config::read(&self.config.path) {
            Ok(config) => self.candidate(config).await,
            Err(error) => Err(error.into()),
        };
        let done = match candidate {
            Ok(candidate) => self.take_over(candidate).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(reloaded) => Ok(reloaded),
            Err(error) => Err(self.refuse(error).await),
        }
    }

    /// As [`Reloader::reload`] with the configuration that is in force, and only if a trust file has other bytes.
    async fn reread(&mut self) {
        self.keep_what_was_not();
        let candidate = self.candidate(self.config.clone()).await;
        self.parts.operations.trust_reread();
        let done = match candidate {
            Ok(candidate) if !candidate.changed.iter().any(|key| key.starts_with("trust.")) => return,
            Ok(candidate) => self.take_over(candidate).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let Err(error) = done else { return };
        let told = Some(told(&error));
        if told != self.refused {
            self.refuse(error).await;
            self.refused = told;
        }
    }

    /// Keeps what a start on a full disk could not.
    fn keep_what_was_not(&mut self) {
        if self.kept == Kept::Yes {
            return;
        }
        match crate::trust::keep(&self.config, &self.parts.operations.federation(), &self.predecessors) {
            Ok(()) => {
                self.kept = Kept::Yes;
                tracing::info!("the trust in force is kept");
            }
            Err(error) => tracing::warn!(error = %told(&error), "the trust in force is not kept yet"),
        }
    }

    async fn candidate(&self, config: Config) -> Result<Candidate, ReloadError> {
        let current = self.config.clone();
        let contents = self.contents.clone();
        let federation = self.parts.operations.federation();
        let predecessors = self.predecessors.clone();
        let clock = Arc::clone(&self.parts.clock);
        let work = move || {
            let in_force = InForce { federation: &federation, predecessors: &predecessors };
            candidate(&current, &contents, config, in_force, &*clock)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(fault) => {
                tracing::error!(panicked = fault.is_panic(), "reading the configuration again failed");
                Err(ReloadError::Stopped)
            }
        }
    }

    async fn take_over(&mut self, candidate: Candidate) -> Result<Reloaded, ReloadError> {
        let Candidate { config, contents, trust, removal_key, changed } = candidate;
        let is_changed = |start: &str| changed.iter().any(|key| key.starts_with(start));
        // What a restart would refuse is kept first: a bundle that was in force for a moment was in force.
        if is_changed("trust.") {
            crate::trust::keep(&config, &trust.federation, &trust.predecessors)?;
            self.kept = Kept::Yes;
        }
        let in_force = TrustInForce::of(&trust.federation);
        let before = self.config.digest;
        let recorded = self.parts.operations.reloaded(before, config.digest, in_force, changed.clone()).await;
        recorded.map_err(|fault| ReloadError::Audit { fault: fault.to_string() })?;

        // From here on nothing can fail.
        let Trust { federation, predecessors, identity } = trust;
        let bundle_version = in_force.bundle_version;
        if is_changed("tls.") {
            self.parts.tls.replace_identity(identity);
        }
        // Before the federation that names it: whoever is told of that looks for members that must go.
        self.parts.operations.replace_removal_key(removal_key);
        if is_changed("trust.") {
            self.parts.operations.replace_federation(federation, predecessors.clone()).await;
        }
        self.parts.drain.send_replace(Duration::from_secs(config.drain_seconds_max));
        if let Some(log) = &self.log
            && let Err(error) = log.set(&config)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the log keeps its filter");
        }
        (self.config, self.contents, self.predecessors, self.refused) = (config, contents, predecessors, None);
        tracing::info!(changed = changed.join(" "), bundle_version, "configuration reloaded");
        Ok(Reloaded { changed, bundle_version })
    }

    async fn refuse(&self, error: ReloadError) -> ReloadError {
        tracing::error!(reason = error.reason(), error = &error as &dyn std::error::Error, "reload refused");
        let keys = if let ReloadError::NeedsRestart { keys } = &error { keys.clone() } else { Vec::new() };
        self.parts.operations.reload_refused(error.reason(), keys).await;
        error
    }
}

/// Reads and verifies everything that `config` names, against what is in force.
fn candidate(
    current: &Config,
    contents: &Contents,
    config: Config,
    in_force: InForce<'_>,
    clock: &dyn Clock,
) -> Result<Candidate, ReloadError> {
    let mut keys = current.changed(&config);
    let values: Vec<_> = keys.iter().map(|key| key.name).collect();
    // A store elsewhere, say, may have no files there: values are judged before anything is read.
    let restart = |keys: &[crate::config::Key]| {
        let keys: Vec<_> = keys.iter().filter(|key| key.change == Change::Restart).map(|key| key.name).collect();
        if keys.is_empty() { Ok(()) } else { Err(ReloadError::NeedsRestart { keys }) }
    };
    restart(&keys)?;
    let files = Files::read(&config)?;
    let mut fresh = files.contents();
    fresh.insert(PSEUDONYM_KEY, pseudonym_content(&config.pseudonym_key)?);
    let is_changed = |name: &&str| values.contains(name) || fresh.get(name) != contents.get(name);
    keys = config.keys().into_iter().filter(|key| is_changed(&key.name)).collect();
    restart(&keys)?;
    let trust = files.verify(&config, Some(in_force), clock)?;
    let removal_key = crate::removal_key::load(&config, &trust.federation, clock.now())?;
    Ok(Candidate { config, contents: fresh, trust, removal_key, changed: keys.iter().map(|key| key.name).collect() })
}

/// The key of the configuration whose file is a secret.
pub(crate) const PSEUDONYM_KEY: &str = "audit.pseudonym_key";

fn pseudonym_content(path: &Path) -> Result<Digest, ServeError> {
    let key = crate::secret::load(path).map_err(|source| ServeError::File { path: path.to_owned(), source })?;
    Ok(Digest::sha256(&key))
}

/// An error with its causes, on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
