//! Revocation lists (RFC 5280 section 5): verified once when they come in, asked by serial number afterwards.

use lianxin_types::{LIMITS, Timestamp};
use rustls_pki_types::TrustAnchor;
use webpki::{ALL_VERIFICATION_ALGS, CertRevocationList, OwnedCertRevocationList};

use crate::der::{self, Elements};

/// Context tag of a list's extensions (RFC 5280 section 5.1).
const EXTENSIONS: u8 = 0xa0;
/// id-ce-cRLNumber, 2.5.29.20.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// id-ce-issuingDistributionPoint, 2.5.29.28.
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];

/// A complete list of one authority.
pub(crate) struct RevocationList {
    pub(crate) der: Vec<u8>,
    list: CertRevocationList<'static>,
    /// The list's number without leading zeros; a later list has a higher one.
    pub(crate) number: Vec<u8>,
    this_update: Timestamp,
    pub(crate) next_update: Timestamp,
    /// Since when the gateway is known to have it; `None` if it is not.
    pub(crate) known_since: Option<Timestamp>,
}

impl RevocationList {
    /// Reads a list. `None` if it is not a complete, unscoped list with a number and a next update.
    pub(crate) fn parse(der: Vec<u8>) -> Option<Self> {
        let list = CertRevocationList::from(OwnedCertRevocationList::from_der(&der).ok()?);
        let fields = Fields::parse(&der)?;
        // A list for a part of the certificates would leave the others "not revoked".
        if der::extension(fields.extensions, ISSUING_DISTRIBUTION_POINT)?.is_some() {
            return None;
        }
        let number = Elements::new(der::extension(fields.extensions, CRL_NUMBER)??).expect(der::INTEGER)?.content;
        let significant = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = number[significant..].to_vec();
        let (this_update, next_update) = (fields.this_update, fields.next_update);
        Some(Self { list, number, this_update, next_update, der, known_since: None })
    }

    /// Whether the list names `authority` as its issuer.
    pub(crate) fn names(&self, authority: &TrustAnchor<'_>) -> bool {
        self.list.issuer() == authority.subject.as_ref()
    }

    /// Whether `authority`'s key has signed the list.
    pub(crate) fn is_signed_by(&self, authority: &TrustAnchor<'_>) -> bool {
        let Some(fields) = Fields::parse(&self.der) else { return false };
        let mut key = Elements::new(authority.subject_public_key_info.as_ref());
        let (Some(key_algorithm), Some(key)) = (key.expect(der::SEQUENCE), key.expect(der::BIT_STRING)) else {
            return false;
        };
        let Some(key) = der::bits(key.content) else { return false };
        ALL_VERIFICATION_ALGS.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm.content
                && algorithm.signature_alg_id().as_ref() == fields.algorithm
                && algorithm.verify_signature(key, fields.signed, fields.signature).is_ok()
        })
    }

    /// Whether this list replaces `other` of the same authority.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        let order = |list: &Self| (list.number.len(), list.number.clone(), list.this_update);
        order(self) > order(other)
    }

    /// Whether its number is the higher one.
    pub(crate) fn has_higher_number_than(&self, other: &Self) -> bool {
        (self.number.len(), &self.number) > (other.number.len(), &other.number)
    }

    /// Whether the certificate with this serial number is revoked at `now`: from the revocation date of its entry on. So a
    /// leaf that entered before stays one that was valid then (PROTOCOL 1).
    pub(crate) fn revokes(&self, serial: &[u8], now: Timestamp) -> bool {
        match self.list.find_serial(serial) {
            Ok(None) => false,
            Ok(Some(entry)) => entry.revocation_date.as_secs() <= now.seconds(),
            // An owned list has been read to its end already: an error cannot happen, and means "revoked".
            Err(_) => true,
        }
    }

    /// Whether the gateway is known to have had the list at `then`, whichever of the clocks is ahead.
    pub(crate) fn was_known(&self, then: Timestamp) -> bool {
        self.known_since.is_some_and(|since| then > since.plus(LIMITS.clock_skew_max))
    }

    /// When a newer list is due.
    pub(crate) const fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// Whether a newer list should have come by now, with the tolerated clock skew on top.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        now > self.next_update.plus(LIMITS.clock_skew_max)
    }
}

struct Fields<'a> {
    /// The signed part, tag and length included.
    signed: &'a [u8],
    /// Content of the signature's AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
    this_update: Timestamp,
    next_update: Timestamp,
    extensions: Elements<'a>,
}

impl<'a> Fields<'a> {
    fn parse(list: &'a [u8]) -> Option<Self> {
        let mut outer = Elements::new(list).inside(der::SEQUENCE)?;
        let signed = outer.expect(der::SEQUENCE)?;
        let algorithm = outer.expect(der::SEQUENCE)?.content;
        let signature = der::bits(outer.expect(der::BIT_STRING)?.content)?;
        let mut fields = Elements::new(signed.content);
        fields.expect(der::INTEGER)?; // version
        fields.expect(der::SEQUENCE)?; // signature algorithm, equal to the outer one: webpki has compared
        fields.expect(der::SEQUENCE)?; // issuer
        let (this_update, next_update) = (fields.time()?, fields.time()?);
        fields.optional(der::SEQUENCE); // revoked certificates
        let extensions = fields.inside(EXTENSIONS)?.inside(der::SEQUENCE)?;
        Some(Self { signed: signed.whole, algorithm, signature, this_update, next_update, extensions })
    }
}
