//! Coming back by an external commit (RFC 9420 section 12.4.3.2): only for who owns a leaf of the epoch, with the key of that
//! leaf, and changing nothing else (PROTOCOL 5).

use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, Epoch};
use openmls::prelude::{
    ExternalCommitValidationError, LeafNode, Proposal, ProposalOrRefType, PublicProcessMessageError, Sender,
    StageCommitError, StagedCommit,
};

use crate::{
    AsOf, Before, CommitSummary, ProfileError, Seat, check_leaf, extensions::check_change, key_package::check_leaf_form,
};

/// Checks an external commit that openmls has verified and staged: exactly one ExternalInit, exactly one Remove, of the leaf
/// that `named` has now, and a new leaf with the same identity and the same key. The context stays as it is.
///
/// openmls has seen to it that there is a path, and that no proposal but a SelfRemove comes by reference.
pub(crate) fn check_rejoin(
    federation: &Federation,
    staged: &StagedCommit,
    named: &DeviceUri,
    before: Before<'_>,
    as_of: AsOf,
) -> Result<CommitSummary, ProfileError> {
    let old = before.roster.of(named).ok_or(ProfileError::SenderMismatch)?;
    let leaf = staged.update_path_leaf_node().ok_or(fault("an external commit has a path"))?;
    check_new_leaf(federation, leaf, old, as_of)?;
    check_proposals(staged, old)?;
    let context = check_change(federation, before.context, staged.group_context(), as_of)?;
    if staged.group_context().extensions() != before.context.extensions() {
        return Err(fault("an external commit leaves the context as it is"));
    }
    let mut roster = before.roster.clone();
    let old = roster.remove(old.leaf).ok_or(fault("the old leaf is not there"))?;
    let at = roster.add(old.uri, old.signature_key);
    roster.check()?;
    roster.check_departments(&context)?;
    let committer = roster.at(at).cloned().ok_or(fault("the new leaf has no place"))?;
    let epoch = Epoch(staged.group_context().epoch().as_u64());
    let (added, removed) = (Vec::new(), Vec::new());
    let rejoined_from = Some(old.leaf);
    let (updated, context_changed) = (true, false);
    Ok(CommitSummary { epoch, committer, added, removed, rejoined_from, updated, context, context_changed, roster })
}

fn check_new_leaf(federation: &Federation, leaf: &LeafNode, old: &Seat, as_of: AsOf) -> Result<(), ProfileError> {
    check_leaf_form(leaf)?;
    let key = leaf.signature_key().as_slice();
    let identity = check_leaf(federation, leaf.credential(), key, as_of.time, as_of.validity)?;
    if identity.uri != old.uri {
        return Err(ProfileError::SenderMismatch);
    }
    // A device that lost its key is seated anew by a member's Add.
    if key == old.signature_key { Ok(()) } else { Err(ProfileError::RejoinKey) }
}

fn check_proposals(staged: &StagedCommit, old: &Seat) -> Result<(), ProfileError> {
    let (mut inits, mut removes) = (0, 0);
    for queued in staged.queued_proposals() {
        if queued.proposal_or_ref_type() != ProposalOrRefType::Proposal {
            return Err(not_allowed("by reference in an external commit"));
        }
        match queued.proposal() {
            Proposal::ExternalInit(_) => inits += 1,
            Proposal::Remove(remove) if remove.removed().u32() == old.leaf => removes += 1,
            Proposal::Remove(_) => return Err(not_allowed("an external commit removes the own old leaf alone")),
            _ => return Err(not_allowed("of another kind in an external commit")),
        }
    }
    match (inits, removes) {
        (1, 1) => Ok(()),
        _ => Err(not_allowed("an external commit has one ExternalInit and removes the own old leaf")),
    }
}

/// Why openmls refuses a handshake message, in the profile's words. It looks at the proposals of an external commit before
/// we can, so its findings there are answered as ours.
pub fn refused_by_library(sender: &Sender, error: &PublicProcessMessageError) -> ProfileError {
    let verify = fault("it does not verify");
    let (Sender::NewMemberCommit, PublicProcessMessageError::InvalidCommit(error)) = (sender, error) else {
        return verify;
    };
    match error {
        StageCommitError::ExternalCommitValidation(
            ExternalCommitValidationError::NoPath
            | ExternalCommitValidationError::UnsupportedGroupContextExtensions
            | ExternalCommitValidationError::LibraryError(_),
        ) => verify,
        StageCommitError::ExternalCommitValidation(ExternalCommitValidationError::ReferencedProposal) => {
            not_allowed("by reference in an external commit")
        }
        StageCommitError::ExternalCommitValidation(_) => {
            not_allowed("an external commit has one ExternalInit and removes the own old leaf")
        }
        _ => verify,
    }
}

const fn not_allowed(proposal: &'static str) -> ProfileError {
    ProfileError::ProposalNotAllowed { proposal }
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidCommit { fault }
}
