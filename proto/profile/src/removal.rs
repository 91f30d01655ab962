//! Removes that the zone's gateway asks for with its removal key: when one is due, its bytes, and what both ends check
//! (PROTOCOL 1, 3, 4, 5). The gateway can ask and nothing more: members commit it, and only with evidence that they see
//! themselves.

use lianxin_trust::{CertificateError, Federation, Usage};
use lianxin_types::{DecodeError, Digest, Epoch, GroupId, LIMITS, Reader, Timestamp, Writer};
use openmls::prelude::tls_codec::{Serialize as _, VLByteSlice};
use openmls::prelude::{Credential, Proposal, ProposalOrRefType, QueuedProposal, Sender, SenderExtensionIndex};

use crate::credential::parse_chain;
use crate::{ProfileError, Roster, Seat};

/// Bytes of the authenticated data of a Remove from the gateway.
pub const REMOVAL_DATA_BYTES: usize = 34;

/// What members send has version 1.
const VERSION: u8 = 2;

/// Why a leaf is to go. Other numbers are reserved for a department's suspension and for policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemovalReason {
    /// Its certificate is on its authority's revocation list.
    CertificateRevoked = 1,
    /// Its certificate has been over for longer than `LIMITS.leaf_expiry_grace`.
    CertificateExpired = 2,
}

/// The authenticated data of a Remove from the gateway: why, and about which certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemovalData {
    /// Why.
    pub reason: RemovalReason,
    /// SHA-256 of the leaf's certificate, DER.
    pub evidence: Digest,
}

impl RemovalData {
    /// version u8, reason u8, evidence 32 bytes.
    pub fn to_bytes(&self) -> [u8; REMOVAL_DATA_BYTES] {
        let bytes = Writer::new().u8(VERSION).u8(self.reason as u8).raw(&self.evidence.0).finish();
        bytes.try_into().expect("the fields above add up to 34 bytes")
    }

    /// Reads what [`RemovalData::to_bytes`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] for every other length, version or reason.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("removal data version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let reason = match reader.u8("removal reason")? {
            1 => RemovalReason::CertificateRevoked,
            2 => RemovalReason::CertificateExpired,
            _ => return Err(DecodeError::OutOfRange { field: "removal reason" }),
        };
        let evidence = Digest(reader.array("removal evidence")?);
        reader.finish()?;
        Ok(Self { reason, evidence })
    }
}

/// Why a leaf with this credential is to go at `now`; `None` if it may stay. The gateway asks this of every leaf, and a
/// member of the leaf that a Remove names, each with its own federation.
///
/// # Errors
/// [`ProfileError::InvalidCredential`] if the credential is not one certificate.
pub fn removal_due(
    federation: &Federation,
    credential: &Credential,
    now: Timestamp,
) -> Result<Option<RemovalData>, ProfileError> {
    let chain = parse_chain(credential)?;
    let slices: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let reason = match federation.identify_ignoring_expiry(&slices, Usage::Mls, now) {
        Err(CertificateError::Revoked) => Some(RemovalReason::CertificateRevoked),
        Ok(identity) if now > identity.not_after.plus(LIMITS.leaf_expiry_grace) => {
            Some(RemovalReason::CertificateExpired)
        }
        // An authority that has left the bundle is no evidence against one leaf.
        Ok(_) | Err(_) => None,
    };
    let evidence = slices.first().map(|certificate| Digest::sha256(certificate));
    Ok(reason.zip(evidence).map(|(reason, evidence)| RemovalData { reason, evidence }))
}

/// The proposal's bytes: an MLSMessage with a PublicMessage of the group's one external sender (RFC 9420 sections 6, 6.1,
/// 12.1.8). `sign` makes the Ed25519 signature by the zone's removal key over what it is given.
///
/// Written by hand because openmls makes such proposals without authenticated data only; its parser reads them back.
pub fn removal_message(
    group: GroupId,
    epoch: Epoch,
    leaf: u32,
    data: &RemovalData,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Vec<u8> {
    const MLS_1_0: u16 = 1;
    const PUBLIC_MESSAGE: u16 = 1;
    const SENDER_EXTERNAL: u8 = 2;
    const CONTENT_PROPOSAL: u8 = 2;
    const PROPOSAL_REMOVE: u16 = 3;
    let content = Writer::new()
        .raw(&vector(&group.to_bytes()))
        .u64(epoch.0)
        .u8(SENDER_EXTERNAL)
        .u32(REMOVAL_SENDER)
        .raw(&vector(&data.to_bytes()))
        .u8(CONTENT_PROPOSAL)
        .u16(PROPOSAL_REMOVE)
        .u32(leaf)
        .finish();
    // FramedContentTBS: for an external sender without the group context (section 6.1).
    let signed = Writer::new().u16(MLS_1_0).u16(PUBLIC_MESSAGE).raw(&content).finish();
    let labelled = [vector(b"MLS 1.0 FramedContentTBS"), vector(&signed)].concat();
    Writer::new().raw(&signed).raw(&vector(&sign(&labelled))).finish()
}

/// The place of the zone's removal key among the external senders: there is exactly one (PROTOCOL 3).
const REMOVAL_SENDER: u32 = 0;

fn vector(bytes: &[u8]) -> Vec<u8> {
    VLByteSlice(bytes).tls_serialize_detached().expect("a few dozen bytes have a length that can be written")
}

/// Whether `sender` is the zone's removal key.
pub fn is_removal_sender(sender: &Sender) -> bool {
    matches!(sender, Sender::External(index) if *index == SenderExtensionIndex::new(REMOVAL_SENDER))
}

/// Checks a proposal from the zone's removal key that stands alone: a Remove of a leaf that is there, and nothing else.
/// Gives the one who is to go. Its evidence is another question: [`removal_due`].
///
/// # Errors
/// [`ProfileError::ProposalNotAllowed`].
pub fn check_removal<'a>(queued: &QueuedProposal, roster: &'a Roster) -> Result<&'a Seat, ProfileError> {
    let proposal = "only a removal of a member may come from the removal key";
    let not_allowed = ProfileError::ProposalNotAllowed { proposal };
    match queued.proposal() {
        Proposal::Remove(remove) if is_removal_sender(queued.sender()) => {
            roster.at(remove.removed().u32()).ok_or(not_allowed)
        }
        _ => Err(not_allowed),
    }
}

/// Whether a Remove in a commit is one that the gateway has asked for: by reference, from the removal key.
pub(crate) fn is_asked(queued: &QueuedProposal) -> bool {
    is_removal_sender(queued.sender()) && queued.proposal_or_ref_type() == ProposalOrRefType::Reference
}

#[cfg(test)]
mod tests {
    use lianxin_types::{ChannelId, Incarnation};
    use openmls::prelude::ContentType;

    use super::*;
    use crate::message::parse_handshake;

    fn data() -> RemovalData {
        RemovalData { reason: RemovalReason::CertificateRevoked, evidence: Digest([0xEE; 32]) }
    }

    #[test]
    fn golden_and_back() {
        let bytes = data().to_bytes();
        assert_eq!(hex::encode(bytes), format!("0201{}", "ee".repeat(32)));
        assert_eq!(RemovalData::from_bytes(&bytes), Ok(data()));
        let expired = RemovalData { reason: RemovalReason::CertificateExpired, ..data() };
        assert_eq!(RemovalData::from_bytes(&expired.to_bytes()), Ok(expired));
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = data().to_bytes();
        for cut in 0..bytes.len() {
            assert!(RemovalData::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(RemovalData::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for (place, value) in [(0, 1), (0, 3), (1, 0), (1, 3)] {
            let mut other = bytes;
            other[place] = value;
            assert!(RemovalData::from_bytes(&other).is_err(), "{value} at {place}");
        }
    }

    #[test]
    fn the_message_is_one_that_mls_reads() {
        let group = GroupId { channel: ChannelId([7; 16]), incarnation: Incarnation(0) };
        let message = removal_message(group, Epoch(3), 5, &data(), |signed| {
            assert!(signed.starts_with(b"\x18MLS 1.0 FramedContentTBS"));
            [0xAB; 64]
        });
        let expect = [
            format!("0001000114{}00000000", "07".repeat(16)),
            "000000000000000302000000002202".to_owned() + "01",
            "ee".repeat(32) + "02000300000005",
            "4040".to_owned() + &"ab".repeat(64),
        ];
        assert_eq!(hex::encode(&message), expect.concat());
        let frame = parse_handshake(&message).expect("a handshake message");
        assert_eq!((frame.group, frame.epoch), (group, Epoch(3)));
        assert!(is_removal_sender(&frame.sender));
        assert_eq!(frame.message.content_type(), ContentType::Proposal);
    }
}
