//! A renewal: what a device may ask for, and what it may be given.

use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_trust::{CertificateError, Federation, RENEWAL_PART_BYTES_MAX, RenewalError, RenewalRequest, Usage};
use lianxin_types::IdempotencyId;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::world::{Authority, DAY, Leaf, NOW, World};

const DEVICE: &str = "lianxin://jiwei/app/a7f3/node-1";
const OTHER: &str = "lianxin://jiwei/app/a7f3/node-2";

/// A device of jiwei's with its MLS key, and the TLS key that it wants to have next.
struct Device {
    world: World,
    federation: Federation,
    mls: SigningKey,
    mls_certificate: Vec<u8>,
    tls: KeyPair,
}

fn pair(key: &SigningKey) -> KeyPair {
    let head = hex::decode("302e020100300506032b657004220420").expect("hexadecimal");
    let pkcs8 = [&head[..], key.as_bytes()].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&pkcs8[..]), &PKCS_ED25519).expect("a key")
}

fn certificate(authority: &Authority, uri: &str, usage: Usage, key: &KeyPair) -> Vec<u8> {
    Leaf::new(uri, usage).0.signed_by(key, &authority.issuer).expect("signed").der().to_vec()
}

fn certification_request(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).expect("signed").der().to_vec()
}

impl Device {
    fn new() -> Self {
        let world = World::new();
        let federation = world.federation(Vec::new()).expect("good authorities");
        let mls = SigningKey::from_bytes(&[7; 32]);
        let mls_certificate = certificate(&world.jiwei, DEVICE, Usage::Mls, &pair(&mls));
        Self { world, federation, mls, mls_certificate, tls: KeyPair::generate().expect("a key") }
    }

    fn request(&self) -> RenewalRequest {
        self.request_with(certification_request(&self.tls, |_| ()))
    }

    fn request_with(&self, tls_request: Vec<u8>) -> RenewalRequest {
        let sign = |bytes: &[u8]| self.mls.sign(bytes).to_bytes();
        RenewalRequest::signed(IdempotencyId([1; 16]), tls_request, self.mls_certificate.clone(), sign)
    }

    fn judged(&self, request: &RenewalRequest) -> Result<(), RenewalError> {
        request.check(&self.federation, NOW).map(|_| ())
    }

    /// What is said of these two certificates as the answer to a sound request.
    fn answered(&self, tls: &[u8], mls: &[u8]) -> Result<(), RenewalError> {
        let renewing = self.request().check(&self.federation, NOW).expect("sound");
        renewing.check(tls, mls, &self.federation, NOW).map(|ends| assert_eq!(ends, NOW.plus(DAY)))
    }

    fn next(&self, uri: &str, usage: Usage) -> Vec<u8> {
        match usage {
            Usage::Mls => certificate(&self.world.jiwei, uri, usage, &pair(&self.mls)),
            _ => certificate(&self.world.jiwei, uri, usage, &self.tls),
        }
    }
}

#[test]
fn a_sound_request_says_what_may_be_issued() {
    let device = Device::new();
    let renewing = device.request().check(&device.federation, NOW).expect("sound");
    assert_eq!(renewing.device.as_str(), DEVICE);
    assert_eq!(
        (&renewing.tls_key[..], renewing.mls_key),
        (device.tls.public_key_raw(), device.mls.verifying_key().to_bytes().to_vec())
    );
    // What a certification request wishes for counts for nothing: the issuer knows what belongs into a certificate.
    let wishes = certification_request(&device.tls, |params| params.subject_alt_names = vec![crate::uri(OTHER)]);
    let renewing = device.request_with(wishes).check(&device.federation, NOW).expect("sound");
    assert_eq!(renewing.device.as_str(), DEVICE);
}

#[test]
fn a_certification_request_is_whole_nameless_and_for_a_key_on_p256() {
    let device = Device::new();
    let good = certification_request(&device.tls, |_| ());
    let other_curve = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let named = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "张三");
    let malformed = [
        Vec::new(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        certification_request(&other_curve, |_| ()),
        certification_request(&pair(&device.mls), |_| ()),
        certification_request(&device.tls, named),
        [&good[..], &vec![0; RENEWAL_PART_BYTES_MAX]].concat(),
    ];
    for request in malformed {
        assert_eq!(device.judged(&device.request_with(request)), Err(RenewalError::Malformed));
    }
    assert_eq!(device.judged(&device.request_with(good)), Ok(()));
}

#[test]
fn who_does_not_hold_the_new_key_gets_no_certificate_for_it() {
    let device = Device::new();
    let mut request = certification_request(&device.tls, |_| ());
    let stranger = certification_request(&KeyPair::generate().expect("a key"), |_| ());
    // The stranger's key with the device's signature: the point is the last that stands before the attributes.
    let point = |request: &[u8], key: &[u8]| request.windows(key.len()).position(|window| window == key);
    let own = device.tls.public_key_raw();
    let at = point(&request, own).expect("it is in there");
    let start = stranger.windows(2).position(|window| window == [0x00, 0x04]).expect("a point") + 1;
    request[at..at + own.len()].copy_from_slice(&stranger[start..start + own.len()]);
    assert_eq!(device.judged(&device.request_with(request)), Err(RenewalError::NotTheKeysHolder));
}

#[test]
fn only_the_device_itself_asks_with_its_mls_key() {
    let device = Device::new();
    let stolen = |change: &dyn Fn(&mut RenewalRequest)| {
        let mut request = device.request();
        change(&mut request);
        device.judged(&request)
    };
    assert_eq!(stolen(&|request| request.signature[3] ^= 1), Err(RenewalError::NotTheDevice));
    assert_eq!(stolen(&|request| request.id.0[0] ^= 1), Err(RenewalError::NotTheDevice));
    let another = KeyPair::generate().expect("a key");
    let swapped = certification_request(&another, |_| ());
    assert_eq!(stolen(&|request| request.tls_request.clone_from(&swapped)), Err(RenewalError::NotTheDevice));
    let again = certificate(&device.world.jiwei, DEVICE, Usage::Mls, &pair(&SigningKey::from_bytes(&[8; 32])));
    assert_eq!(stolen(&|request| request.mls_certificate.clone_from(&again)), Err(RenewalError::NotTheDevice));
    let tls = device.next(DEVICE, Usage::TlsClient);
    let present = |error| Err(RenewalError::Present(error));
    assert_eq!(stolen(&|request| request.mls_certificate.clone_from(&tls)), present(CertificateError::WrongUsage));
    let late = device.request().check(&device.federation, NOW.plus(2 * DAY)).map(|_| ());
    assert_eq!(late, present(CertificateError::Expired));
    let list = device.world.jiwei.list(1, NOW.minus(DAY), &[&[0x41, 7]]);
    let federation = device.world.federation(vec![list]).expect("a good list");
    assert_eq!(device.request().check(&federation, NOW).map(|_| ()), present(CertificateError::Revoked));
}

#[test]
fn what_is_issued_is_the_devices_own_and_for_its_keys() {
    let device = Device::new();
    let (tls, mls) = (device.next(DEVICE, Usage::TlsClient), device.next(DEVICE, Usage::Mls));
    assert_eq!(device.answered(&tls, &mls), Ok(()));
    let other = |named: &str| Err(RenewalError::OtherDevice { named: named.parse().expect("well formed") });
    assert_eq!(device.answered(&device.next(OTHER, Usage::TlsClient), &mls), other(OTHER));
    assert_eq!(device.answered(&tls, &device.next(OTHER, Usage::Mls)), other(OTHER));
    let another = KeyPair::generate().expect("a key");
    let for_another = certificate(&device.world.jiwei, DEVICE, Usage::TlsClient, &another);
    assert_eq!(device.answered(&for_another, &mls), Err(RenewalError::OtherKey));
    let for_another = certificate(&device.world.jiwei, DEVICE, Usage::Mls, &pair(&SigningKey::from_bytes(&[8; 32])));
    assert_eq!(device.answered(&tls, &for_another), Err(RenewalError::OtherKey));
    let issued = |error| Err(RenewalError::Issued(error));
    assert_eq!(device.answered(&mls, &tls), issued(CertificateError::WrongUsage));
    let of_shenji = certificate(&device.world.shenji, DEVICE, Usage::TlsClient, &device.tls);
    let (named, issued_by) = ("jiwei".parse().expect("a name"), "shenji".parse().expect("a name"));
    assert_eq!(device.answered(&of_shenji, &mls), issued(CertificateError::OtherDepartment { named, issued_by }));
    let of_stranger = certificate(&device.world.stranger, DEVICE, Usage::Mls, &pair(&device.mls));
    assert_eq!(device.answered(&tls, &of_stranger), issued(CertificateError::UnknownAuthority));
}

#[test]
fn a_request_is_named_by_all_that_is_signed() {
    let device = Device::new();
    let request = device.request();
    let changed = |change: &dyn Fn(&mut RenewalRequest)| {
        let mut other = request.clone();
        change(&mut other);
        other.digest() != request.digest()
    };
    assert!(changed(&|request| request.id.0[0] ^= 1));
    assert!(changed(&|request| request.tls_request.push(0)));
    assert!(changed(&|request| request.mls_certificate.push(0)));
    // A byte that wanders from one field into the next is a change, too.
    assert!(changed(&|request| {
        let byte = request.tls_request.pop().expect("not empty");
        request.mls_certificate.insert(0, byte);
    }));
}
