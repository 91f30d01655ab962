//! What is kept of certificates, and which count.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_connection::NewTlsKey;
use lianxin_keystore::{Keystore, StateKey};
use lianxin_types::{Clock as _, Random, SystemClock, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::Config;

fn next_request() -> Next {
    let request = RenewalRequest {
        id: IdempotencyId([1; 16]),
        tls_request: vec![2],
        mls_certificate: vec![3, 3],
        signature: [4; 64],
    };
    Next { request, tls_key: vec![5].into() }
}

#[test]
fn golden_and_back() {
    let present = Present { tls_certificate: vec![1], tls_key: vec![2, 2].into(), mls_certificate: vec![3] };
    let bytes = present.to_bytes();
    assert_eq!(bytes[..], [1, 0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 2, 0, 0, 0, 1, 3]);
    assert!(Present::from_bytes(&bytes).is_ok_and(|read| read == present));
    let bytes = next_request().to_bytes();
    let begin = [&[1][..], &[1; 16], &[0, 0, 0, 1, 5, 0, 0, 0, 1, 2, 0, 0, 0, 2, 3, 3], &[4; 64]].concat();
    assert_eq!(bytes[..], begin);
    assert!(Next::from_bytes(&bytes).is_ok_and(|read| read == next_request()));
    for cut in 0..bytes.len() {
        assert!(Next::from_bytes(&bytes[..cut]).is_err());
    }
    assert!(matches!(Present::from_bytes(&[2]), Err(DecodeError::UnknownVersion { version: 2 })));
}

/// A device's state, and a configuration whose certificates begin now; `renewed` of the same device begin when it says.
struct World {
    minted: Minted,
    keystore: Keystore,
    config: Config,
    _folder: tempfile::TempDir,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("mints");
        let state = folder.path().join("state");
        let config = Config::from_certs_dev(minted.folder(), "jiwei", "app-1", &state).expect("a configuration");
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let keystore = Keystore::open(&state, &StateKey::generate(&*random), random).expect("opens");
        Self { minted, keystore, config, _folder: folder }
    }

    /// Configures certificates of `begins`.
    fn configure(&self, begins: Timestamp) {
        self.minted.at(begins).renew_app("jiwei", "app-1").expect("issued");
    }

    /// Keeps certificates of `begins` as renewed ones, for an application, for the MLS key of the first.
    async fn renew(&self, begins: Timestamp, app: &str) {
        let [first, device] = ["app-1", app].map(|app| self.minted.app("jiwei", app).expect("minted"));
        let minted = self.minted.at(begins);
        let new = NewTlsKey::generate().expect("a key");
        let key = minted_key(&new);
        let mls_key = self.key(&pem(&first.mls_certificate));
        let certify = |usage, key: &[u8]| minted.certify("jiwei", &device.uri, usage, key).expect("issued");
        let present = Present {
            tls_certificate: certify(Usage::TlsClient, &key),
            tls_key: new.key,
            mls_certificate: certify(Usage::Mls, &mls_key),
        };
        self.keystore.transaction(move |tx| put_present(tx, &present)).await.expect("kept");
    }

    fn key(&self, mls_certificate: &[u8]) -> Vec<u8> {
        key_of(&self.minted.federation().expect("verifies"), mls_certificate, SystemClock.now()).expect("known")
    }

    /// Whether the renewed ones count, at `now`.
    async fn renewed_count(&self, now: Timestamp) -> bool {
        let federation = self.minted.federation().expect("verifies");
        let device = self.config.device.clone().expect("certs-dev names it");
        let mut loaded = self.config.load().expect("good files");
        let before = loaded.tls.certificate().to_vec();
        let after = self.keystore.transaction(move |tx| {
            at_start(tx, &mut loaded, &federation, &device, now)?;
            Ok::<_, ClientError>(loaded.tls.certificate().to_vec())
        });
        before != after.await.expect("readable")
    }
}

/// The point of a new key, out of its certification request.
fn minted_key(new: &NewTlsKey) -> Vec<u8> {
    let at = new.request.windows(3).position(|bytes| bytes == [0x42, 0, 4]).expect("a point") + 2;
    new.request[at..at + 65].to_vec()
}

fn pem(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
}

#[tokio::test]
async fn the_later_ones_count_and_only_while_they_are_good_and_the_devices() {
    let (world, now) = (World::new(), SystemClock.now());
    assert!(!world.renewed_count(now).await, "there are none");
    world.configure(now.minus(10 * DAY));
    world.renew(now, "app-1").await;
    assert!(world.renewed_count(now).await);
    world.configure(now.plus(Duration::from_secs(30)));
    assert!(!world.renewed_count(now).await, "the operator's are newer");
    world.configure(now.minus(10 * DAY));
    assert!(!world.renewed_count(now.plus(31 * DAY)).await, "over");
    world.configure(now.minus(31 * DAY));
    world.renew(now.minus(29 * DAY), "app-1").await;
    assert!(world.renewed_count(now).await, "the configured ones are over, and these have a day left");
    world.renew(now, "app-2").await;
    assert!(!world.renewed_count(now).await, "another device's");
}

#[tokio::test]
async fn whoever_configures_another_mls_key_has_begun_anew() {
    let (world, now) = (World::new(), SystemClock.now());
    world.configure(now.minus(10 * DAY));
    world.renew(now, "app-1").await;
    assert!(world.renewed_count(now).await);
    let (certificate, key) = world.minted.mint_mls_again("jiwei", "app-1").expect("minted");
    let config = Config { mls_certificate: certificate, mls_key: key, ..world.config.clone() };
    assert!(!World { config, ..world }.renewed_count(now).await);
}

#[tokio::test]
async fn a_request_in_flight_is_found_again_as_long_as_it_is_for_this_certificate() {
    let world = World::new();
    let found = world.keystore.transaction(|tx| {
        put_next(tx, &next_request())?;
        let found = (next(tx, &[3, 3])?, next(tx, &[3])?);
        drop_next(tx)?;
        Ok::<_, ClientError>((found, next(tx, &[3, 3])?))
    });
    let ((same, other), dropped) = found.await.expect("kept");
    assert!(same.is_some_and(|same| same == next_request()) && other.is_none() && dropped.is_none());
}

#[tokio::test]
async fn tellings_are_counted_for_each_certificate() {
    let world = World::new();
    let counted = world.keystore.transaction(|tx| {
        put_told(tx, b"one", 2)?;
        Ok::<_, ClientError>((told(tx, b"one")?, told(tx, b"two")?))
    });
    assert_eq!(counted.await.expect("kept"), (2, 0));
}
