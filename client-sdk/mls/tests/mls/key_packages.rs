//! Key packages that are not as the profile demands.

use lianxin_profile::{CIPHERSUITE, CheckedKeyPackage, ProfileError, capabilities, check_key_package, x509_credential};
use lianxin_types::{Clock as _, SystemClock, Timestamp};
use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, CredentialWithKey, Extension, ExtensionType, Extensions, KeyPackage,
    KeyPackageBuilder, Lifetime, MlsMessageOut, UnknownExtension,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};

use crate::device::Device;
use crate::federation::office;
use crate::rules::Signer;

const DAY: u64 = 24 * 3600;

fn now() -> u64 {
    SystemClock.now().seconds()
}

pub(crate) fn base() -> KeyPackageBuilder {
    let lifetime = Lifetime::init(now() - 60, now() + DAY);
    KeyPackage::builder().leaf_node_capabilities(capabilities()).key_package_lifetime(lifetime)
}

pub(crate) fn build(builder: KeyPackageBuilder, suite: Ciphersuite) -> Vec<u8> {
    let (_, identity) = office().app("shenji", "app-1");
    let signer = Signer::of(&identity);
    let credential = x509_credential(&identity.chain).expect("one certificate");
    let credential = CredentialWithKey { credential, signature_key: signer.public_key().into() };
    let bundle = builder.build(suite, &OpenMlsRustCrypto::default(), &signer, credential).expect("openmls makes it");
    MlsMessageOut::from(bundle.into_key_package()).to_bytes().expect("bytes")
}

fn check_at(bytes: &[u8], at: Timestamp) -> Result<CheckedKeyPackage, ProfileError> {
    check_key_package(&office().federation, &RustCrypto::default(), bytes, at)
}

fn check(builder: KeyPackageBuilder) -> Result<(), ProfileError> {
    check_at(&build(builder, CIPHERSUITE), SystemClock.now()).map(|_| ())
}

fn refused(fault: &'static str) -> Result<(), ProfileError> {
    Err(ProfileError::InvalidKeyPackage { fault })
}

#[test]
fn lifetimes_are_of_84_days_at_most() {
    let lasting = |seconds: u64| base().key_package_lifetime(Lifetime::init(now() - 60, now() - 60 + seconds));
    assert_eq!(check(lasting(84 * DAY)), Ok(()));
    assert_eq!(check(lasting(84 * DAY + 1)), refused("its lifetime is not within 84 days"));
    let bytes = build(lasting(DAY), CIPHERSUITE);
    let later = Timestamp::from_seconds(now() + 2 * DAY);
    assert_eq!(check_at(&bytes, later).map(|_| ()), refused("its lifetime does not hold this time"));
    let earlier = Timestamp::from_seconds(now() - 3600);
    assert_eq!(check_at(&bytes, earlier).map(|_| ()), refused("its lifetime does not hold this time"));
}

#[test]
fn leaves_have_our_capabilities_and_no_extensions() {
    let with = |suites: &[Ciphersuite], extensions: &[ExtensionType]| {
        let credentials = [CredentialType::X509, CredentialType::Basic];
        let capabilities = Capabilities::new(None, Some(suites), Some(extensions), Some(&[]), Some(&credentials));
        check(base().leaf_node_capabilities(capabilities))
    };
    let (ours, context) = (&[CIPHERSUITE][..], &[ExtensionType::Unknown(0xF0A1)][..]);
    assert_eq!(with(ours, context), Ok(()));
    assert_eq!(with(ours, &[]), refused("leaf does not list the channel context"));
    let other = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    assert_eq!(with(&[other], context), refused("leaf does not list the suite"));

    let mine = || Extension::Unknown(0xF0A1, UnknownExtension(vec![1]));
    let leaf = Extensions::from_vec(vec![mine()]).expect("allowed in a leaf");
    assert_eq!(check(base().leaf_node_extensions(leaf)), refused("its leaf has an extension"));
    let package = Extensions::from_vec(vec![mine()]).expect("allowed in a key package");
    let fault = "it has an extension other than last resort";
    assert_eq!(check(base().key_package_extensions(package)), refused(fault));
}

#[test]
fn another_suite_is_refused() {
    let other = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    let found = check_at(&build(base(), other), SystemClock.now()).map(|_| ());
    assert_eq!(found, refused("another suite"));
}

#[test]
fn ours_end_with_the_certificate_and_differ() {
    let shenji = Device::app("shenji", "app-1");
    let made = shenji.run(|mls, tx, federation| mls.key_packages(tx, federation, 3, true)).expect("key packages");
    assert_eq!(made.one_time.len(), 3);
    let mut references = Vec::new();
    for bytes in made.one_time.iter().chain(&made.last_resort) {
        let checked = check_at(bytes, SystemClock.now()).expect("ours");
        let lifetime = checked.key_package.life_time();
        assert!(lifetime.not_after() <= checked.identity.not_after.seconds());
        assert!(lifetime.not_after() - lifetime.not_before() <= 84 * DAY);
        assert_eq!(checked.not_after, Timestamp::from_seconds(lifetime.not_after()));
        assert_eq!(checked.is_last_resort, made.last_resort.as_ref() == Some(bytes));
        references.push(checked.reference);
    }
    references.sort_unstable();
    references.dedup();
    assert_eq!(references.len(), 4);
}
