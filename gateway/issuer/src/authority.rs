//! Who signs certificates: a trait, so that a department's own service can stand where the local key file stands.

use std::time::Duration;

use lianxin_trust::Usage;
use lianxin_types::{DeviceUri, Random, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use thiserror::Error;
use time::OffsetDateTime;

/// How far a validity begins in the past: other tools check it without our tolerance for skewed clocks.
const BACKDATED: Duration = Duration::from_secs(300);

/// A certificate to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// For whom.
    pub device: &'a DeviceUri,
    /// [`Usage::TlsClient`] with a key on P-256, or [`Usage::Mls`] with an Ed25519 key.
    pub usage: Usage,
    /// The raw key bits.
    pub public_key: &'a [u8],
    /// The time of now.
    pub now: Timestamp,
    /// How long it is to be good.
    pub lifetime: Duration,
}

/// Why nothing was signed.
#[derive(Debug, Error)]
#[error("sign a certificate")]
pub struct AuthorityError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Signs what the desk has decided. It decides nothing itself.
pub trait CertificateAuthority: Send + Sync {
    /// The signed certificate, DER, by an authority that the trust bundle lists for the device's department, with the device's
    /// URI as its one name and the one extended key usage.
    ///
    /// # Errors
    /// [`AuthorityError`] if the authority cannot be reached or does not sign.
    fn certify(&self, wanted: &Wanted<'_>) -> Result<Vec<u8>, AuthorityError>;
}

/// The authority's key in a file of this machine.
pub struct LocalAuthority {
    issuer: Issuer<'static, KeyPair>,
    random: Box<dyn Random>,
}

impl LocalAuthority {
    /// The authority of this certificate and key, both PEM, the key PKCS#8.
    ///
    /// # Errors
    /// [`AuthorityError`] if either cannot be read. Whether they fit together shows the first certificate, which the desk
    /// verifies as everybody else does.
    pub fn from_pem(certificate: &str, key: &str, random: Box<dyn Random>) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(wrapped)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(wrapped)?;
        Ok(Self { issuer, random })
    }
}

impl CertificateAuthority for LocalAuthority {
    fn certify(&self, wanted: &Wanted<'_>) -> Result<Vec<u8>, AuthorityError> {
        let mut serial = self.random.array::<16>();
        // Positive, and of full length: the bytes are then also the content of the DER integer.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // No subject: the URI says everything, and no name belongs into a certificate (PROTOCOL 1).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(wanted.device.as_str().try_into().map_err(wrapped)?)];
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(wanted.usage.oid().to_vec())];
        if wanted.usage == Usage::TlsClient {
            // The general usage besides our own, so that ordinary TLS tools can be used.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(wanted.now.minus(BACKDATED))?;
        params.not_after = date(wanted.now.plus(wanted.lifetime))?;
        let algorithm = if wanted.usage == Usage::Mls { &PKCS_ED25519 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = PublicKey { algorithm, bits: wanted.public_key };
        Ok(params.signed_by(&key, &self.issuer).map_err(wrapped)?.der().to_vec())
    }
}

/// A key of which only the public half is here.
struct PublicKey<'a> {
    algorithm: &'static SignatureAlgorithm,
    bits: &'a [u8],
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

fn date(timestamp: Timestamp) -> Result<OffsetDateTime, AuthorityError> {
    let seconds = i64::try_from(timestamp.seconds()).map_err(wrapped)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(wrapped)
}

fn wrapped(error: impl std::error::Error + Send + Sync + 'static) -> AuthorityError {
    AuthorityError(Box::new(error))
}
