//! One minted federation for the whole program.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_trust::Federation;
use lianxin_types::SystemClock;

/// The federation, and the folder that it lies in.
#[derive(Debug)]
pub struct Office {
    minted: Minted,
    federation: Mutex<Arc<Federation>>,
    folder: tempfile::TempDir,
}

/// The one federation of this program; minted at the first call.
///
/// # Panics
/// If the temporary folder cannot be written.
pub fn office() -> &'static Office {
    static OFFICE: OnceLock<Office> = OnceLock::new();
    OFFICE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock);
        let minted = minted.expect("a writable temporary folder is all that it takes");
        let federation = Mutex::new(Arc::new(minted.federation().expect("it was minted a moment ago")));
        Office { minted, federation, folder }
    })
}

impl Office {
    /// What was minted.
    pub fn minted(&self) -> &Minted {
        &self.minted
    }

    /// The federation as both ends see it now.
    pub fn federation(&self) -> Arc<Federation> {
        Arc::clone(&self.federation.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A federation with the same departments and zones in which nothing is as it is here: other authorities, lists and keys.
    /// It stands for what this one may become in time.
    ///
    /// # Panics
    /// If the temporary folder cannot be written.
    pub fn long_after(&self) -> &'static Arc<Federation> {
        static LATER: OnceLock<Arc<Federation>> = OnceLock::new();
        LATER.get_or_init(|| {
            let minted = mint(&FederationPlan::default(), &self.folder.path().join("long-after"), &SystemClock);
            let minted = minted.expect("a writable temporary folder is all that it takes");
            Arc::new(minted.federation().expect("it was minted a moment ago"))
        })
    }

    /// Both ends see what was minted since.
    ///
    /// # Panics
    /// If what was minted does not verify.
    pub fn reload(&self) {
        let federation = Arc::new(self.minted.federation().expect("it was minted a moment ago"));
        *self.federation.lock().unwrap_or_else(PoisonError::into_inner) = federation;
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
