//! A department's certificate authority.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use lianxin_types::{DepartmentId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, RevokedCertParams,
    SerialNumber, SignatureAlgorithm,
};

use crate::folder::write;
use crate::key::{ed25519_pair, new_ed25519_pair, new_p256_pair, read_signing_key};
use crate::leaf::{Leaf, date};
use crate::paths::DepartmentPaths;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a revocation list is good for, as long as a bundle.
const REVOCATION_LIST_LIFETIME: Duration = lianxin_trust::BUNDLE_LIFETIME;

/// An authority that can sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// Which curve a leaf's key is on.
#[derive(Clone, Copy)]
pub(crate) enum KeyKind {
    P256,
    Ed25519,
}

/// The public half of a leaf's key.
struct PublicKey<'a> {
    kind: KeyKind,
    public_key: &'a [u8],
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::Ed25519 => &PKCS_ED25519,
        }
    }
}

impl Authority {
    /// Makes an authority and writes its key and, if wanted, its certificate; returns that certificate's DER.
    pub(crate) fn create(
        id: &DepartmentId,
        key_file: &Path,
        certificate_file: Option<&Path>,
        now: Timestamp,
    ) -> anyhow::Result<(Self, Vec<u8>)> {
        let key = new_p256_pair(key_file)?;
        let mut params = Self::params(id);
        // Older than the oldest specimen that it has issued.
        params.not_before = date(now.minus(60 * DAY))?;
        params.not_after = date(now.plus(365 * DAY))?;
        let certificate = params.self_signed(&key).context("cannot sign an authority's certificate")?;
        if let Some(file) = certificate_file {
            write(file, certificate.pem().as_bytes())?;
        }
        Ok((Self { issuer: Issuer::new(params, key) }, certificate.der().to_vec()))
    }

    /// The authority whose key lies in a department's folder.
    pub(crate) fn open(id: &DepartmentId, paths: &DepartmentPaths) -> anyhow::Result<Self> {
        let context = || format!("cannot read {}", paths.ca_key.display());
        let pem = fs::read_to_string(&paths.ca_key).with_context(context)?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256).with_context(context)?;
        Ok(Self { issuer: Issuer::new(Self::params(id), key) })
    }

    /// The part of an authority's certificate that follows from its department alone, so that [`Authority::open`] needs
    /// nothing but the key.
    fn params(id: &DepartmentId) -> CertificateParams {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("Lianxin throw-away authority of {id}"));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Issues a certificate for a new key, writes both, and returns the serial number.
    pub(crate) fn issue(
        &self,
        leaf: &Leaf<'_>,
        kind: KeyKind,
        certificate_file: &Path,
        key_file: &Path,
    ) -> anyhow::Result<Vec<u8>> {
        let key = match kind {
            KeyKind::P256 => new_p256_pair(key_file)?,
            KeyKind::Ed25519 => new_ed25519_pair(key_file)?,
        };
        self.certify(leaf, &key, certificate_file)
    }

    /// Issues another certificate for an Ed25519 key that is there already, and writes it.
    pub(crate) fn reissue(&self, leaf: &Leaf<'_>, certificate_file: &Path, key_file: &Path) -> anyhow::Result<()> {
        self.certify(leaf, &ed25519_pair(&read_signing_key(key_file)?)?, certificate_file).map(|_| ())
    }

    /// Issues a certificate for a key of which only the public half is here; DER.
    pub(crate) fn issue_for(&self, leaf: &Leaf<'_>, kind: KeyKind, public_key: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (params, _) = leaf.params()?;
        let certificate = params.signed_by(&PublicKey { kind, public_key }, &self.issuer);
        Ok(certificate.context("cannot sign a certificate")?.der().to_vec())
    }

    fn certify(&self, leaf: &Leaf<'_>, key: &KeyPair, certificate_file: &Path) -> anyhow::Result<Vec<u8>> {
        let (params, serial) = leaf.params()?;
        let certificate = params.signed_by(key, &self.issuer).context("cannot sign a certificate")?;
        write(certificate_file, certificate.pem().as_bytes())?;
        Ok(serial)
    }

    /// Signs and writes the revocation list over `serials` under a number that must rise with each.
    pub(crate) fn write_revocation_list(
        &self,
        paths: &DepartmentPaths,
        serials: &[Vec<u8>],
        number: u64,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let revoked = |serial: &Vec<u8>| -> anyhow::Result<RevokedCertParams> {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: date(now)?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(now.plus(REVOCATION_LIST_LIFETIME))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).context("cannot sign a revocation list")?;
        let lines: String = serials.iter().map(|serial| hex::encode(serial) + "\n").collect();
        write(&paths.revoked_serials, lines.as_bytes())?;
        write(&paths.revocation_list, list.der())?;
        write(&paths.revocation_list_pem, list.pem()?.as_bytes())
    }
}
