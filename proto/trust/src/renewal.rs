//! A device asks its department for its next certificates (PROTOCOL 1: a renewal keeps the MLS key), and what it is answered.
//!
//! Three judge both by the same code: the gateway, which passes nothing on that is not sound; the department's issuer, which
//! need not believe the gateway; and the device, which need not believe either. The request is a PKCS#10 certification
//! request (RFC 2986) for a new TLS key, and the MLS key signs it: so who has only the connection, or only the gateway, can
//! ask for nothing.

use ed25519_dalek::{Signature, VerifyingKey};
use lianxin_types::{DeviceUri, Digest, IdempotencyId, Timestamp, Writer};
use thiserror::Error;

use crate::certificate::CertificateError;
use crate::der::{self, Elements};
use crate::federation::Federation;
use crate::usage::Usage;

/// In front of what the MLS key signs. No structure of MLS begins with it: there a length stands first (RFC 9420 section
/// 5.1.2), and this would be one of eleven thousand bytes.
const LABEL: &[u8] = b"lianxin/certificate-renewal/v1\0";
/// Longest certification request, and longest certificate in a renewal, in bytes. Ours have a tenth of it.
pub const RENEWAL_PART_BYTES_MAX: usize = 8 * 1024;

/// The content of a key's algorithm field: id-ecPublicKey on secp256r1 (RFC 5480 section 2.1.1).
const P256_KEY: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The content of a signature's algorithm field: ecdsa-with-SHA256 (RFC 5758 section 3.2).
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// Context tag of the attributes (RFC 2986 section 4.1).
const ATTRIBUTES: u8 = 0xa0;
/// An uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;

/// A request for the next certificates, as it travels; [`RenewalRequest::check`] says whether it is sound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RenewalRequest {
    /// Names the request; the device draws it.
    pub id: IdempotencyId,
    /// PKCS#10 in DER for the new TLS key, signed with it. Its subject is empty and its attributes count for nothing.
    pub tls_request: Vec<u8>,
    /// The device's MLS certificate of now, DER. The next one is for the same identity and the same key.
    pub mls_certificate: Vec<u8>,
    /// Ed25519 signature of the MLS key over all that.
    pub signature: [u8; 64],
}

/// What is not sound about a request or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenewalError {
    /// The certification request is not PKCS#10 for a key on P-256 with an empty subject, or is longer than
    /// [`RENEWAL_PART_BYTES_MAX`].
    #[error("the certification request cannot be read")]
    Malformed,
    /// The certification request is not signed with the key that it is for.
    #[error("the certification request is not signed with its own key")]
    NotTheKeysHolder,
    /// The MLS certificate of now does not hold.
    #[error("the mls certificate of now does not hold")]
    Present(#[source] CertificateError),
    /// The request is not signed with the MLS key of now.
    #[error("the request is not signed with the mls key")]
    NotTheDevice,
    /// A certificate of the answer does not hold.
    #[error("the issued certificate does not hold")]
    Issued(#[source] CertificateError),
    /// A certificate of the answer is another device's.
    #[error("the issued certificate is another device's")]
    OtherDevice {
        /// Whose.
        named: DeviceUri,
    },
    /// A certificate of the answer is for another key than was asked for.
    #[error("the issued certificate is for another key")]
    OtherKey,
}

/// A sound request: what may be issued for it, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Renewing {
    /// The device.
    pub device: DeviceUri,
    /// The new TLS key: a point on P-256, uncompressed.
    pub tls_key: Vec<u8>,
    /// The MLS key, as it was: Ed25519.
    pub mls_key: Vec<u8>,
}

impl RenewalRequest {
    /// A request, signed by `sign` with the MLS key.
    pub fn signed(
        id: IdempotencyId,
        tls_request: Vec<u8>,
        mls_certificate: Vec<u8>,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Self {
        let signature = sign(&to_be_signed(id, &tls_request, &mls_certificate));
        Self { id, tls_request, mls_certificate, signature }
    }

    /// The name of exactly this request: SHA-256 over what is signed. (An Ed25519 signature that verifies may have a twin; it
    /// makes no other request.)
    pub fn digest(&self) -> Digest {
        Digest::sha256(&to_be_signed(self.id, &self.tls_request, &self.mls_certificate))
    }

    /// What may be issued for this request. The MLS certificate must be good at `now`: who has let it end, or whose it was
    /// and has been revoked, goes to its department as a newcomer does.
    ///
    /// # Errors
    /// [`RenewalError`], the first reason in the order of its variants up to [`RenewalError::NotTheDevice`].
    pub fn check(&self, federation: &Federation, now: Timestamp) -> Result<Renewing, RenewalError> {
        let tls_key = requested_key(&self.tls_request)?;
        let present = federation.identify(&[&self.mls_certificate], Usage::Mls, now).map_err(RenewalError::Present)?;
        let key: [u8; 32] = present.public_key[..].try_into().map_err(|_| RenewalError::NotTheDevice)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| RenewalError::NotTheDevice)?;
        let signed = to_be_signed(self.id, &self.tls_request, &self.mls_certificate);
        key.verify_strict(&signed, &Signature::from_bytes(&self.signature)).map_err(|_| RenewalError::NotTheDevice)?;
        Ok(Renewing { device: present.uri, tls_key, mls_key: present.public_key })
    }
}

impl Renewing {
    /// When the first of the issued certificates ends, if they are what may be issued: both by the device's own department's
    /// authority, good at `now`, each for its place, this device and its key.
    ///
    /// # Errors
    /// [`RenewalError::Issued`], [`RenewalError::OtherDevice`], [`RenewalError::OtherKey`].
    pub fn check(
        &self,
        tls_certificate: &[u8],
        mls_certificate: &[u8],
        federation: &Federation,
        now: Timestamp,
    ) -> Result<Timestamp, RenewalError> {
        let issued = |certificate: &[u8], usage, key: &[u8]| {
            let identity = federation.identify(&[certificate], usage, now).map_err(RenewalError::Issued)?;
            if identity.uri != self.device {
                return Err(RenewalError::OtherDevice { named: identity.uri });
            }
            if identity.public_key == key { Ok(identity.not_after) } else { Err(RenewalError::OtherKey) }
        };
        let tls_ends = issued(tls_certificate, Usage::TlsClient, &self.tls_key)?;
        let mls_ends = issued(mls_certificate, Usage::Mls, &self.mls_key)?;
        Ok(tls_ends.min(mls_ends))
    }
}

fn to_be_signed(id: IdempotencyId, tls_request: &[u8], mls_certificate: &[u8]) -> Vec<u8> {
    let mut signed = Writer::new();
    signed.raw(LABEL).raw(&id.0).bytes(tls_request).bytes(mls_certificate);
    signed.finish()
}

/// The key of a certification request that is signed with it.
fn requested_key(request: &[u8]) -> Result<Vec<u8>, RenewalError> {
    let read = if request.len() > RENEWAL_PART_BYTES_MAX { None } else { Signed::parse(request) };
    let Signed { key, information, signature } = read.ok_or(RenewalError::Malformed)?;
    let is_own = webpki::aws_lc_rs::ECDSA_P256_SHA256.verify_signature(key, information, signature).is_ok();
    if is_own { Ok(key.to_vec()) } else { Err(RenewalError::NotTheKeysHolder) }
}

/// A certification request taken apart (RFC 2986 section 4).
struct Signed<'a> {
    key: &'a [u8],
    information: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn parse(request: &'a [u8]) -> Option<Self> {
        let mut outer = Elements::new(request);
        let mut parts = outer.inside(der::SEQUENCE)?;
        let information = parts.expect(der::SEQUENCE)?;
        let is_ecdsa = parts.expect(der::SEQUENCE)?.content == ECDSA_SHA256;
        let signature = der::bits(parts.expect(der::BIT_STRING)?.content)?;
        let mut fields = Elements::new(information.content);
        let is_version_1 = fields.expect(der::INTEGER)?.content == [0];
        // Who it is says the MLS certificate; no name belongs into a request.
        let is_nameless = fields.expect(der::SEQUENCE)?.content.is_empty();
        let mut key = fields.inside(der::SEQUENCE)?;
        let is_p256 = key.expect(der::SEQUENCE)?.content == P256_KEY;
        let point = der::bits(key.expect(der::BIT_STRING)?.content)?;
        fields.optional(ATTRIBUTES);
        let is_whole = [outer, parts, fields, key].iter().all(Elements::is_empty);
        let is_ours = is_ecdsa && is_version_1 && is_nameless && is_p256 && point.len() == P256_POINT_BYTES;
        (is_whole && is_ours).then_some(Self { key: point, information: information.whole, signature })
    }
}
