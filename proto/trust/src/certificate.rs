//! One certificate, taken apart: what it says before anyone asks whether to believe it.

use std::cell::RefCell;
use std::time::Duration;

use lianxin_types::{DepartmentId, DeviceUri, Kind, LIMITS, Timestamp};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};

use crate::der::{self, Elements};
use crate::usage::Usage;

/// Longest certificate in bytes; `webpki` reads no longer ones.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
/// Context tags of a certificate (RFC 5280 section 4.1) and of general names (section 4.2.1.6).
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Who a certificate stands for. Only [`crate::Federation`] makes one, so whoever holds one holds a checked identity.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// The device.
    pub uri: DeviceUri,
    /// The raw key bits of the certificate's SubjectPublicKeyInfo: 32 bytes for Ed25519, 65 for P-256 (uncompressed point).
    pub public_key: Vec<u8>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity. [`crate::Federation::identify_ignoring_expiry`] gives identities for which it is over.
    pub not_after: Timestamp,
    /// Serial number: the content of the DER integer, big-endian.
    pub serial: Vec<u8>,
}

/// Why a certificate stands for nobody here. Where several reasons hold, the first in this order is given. So nothing is
/// said about a certificate's state before its authority is known, and a revoked one is "revoked" also after its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// There is no certificate, or it is not X.509 v3 DER that both ends read alike.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its names are not exactly one Lianxin URI (a gateway's may hold DNS names and IP addresses besides).
    #[error("the certificate does not name exactly one device")]
    NoIdentity,
    /// No authority of the federation has issued it directly and as a leaf (an authority's own certificate is none).
    #[error("the certificate is not issued by an authority of the federation")]
    UnknownAuthority,
    /// A department's authority has issued it, and it names another department.
    #[error("the certificate names {named} and is issued by {issued_by}")]
    OtherDepartment {
        /// The department in the URI.
        named: DepartmentId,
        /// The department whose authority has signed.
        issued_by: DepartmentId,
    },
    /// Its URI is of a kind that has no place here, e.g. an officer as a member.
    #[error("the certificate is for another kind of holder")]
    WrongKind,
    /// Its extended key usage is not the one of this place, or is that of another place too.
    #[error("the certificate is for another usage")]
    WrongUsage,
    /// Its serial number is on its authority's revocation list, with a date that has come.
    #[error("the certificate is revoked")]
    Revoked,
    /// Its validity has not begun, skew included.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// Its validity is over, skew included.
    #[error("the certificate has expired")]
    Expired,
}

/// A certificate's own statements.
pub(crate) struct Certificate<'a> {
    der: CertificateDer<'a>,
    pub(crate) identity: Identity,
}

impl<'a> Certificate<'a> {
    /// Reads a leaf.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, CertificateError> {
        let der = CertificateDer::from(bytes);
        if bytes.len() > CERTIFICATE_BYTES_MAX || EndEntityCert::try_from(&der).is_err() {
            return Err(CertificateError::Malformed);
        }
        let fields = Fields::parse(bytes).ok_or(CertificateError::Malformed)?;
        let uri = match fields.names {
            Some(names) => the_one_uri(names)?,
            None => return Err(CertificateError::NoIdentity),
        };
        let Fields { public_key, not_before, not_after, serial, .. } = fields;
        let identity =
            Identity { uri, public_key: public_key.to_vec(), not_before, not_after, serial: serial.to_vec() };
        Ok(Self { der, identity })
    }

    /// Whether `authority` has issued it, at any time and for any usage. `None` if it has not; otherwise what the
    /// certificate may be used for.
    ///
    /// There is never an intermediate: its own revocation list would be one that no bundle vouches for.
    pub(crate) fn issued_by(&self, authority: &TrustAnchor<'_>) -> Option<Purposes> {
        let leaf = EndEntityCert::try_from(&self.der).ok()?;
        let purposes = PurposeCollector::default();
        // webpki looks at the time before it looks at the signature. Asked within the validity it answers who issued it,
        // and the time is judged afterwards, with our own tolerance.
        let time = UnixTime::since_unix_epoch(Duration::from_secs(self.identity.not_before.seconds()));
        let anchors = std::slice::from_ref(authority);
        match leaf.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, &[], time, &purposes, None, None) {
            Ok(_) => Some(Purposes(purposes.found.into_inner())),
            Err(_) => None,
        }
    }

    /// Whether its holder's kind and its extended key usage fit the place.
    pub(crate) fn check_place(&self, usage: Usage, purposes: &Purposes) -> Result<(), CertificateError> {
        if !usage.admits(self.identity.uri.kind()) {
            return Err(CertificateError::WrongKind);
        }
        if purposes.are_only(usage) { Ok(()) } else { Err(CertificateError::WrongUsage) }
    }

    /// Whether its validity has begun.
    pub(crate) fn check_begun(&self, now: Timestamp) -> Result<(), CertificateError> {
        let begun = now.plus(LIMITS.clock_skew_max) >= self.identity.not_before;
        if begun { Ok(()) } else { Err(CertificateError::NotYetValid) }
    }

    /// Whether its validity is not over.
    pub(crate) fn check_not_over(&self, now: Timestamp) -> Result<(), CertificateError> {
        let over = now > self.identity.not_after.plus(LIMITS.clock_skew_max);
        if over { Err(CertificateError::Expired) } else { Ok(()) }
    }
}

/// Which of our usages a leaf's extended key usage names; others do not concern us.
pub(crate) struct Purposes(Vec<Usage>);

impl Purposes {
    /// Whether it is this place's usage alone: what serves two places is a key shared by two.
    fn are_only(&self, usage: Usage) -> bool {
        self.0.contains(&usage) && self.0.iter().all(|found| *found == usage)
    }
}

/// Accepts every extended key usage and keeps it, so that a wrong one is not reported before the issuer is known.
#[derive(Default)]
struct PurposeCollector {
    found: RefCell<Vec<Usage>>,
}

impl ExtendedKeyUsageValidator for PurposeCollector {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        for purpose in purposes {
            let purpose = purpose?;
            let ours = Usage::ALL.into_iter().find(|usage| KeyPurposeId::new(usage.oid_der()) == purpose);
            self.found.borrow_mut().extend(ours);
        }
        Ok(())
    }
}

/// The fields that webpki keeps to itself.
struct Fields<'a> {
    serial: &'a [u8],
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: &'a [u8],
    /// Content of the subject alternative name extension.
    names: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn parse(certificate: &'a [u8]) -> Option<Self> {
        let mut fields = Elements::new(certificate).inside(der::SEQUENCE)?.inside(der::SEQUENCE)?;
        fields.expect(VERSION)?;
        let serial = fields.expect(der::INTEGER)?.content;
        fields.expect(der::SEQUENCE)?; // signature algorithm
        fields.expect(der::SEQUENCE)?; // issuer
        let mut validity = fields.inside(der::SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        fields.expect(der::SEQUENCE)?; // subject
        let mut key = fields.inside(der::SEQUENCE)?;
        key.expect(der::SEQUENCE)?; // key algorithm
        let public_key = der::bits(key.expect(der::BIT_STRING)?.content)?;
        let names = match fields.optional(EXTENSIONS) {
            Some(tagged) => der::extension(Elements::new(tagged.content).inside(der::SEQUENCE)?, SUBJECT_ALT_NAME)?,
            None => None,
        };
        (not_before <= not_after).then_some(Self { serial, not_before, not_after, public_key, names })
    }
}

/// The identity among the names: exactly one URI, and beside it DNS names and IP addresses for a gateway, nothing for the
/// others, since no name of a person, account or number belongs into a certificate (PROTOCOL 1).
fn the_one_uri(names: &[u8]) -> Result<DeviceUri, CertificateError> {
    let mut names = Elements::new(names).inside(der::SEQUENCE).ok_or(CertificateError::Malformed)?;
    let mut identity: Option<DeviceUri> = None;
    let mut addresses = 0;
    while !names.is_empty() {
        let name = names.any().ok_or(CertificateError::Malformed)?;
        match name.tag {
            URI if identity.is_none() => {
                let text = std::str::from_utf8(name.content).map_err(|_| CertificateError::NoIdentity)?;
                identity = Some(text.parse().map_err(|_| CertificateError::NoIdentity)?);
            }
            DNS_NAME | IP_ADDRESS => addresses += 1,
            _ => return Err(CertificateError::NoIdentity),
        }
    }
    match identity {
        Some(uri) if addresses == 0 || uri.kind() == Kind::Gateway => Ok(uri),
        _ => Err(CertificateError::NoIdentity),
    }
}
