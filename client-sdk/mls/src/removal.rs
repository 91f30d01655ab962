//! Removes that the zone's gateway asks for: taken only with evidence that this device sees with its own federation
//! (PROTOCOL 3). What it has no evidence for it never stores, so it neither commits it nor follows who does.

use lianxin_profile::{
    HandshakeKind, RemovalData, check_removal, is_removal_key_listed, is_removal_sender, parse_chain, removal_due,
};
use lianxin_trust::{CertificateError, Federation, Usage};
use lianxin_types::{Digest, Timestamp};
use openmls::prelude::{Credential, LeafNodeIndex, ProcessedMessageContent};
use openmls_traits::OpenMlsProvider as _;

use crate::channel::OpenChannel;
use crate::process::{Stop, TrustAge};
use crate::{LogEvent, Mls, MlsError, Processed, Violation};

impl Mls {
    /// Takes in a Remove of the gateway's, if this device sees its reason, too.
    pub(crate) fn removal(
        &self,
        open: &mut OpenChannel<'_>,
        federation: &Federation,
        event: &LogEvent,
        trust: TrustAge,
    ) -> Result<Processed, Stop> {
        let message = open.handshake(event, HandshakeKind::Proposal)?;
        if !is_removal_sender(message.sender()) {
            return Err(Violation::UnexpectedProposal.into());
        }
        // The channel may still name a key that was stolen and that the bundle lists no more.
        if !is_removal_key_listed(open.group.public_group().group_context(), federation, event.gateway_time) {
            return Err(Violation::UnexpectedProposal.into());
        }
        let data = RemovalData::from_bytes(message.aad());
        let ProcessedMessageContent::ProposalMessage(queued) = message.into_content() else {
            return Err(Violation::UnexpectedProposal.into());
        };
        let seat = check_removal(&queued, &open.roster).map_err(|_| Violation::UnexpectedProposal)?;
        let data = data.map_err(|_| Violation::Malformed)?;
        let (leaf, device) = (LeafNodeIndex::new(seat.leaf), seat.uri.clone());
        let credential = open.group.member(leaf).ok_or(Violation::UnexpectedProposal)?;
        match self.evidence(federation, credential, &data, event.gateway_time) {
            Evidence::Seen => {}
            Evidence::NotSeen if trust == TrustAge::MayBeBehind => {
                return Err(MlsError::TrustBehind { device }.into());
            }
            Evidence::NotSeen | Evidence::OfAnother => return Err(Violation::UnfoundedRemoval { device }.into()),
        }
        let reference = queued.proposal_reference_ref();
        if !open.group.pending_proposals().any(|known| known.proposal_reference_ref() == reference) {
            open.group.store_pending_proposal(open.provider.storage(), *queued)?;
        }
        Ok(Processed::RemovalAsked { device, reason: data.reason })
    }
}

impl Mls {
    /// What the gateway saw at `then` may be gone from the lists for who was away: a certificate leaves them once it is over,
    /// and a retired authority's list goes with it. Both certificates are good for nothing by now.
    fn evidence(
        &self,
        federation: &Federation,
        credential: &Credential,
        data: &RemovalData,
        then: Timestamp,
    ) -> Evidence {
        let chain = parse_chain(credential).unwrap_or_default();
        if chain.first().map(|certificate| Digest::sha256(certificate)) != Some(data.evidence) {
            return Evidence::OfAnother;
        }
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        // A certificate that the gateway found expired may have been revoked since: it is to go all the same.
        let is_due = matches!(removal_due(federation, credential, then), Ok(Some(_)));
        let is_over = || federation.identify(&chain, Usage::Mls, self.clock.now()) == Err(CertificateError::Expired);
        match is_due || is_over() || federation.is_of_past_authority(&chain, Usage::Mls, then) {
            true => Evidence::Seen,
            false => Evidence::NotSeen,
        }
    }
}

enum Evidence {
    /// This device's federation says so, too.
    Seen,
    /// The certificate is the leaf's, and this device knows nothing against it.
    NotSeen,
    /// The certificate is not the leaf's.
    OfAnother,
}
