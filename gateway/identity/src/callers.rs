//! The federation in use, and callers read from certificates by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use lianxin_trust::{CertificateError, Federation, VerifiedBundle};
use lianxin_types::{Clock, DeviceUri, Timestamp};
use tokio::sync::watch;

use crate::vigil::Vigil;

/// Somebody whose certificate has been verified.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub uri: DeviceUri,
    /// When the certificate ends. What is open ends with it; the tolerated skew is for who comes.
    pub(crate) ends: Timestamp,
    /// The generation of the federation that said so.
    pub(crate) generation: u64,
    chain: Arc<Vec<Vec<u8>>>,
}

/// Names callers. Shared by the listener, which asks during the handshake, and the guard, which asks for every call.
pub struct Callers {
    trust: RwLock<TrustInUse>,
    generation: AtomicU64,
    replaced: watch::Sender<()>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A federation and the bundles that led to it, ascending; not all back to the first.
type TrustInUse = (Arc<Federation>, Arc<[VerifiedBundle]>);

impl Callers {
    /// Callers by this federation, to whose bundle `predecessors` led, ascending.
    pub fn new(federation: Federation, predecessors: Vec<VerifiedBundle>, clock: Arc<dyn Clock>) -> Self {
        Self {
            trust: RwLock::new((Arc::new(federation), predecessors.into())),
            generation: AtomicU64::new(1),
            replaced: watch::Sender::new(()),
            clock,
        }
    }

    /// The federation in use.
    pub fn federation(&self) -> Arc<Federation> {
        self.trust().0
    }

    /// The federation in use, and the bundles that led to its bundle, ascending: both of the same moment.
    pub fn trust(&self) -> (Arc<Federation>, Arc<[VerifiedBundle]>) {
        let (federation, predecessors) = &*self.trust.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(federation), Arc::clone(predecessors))
    }

    /// Uses another federation from now on; every lease and every cached answer ends, and every [`Vigil`] judges again.
    /// `predecessors` as in [`Callers::new`].
    pub fn replace(&self, federation: Federation, predecessors: Vec<VerifiedBundle>) {
        let trust = (Arc::new(federation), predecessors.into());
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.replaced.send_replace(());
    }

    /// Tells of every [`Callers::replace`] from now on.
    pub fn replacements(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// Rises with every [`Callers::replace`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The holder of a client certificate chain, leaf first, DER.
    ///
    /// # Errors
    /// [`CertificateError`] if the chain does not verify now, even if it did when the connection opened.
    pub fn identify(&self, chain: &Arc<Vec<Vec<u8>>>) -> Result<Caller, CertificateError> {
        let slices: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        // Read first: a federation that comes in between is judged by once more, never once too little.
        let generation = self.generation();
        let identity = self.federation().identify_caller(&slices, self.clock.now())?;
        Ok(Caller { uri: identity.uri, ends: identity.not_after, generation, chain: Arc::clone(chain) })
    }

    /// Whether a caller of before still is one: by time at every call, by the federation whenever it has been replaced
    /// since `seen`, which is moved on.
    ///
    /// # Errors
    /// [`CertificateError`] if the chain does not verify any more.
    pub fn check(&self, caller: &Caller, seen: &mut u64) -> Result<(), CertificateError> {
        if self.clock.now() >= caller.ends {
            return Err(CertificateError::Expired);
        }
        let generation = self.generation();
        if *seen != generation {
            self.identify(&caller.chain)?;
            *seen = generation;
        }
        Ok(())
    }

    /// Watches over a caller for as long as it has a stream open.
    pub fn watch_over(self: &Arc<Self>, caller: &Caller) -> Vigil {
        Vigil::new(Arc::clone(self), caller.clone(), self.replaced.subscribe())
    }
}
