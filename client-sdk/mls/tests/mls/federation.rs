//! One minted federation for all stories.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lianxin_certs_dev::{FederationPlan, Minted, Specimen, mint, read_signing_key};
use lianxin_mls::MlsIdentity;
use lianxin_trust::{Federation, Past, TrustBundle, sign_bundle, verify_bundle};
use lianxin_types::{DeviceUri, SystemClock, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

pub(crate) struct Office {
    minted: Minted,
    pub(crate) federation: Arc<Federation>,
    revoking: Mutex<()>,
    _folder: tempfile::TempDir,
}

pub(crate) fn office() -> &'static Office {
    static OFFICE: OnceLock<Office> = OnceLock::new();
    OFFICE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("minted");
        let federation = Arc::new(minted.federation().expect("a federation"));
        Office { minted, federation, revoking: Mutex::new(()), _folder: folder }
    })
}

impl Office {
    pub(crate) fn app(&self, department: &str, name: &str) -> (DeviceUri, MlsIdentity) {
        let app = self.minted.app(department, name).expect("minted");
        (app.uri, identity(&app.mls_certificate, &app.mls_key))
    }

    /// The federation once an application of weijian, made for this under `name`, has been revoked at `moment`, and that
    /// application.
    pub(crate) fn revoked_at(&self, name: &str, moment: Timestamp) -> (DeviceUri, MlsIdentity, Arc<Federation>) {
        // Stories run side by side, and the list is written anew with each.
        let _turn = self.revoking.lock().unwrap_or_else(PoisonError::into_inner);
        let app = self.minted.mint_app("weijian", name).expect("minted");
        let later = self.minted.at(moment);
        later.revoke_app("weijian", name).expect("revoked");
        let federation = later.federation().expect("a federation");
        (app.uri, identity(&app.mls_certificate, &app.mls_key), Arc::new(federation))
    }

    /// An application of weijian, made for this under `name`, with certificates counted from `moment`.
    pub(crate) fn issued_at(&self, name: &str, moment: Timestamp) -> (DeviceUri, MlsIdentity) {
        let app = self.minted.at(moment).mint_app("weijian", name).expect("minted");
        (app.uri, identity(&app.mls_certificate, &app.mls_key))
    }

    /// The federation under the next bundle, with `change` made to it.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut TrustBundle)) -> Arc<Federation> {
        let mut bundle = self.federation.bundle().bundle.clone();
        (bundle.version, bundle.predecessor) = (bundle.version + 1, Some(self.federation.bundle().digest));
        change(&mut bundle);
        let keys = [1, 2].map(|number| read_signing_key(&self.minted.root_key_file(number)).expect("minted"));
        let note = sign_bundle(&bundle, &[("root-1", &keys[0]), ("root-2", &keys[1])]);
        let bundle = verify_bundle(&self.minted.roots().expect("minted"), &note).expect("signed");
        let signed = |list: &&[u8]| Federation::new(bundle.clone(), vec![list.to_vec()]).is_ok();
        let lists = self.federation.revocation_lists().filter(signed).map(<[u8]>::to_vec).collect();
        Arc::new(Federation::new(bundle.clone(), lists).expect("a federation"))
    }

    /// What the federation becomes by `changes`, one bundle after the other, the first signed at `from` and each next one a minute
    /// later, at a device that has gone through all of them.
    pub(crate) fn went_on(&self, from: Timestamp, changes: &[fn(&mut TrustBundle)]) -> Arc<Federation> {
        let (mut before, mut past) = (self.federation.bundle().bundle.clone(), Past::default());
        for (number, change) in changes.iter().enumerate() {
            let mut bundle = before.clone();
            change(&mut bundle);
            bundle.issued = from.plus(Duration::from_secs(60 * number as u64));
            past = past.moved_on(&before, &bundle);
            before = bundle;
        }
        let newest = before;
        let federation = self.changed(move |bundle| {
            (bundle.issued, bundle.departments, bundle.zones) = (newest.issued, newest.departments, newest.zones);
        });
        with_past(&federation, past)
    }

    /// An application of weijian, made for this, and the same with a renewed certificate.
    pub(crate) fn renewed(&self) -> (DeviceUri, MlsIdentity, MlsIdentity) {
        let app = self.minted.mint_app("weijian", "to-be-renewed").expect("minted");
        let before = identity(&app.mls_certificate, &app.mls_key);
        self.minted.renew_app("weijian", "to-be-renewed").expect("renewed");
        (app.uri, before, identity(&app.mls_certificate, &app.mls_key))
    }

    /// An application of weijian, made for this under `name`, and the same set up anew, with another key.
    pub(crate) fn set_up_anew(&self, name: &str) -> (DeviceUri, MlsIdentity, MlsIdentity) {
        let app = self.minted.mint_app("weijian", name).expect("minted");
        let (certificate, key) = self.minted.mint_mls_again("weijian", name).expect("minted");
        (app.uri, identity(&app.mls_certificate, &app.mls_key), identity(&certificate, &key))
    }

    pub(crate) fn removal_key(&self) -> ed25519_dalek::SigningKey {
        read_signing_key(&self.minted.gateway().removal_key).expect("a key")
    }

    pub(crate) fn specimen(&self, specimen: Specimen) -> MlsIdentity {
        let paths = self.minted.specimen(specimen);
        identity(&paths.mls_certificate, &paths.mls_key)
    }
}

fn identity(certificate: &Path, key: &Path) -> MlsIdentity {
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let key = read_signing_key(key).expect("a key").to_bytes();
    MlsIdentity { chain: vec![certificate.to_vec()], key: key.into() }
}

/// The same federation at a device that remembers `past`.
pub(crate) fn with_past(federation: &Federation, past: Past) -> Arc<Federation> {
    let lists = federation.revocation_lists().map(<[u8]>::to_vec).collect();
    let made = Federation::new(federation.bundle().clone(), lists).and_then(|made| made.with_past(past));
    Arc::new(made.expect("a federation"))
}
