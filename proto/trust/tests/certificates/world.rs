//! Two departments of a federation, a stranger, and certificates made to measure.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use lianxin_trust::{
    Department, Federation, FederationError, RootKey, RootKeys, TrustBundle, Usage, VerifiedBundle, sign_bundle,
    verify_bundle,
};
use lianxin_types::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use time::OffsetDateTime;

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(crate) const SKEW: Duration = Duration::from_secs(60);

pub(crate) fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.seconds() as i64).expect("a date of our time")
}

/// An authority that signs whatever a test wants.
pub(crate) struct Authority {
    pub(crate) der: Vec<u8>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("signed").der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, leaf: Leaf) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        leaf.0.signed_by(&key, &self.issuer).expect("signed").der().to_vec()
    }

    pub(crate) fn list(&self, number: u64, from: Timestamp, serials: &[&[u8]]) -> Vec<u8> {
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date(from),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date(from),
            next_update: date(from.plus(7 * DAY)),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("signed").der().to_vec()
    }
}

/// A certificate to be issued; starts as a good one of an application.
pub(crate) struct Leaf(pub(crate) CertificateParams);

impl Leaf {
    pub(crate) fn new(uri: &str, usage: Usage) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![self::uri(uri)];
        params.extended_key_usages = vec![purpose(usage)];
        params.serial_number = Some(SerialNumber::from_slice(&[0x41, 7]));
        params.not_before = date(NOW.minus(DAY));
        params.not_after = date(NOW.plus(DAY));
        Self(params)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.0);
        self
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

pub(crate) fn purpose(usage: Usage) -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(usage.oid().to_vec())
}

/// jiwei and shenji are in the bundle; the stranger bears jiwei's name.
pub(crate) struct World {
    pub(crate) jiwei: Authority,
    pub(crate) shenji: Authority,
    pub(crate) stranger: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            jiwei: Authority::new("authority of jiwei"),
            shenji: Authority::new("authority of shenji"),
            stranger: Authority::new("authority of jiwei"),
        }
    }

    pub(crate) fn federation(&self, lists: Vec<Vec<u8>>) -> Result<Federation, FederationError> {
        Federation::new(
            bundle(vec![("jiwei", vec![&self.jiwei.der[..]]), ("shenji", vec![&self.shenji.der[..]])]),
            lists,
        )
    }
}

pub(crate) fn bundle(departments: Vec<(&str, Vec<&[u8]>)>) -> VerifiedBundle {
    let department = |(id, authorities): (&str, Vec<&[u8]>)| Department {
        id: id.parse().expect("a name"),
        name: id.to_owned(),
        authorities: authorities.into_iter().map(<[u8]>::to_vec).collect(),
        witness_keys: Vec::new(),
        issuer_keys: Vec::new(),
    };
    let bundle = TrustBundle {
        version: 1,
        issued: NOW,
        expires: NOW.plus(7 * DAY),
        predecessor: None,
        departments: departments.into_iter().map(department).collect(),
        zones: Vec::new(),
    };
    let key = SigningKey::from_bytes(&[1; 32]);
    let roots =
        RootKeys { threshold: 1, keys: vec![RootKey { name: "root".to_owned(), key: key.verifying_key().to_bytes() }] };
    verify_bundle(&roots, &sign_bundle(&bundle, &[("root", &key)])).expect("the root has signed")
}
