//! The federation as one value: a verified bundle and the newest revocation lists. It answers whose a certificate is.

use std::fmt;

use lianxin_types::{DepartmentId, Digest, Timestamp, ZoneId, labelled_sha256};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use webpki::anchor_from_trusted_cert;

use crate::certificate::{Certificate, CertificateError, Identity, Purposes};
use crate::past::Past;
use crate::revocation::RevocationList;
use crate::usage::Usage;
use crate::verified::VerifiedBundle;

/// Why a bundle and revocation lists do not make a federation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FederationError {
    /// A department's authority is not a certificate.
    #[error("an authority of {department} is not a certificate")]
    Authority {
        /// The department.
        department: DepartmentId,
    },
    /// Two departments list one key as their authority's: neither could be told from the other.
    #[error("{first} and {second} share an authority")]
    SharedAuthority {
        /// One of them.
        first: DepartmentId,
        /// The other.
        second: DepartmentId,
    },
    /// Not a complete revocation list with a number and a next update (RFC 5280 section 5).
    #[error("revocation list {index} cannot be read")]
    RevocationList {
        /// Its place in the argument, from 0.
        index: usize,
    },
    /// A list that no authority of the bundle has signed.
    #[error("revocation list {index} is not signed by an authority of the federation")]
    ForeignRevocationList {
        /// Its place in the argument, from 0.
        index: usize,
    },
}

/// A verified bundle with its parsed authorities and, for each authority, its newest revocation list. Never changes: a
/// newer bundle or list makes a new one, to be swapped in whole behind an `Arc`.
pub struct Federation {
    bundle: VerifiedBundle,
    pub(crate) authorities: Vec<Authority>,
    past: Past,
    past_authorities: Vec<(Authority, Timestamp)>,
    digest: Digest,
}

impl fmt::Debug for Federation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Federation").field("version", &self.bundle.bundle.version).finish_non_exhaustive()
    }
}

pub(crate) struct Authority {
    pub(crate) department: DepartmentId,
    anchor: TrustAnchor<'static>,
    pub(crate) revocation_list: Option<RevocationList>,
}

/// A revocation list that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevocationListView<'a> {
    /// Whose authority has signed it.
    pub department: &'a DepartmentId,
    /// Its number, big-endian without leading zeros; a later list has a higher one.
    pub number: &'a [u8],
    /// When a newer one should have come.
    pub next_update: Timestamp,
    /// The list, DER.
    pub der: &'a [u8],
}

impl Federation {
    /// Parses the authorities and verifies each revocation list against the authority that it names. Of several lists of
    /// one authority the newest is kept (by its number, then by its date); lists may be missing.
    ///
    /// # Errors
    /// Each variant of [`FederationError`]; nothing is left out silently.
    pub fn new(bundle: VerifiedBundle, revocation_lists: Vec<Vec<u8>>) -> Result<Self, FederationError> {
        let mut authorities: Vec<Authority> = Vec::new();
        for department in &bundle.bundle.departments {
            for der in &department.authorities {
                let authority = Authority::parse(&department.id, der)?;
                if let Some(other) = authorities.iter().find(|other| other.shares_key_with_other_department(&authority))
                {
                    let (first, second) = (other.department.clone(), authority.department);
                    return Err(FederationError::SharedAuthority { first, second });
                }
                authorities.push(authority);
            }
        }
        for (index, der) in revocation_lists.into_iter().enumerate() {
            let list = RevocationList::parse(der).ok_or(FederationError::RevocationList { index })?;
            let authority = authorities
                .iter_mut()
                .find(|authority| list.names(&authority.anchor) && list.is_signed_by(&authority.anchor))
                .ok_or(FederationError::ForeignRevocationList { index })?;
            if authority.revocation_list.as_ref().is_none_or(|kept| list.is_newer_than(kept)) {
                authority.revocation_list = Some(list);
            }
        }
        let lists = authorities.iter().filter_map(|one| one.revocation_list.as_ref()).map(|list| &list.der[..]);
        let parts: Vec<&[u8]> = std::iter::once(&bundle.digest.0[..]).chain(lists).collect();
        let digest = labelled_sha256("lianxin/federation/v1", &parts);
        let (past, past_authorities) = (Past::default(), Vec::new());
        Ok(Self { bundle, authorities, past, past_authorities, digest })
    }

    /// The same, with what the bundles before this one listed: only events of the log are judged by it
    /// ([`Federation::identify_then`], [`Federation::removal_keys_then`]), so the digest stays the same.
    ///
    /// # Errors
    /// [`FederationError::Authority`].
    pub fn with_past(self, past: Past) -> Result<Self, FederationError> {
        let parse = |one: &crate::past::PastAuthority| {
            Authority::parse(&one.department, &one.certificate).map(|authority| (authority, one.until))
        };
        let past_authorities = past.authorities.iter().map(parse).collect::<Result<_, _>>()?;
        let mut authorities = self.authorities;
        for list in authorities.iter_mut().filter_map(|authority| authority.revocation_list.as_mut()) {
            list.known_since = past.known_since(&Digest::sha256(&list.der));
        }
        Ok(Self { past, past_authorities, authorities, ..self })
    }

    /// What the bundles before this one listed.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Bundle and lists in 32 bytes: what was found with one federation holds for another with the same digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bundle.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// The DER of the lists that are kept, at most one per authority, in the order of the bundle.
    pub fn revocation_lists(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.iter().filter_map(|authority| authority.revocation_list.as_ref()).map(|list| &list.der[..])
    }

    /// The lists that are kept, in the same order.
    pub fn revocation_list_views(&self) -> impl Iterator<Item = RevocationListView<'_>> {
        self.authorities.iter().filter_map(|authority| {
            let list = authority.revocation_list.as_ref()?;
            let (department, next_update) = (&authority.department, list.next_update);
            Some(RevocationListView { department, number: &list.number, next_update, der: &list.der })
        })
    }

    /// Whose certificate this is, if it is good for `usage` at `now`.
    ///
    /// `chain` is DER, leaf first. The leaf must be issued by an authority of the bundle itself, so what follows it is
    /// not looked at. The clock skew of PROTOCOL 12 is tolerated at both ends of the validity; a revocation counts from
    /// its date on, without tolerance, so an event of the past is judged by what was revoked then.
    ///
    /// # Errors
    /// [`CertificateError`], the first reason in the order of its variants.
    pub fn identify(&self, chain: &[&[u8]], usage: Usage, now: Timestamp) -> Result<Identity, CertificateError> {
        let certificate = self.certificate(chain, usage, now)?;
        certificate.check_not_over(now)?;
        Ok(certificate.identity)
    }

    /// Whose certificate this is that opens a connection to a gateway: a member's TLS certificate, or that of a department's
    /// issuer, whose calls are its own (PROTOCOL 1). Every other kind and place is refused as by [`Federation::identify`].
    ///
    /// # Errors
    /// As [`Federation::identify`].
    pub fn identify_caller(&self, chain: &[&[u8]], now: Timestamp) -> Result<Identity, CertificateError> {
        match self.identify(chain, Usage::TlsClient, now) {
            Err(CertificateError::WrongKind) => self.identify(chain, Usage::Issuer, now),
            other => other,
        }
    }

    /// As [`Federation::identify`], but a certificate that has expired is taken: one joins a tree in which a leaf has
    /// expired since it entered, and reports it (PROTOCOL 1). Compare [`Identity::not_after`] to see it.
    ///
    /// # Errors
    /// As [`Federation::identify`] without [`CertificateError::Expired`].
    pub fn identify_ignoring_expiry(
        &self,
        chain: &[&[u8]],
        usage: Usage,
        now: Timestamp,
    ) -> Result<Identity, CertificateError> {
        Ok(self.certificate(chain, usage, now)?.identity)
    }

    /// As [`Federation::identify`] for a leaf that sits in a tree already: it was valid when it entered, and may have expired
    /// or been revoked since. Joiners take such a tree (PROTOCOL 1); see [`Federation::is_revoked`].
    ///
    /// # Errors
    /// As [`Federation::identify`] without [`CertificateError::Expired`] and [`CertificateError::Revoked`].
    pub fn identify_seated(&self, chain: &[&[u8]], usage: Usage, now: Timestamp) -> Result<Identity, CertificateError> {
        let (certificate, _) = self.issued(chain, usage)?;
        certificate.check_begun(now)?;
        Ok(certificate.identity)
    }

    /// As [`Federation::identify`] for a leaf that entered with an event of the log, at the time of that event: by the
    /// authorities of then. A revocation does not undo an event, not even one that it is dated before, unless the gateway had
    /// given out the list by then, clock skew included: else the list may have come later, and everybody who was there has
    /// taken the event. The leaf is a revoked one from now on; see [`Federation::is_revoked`].
    ///
    /// # Errors
    /// As [`Federation::identify`].
    pub fn identify_then(&self, chain: &[&[u8]], usage: Usage, then: Timestamp) -> Result<Identity, CertificateError> {
        let certificate = match self.issued(chain, usage) {
            Ok((certificate, authority)) => {
                let list = authority.revocation_list.as_ref().filter(|list| list.was_known(then));
                if list.is_some_and(|list| list.revokes(&certificate.identity.serial, then)) {
                    return Err(CertificateError::Revoked);
                }
                certificate
            }
            Err(CertificateError::UnknownAuthority) => self.issued_by_past(chain, usage, then)?,
            Err(error) => return Err(error),
        };
        certificate.check_begun(then)?;
        certificate.check_not_over(then)?;
        Ok(certificate.identity)
    }

    /// Whether an authority has issued this that was listed at `then` and is not any more. Then nothing of its revocation
    /// list is left either.
    pub fn is_of_past_authority(&self, chain: &[&[u8]], usage: Usage, then: Timestamp) -> bool {
        self.issued(chain, usage).is_err() && self.issued_by_past(chain, usage, then).is_ok()
    }

    /// The removal keys of a zone that are listed, and those that were at `then`, the newest first; none of a zone that the
    /// bundle does not list.
    pub fn removal_keys_then<'a>(
        &'a self,
        zone: &ZoneId,
        then: Timestamp,
    ) -> impl Iterator<Item = &'a [u8; 32]> + use<'a> {
        let zone = self.bundle.bundle.zone(zone);
        zone.into_iter().flat_map(move |zone| self.past.removal_keys_then(zone, then))
    }

    /// What a certificate says of its holder, believed by nobody yet: for the log's keeper, who has judged it before.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`], [`CertificateError::NoIdentity`].
    pub fn identity_as_stated(chain: &[&[u8]]) -> Result<Identity, CertificateError> {
        Ok(Certificate::parse(chain.first().ok_or(CertificateError::Malformed)?)?.identity)
    }

    /// Whether a certificate that was verified before is on its authority's list by `now`. Cheap: a signature is verified
    /// only where a list has the serial number. What cannot be read is not on a list.
    pub fn is_revoked(&self, certificate: &[u8], now: Timestamp) -> bool {
        let Ok(certificate) = Certificate::parse(certificate) else { return false };
        let named = certificate.identity.uri.department();
        let listing = |authority: &&Authority| {
            let list = authority.revocation_list.as_ref();
            authority.department == *named && list.is_some_and(|list| list.revokes(&certificate.identity.serial, now))
        };
        self.authorities.iter().filter(listing).any(|authority| certificate.issued_by(&authority.anchor).is_some())
    }

    /// Whether the bundle is past its expiry or a list past its next update (PROTOCOL 9: then one goes on reading, but
    /// accepts no newcomers). An authority without a list does not count.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let mut lists = self.authorities.iter().filter_map(|authority| authority.revocation_list.as_ref());
        self.bundle.is_expired(now) || lists.any(|list| list.is_stale(now))
    }

    /// When the first of the revocation lists is due to be replaced; `None` if there are none.
    pub fn revocation_lists_expire(&self) -> Option<Timestamp> {
        self.authorities.iter().filter_map(|one| one.revocation_list.as_ref()).map(|list| list.next_update()).min()
    }

    /// Everything but the end of the validity.
    fn certificate<'a>(
        &self,
        chain: &[&'a [u8]],
        usage: Usage,
        now: Timestamp,
    ) -> Result<Certificate<'a>, CertificateError> {
        let (certificate, authority) = self.issued(chain, usage)?;
        if authority.revocation_list.as_ref().is_some_and(|list| list.revokes(&certificate.identity.serial, now)) {
            return Err(CertificateError::Revoked);
        }
        certificate.check_begun(now)?;
        Ok(certificate)
    }

    /// The leaf of a chain, and the authority that has issued it for this usage.
    fn issued<'a>(&self, chain: &[&'a [u8]], usage: Usage) -> Result<(Certificate<'a>, &Authority), CertificateError> {
        let certificate = Certificate::parse(chain.first().ok_or(CertificateError::Malformed)?)?;
        let (authority, purposes) = self.issuer_of(&certificate)?;
        certificate.check_place(usage, &purposes)?;
        Ok((certificate, authority))
    }

    /// The leaf of a chain that one of its department's past authorities has issued for this usage, if that was listed at
    /// `then`.
    fn issued_by_past<'a>(
        &self,
        chain: &[&'a [u8]],
        usage: Usage,
        then: Timestamp,
    ) -> Result<Certificate<'a>, CertificateError> {
        let certificate = Certificate::parse(chain.first().ok_or(CertificateError::Malformed)?)?;
        let named = certificate.identity.uri.department();
        let listed = self.past_authorities.iter().filter(|(one, until)| one.department == *named && then < *until);
        let purposes = listed.filter_map(|(one, _)| certificate.issued_by(&one.anchor)).next();
        certificate.check_place(usage, &purposes.ok_or(CertificateError::UnknownAuthority)?)?;
        Ok(certificate)
    }

    /// The authority of the named department that has issued the certificate.
    fn issuer_of(&self, certificate: &Certificate<'_>) -> Result<(&Authority, Purposes), CertificateError> {
        let named = certificate.identity.uri.department();
        let issuer = |whose: fn(&DepartmentId, &DepartmentId) -> bool| {
            let candidates = self.authorities.iter().filter(move |authority| whose(&authority.department, named));
            candidates.filter_map(|one| certificate.issued_by(&one.anchor).map(|purposes| (one, purposes))).next()
        };
        if let Some(found) = issuer(|department, named| department == named) {
            return Ok(found);
        }
        match issuer(|department, named| department != named) {
            Some((other, _)) => {
                let issued_by = other.department.clone();
                Err(CertificateError::OtherDepartment { named: named.clone(), issued_by })
            }
            None => Err(CertificateError::UnknownAuthority),
        }
    }
}

impl Authority {
    fn parse(department: &DepartmentId, der: &[u8]) -> Result<Self, FederationError> {
        let certificate = CertificateDer::from(der);
        let anchor = anchor_from_trusted_cert(&certificate)
            .map_err(|_| FederationError::Authority { department: department.clone() })?;
        Ok(Self { department: department.clone(), anchor: anchor.to_owned(), revocation_list: None })
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.department == other.department
            && self.anchor.subject == other.anchor.subject
            && self.anchor.subject_public_key_info == other.anchor.subject_public_key_info
    }

    fn shares_key_with_other_department(&self, other: &Self) -> bool {
        self.department != other.department
            && self.anchor.subject_public_key_info == other.anchor.subject_public_key_info
    }
}
