//! What a commit may do: the rules beyond RFC 9420 that gateway and SDKs check alike before they merge (PROTOCOL 1, 3, 5).

use std::fmt;

use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, Digest, Epoch, LIMITS, Timestamp};
use openmls::prelude::{GroupContext, OpenMlsCrypto, Proposal, QueuedProposal, Sender, StagedCommit};

use crate::{
    ChannelContext, ProfileError, Roster, Seat, Validity, check_leaf,
    extensions::check_change,
    key_package::{check_added, check_leaf_form},
    rejoin::check_rejoin,
    removal::{is_asked, is_removal_sender},
};

/// The epoch that a commit starts from.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// Its members.
    pub roster: &'a Roster,
    /// Its group context.
    pub context: &'a GroupContext,
}

/// As of when an event is judged, and what has been said of it by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsOf {
    /// The time.
    pub time: Timestamp,
    /// What is asked of the certificates of leaves that enter or change.
    pub validity: Validity,
}

impl AsOf {
    /// An event that is to enter the log: at the gateway, and at whoever makes it.
    pub const fn arriving(now: Timestamp) -> Self {
        Self { time: now, validity: Validity::MustBeValid }
    }

    /// An event that is in the log, at a member. `gateway_time` is the event's.
    pub const fn logged(gateway_time: Timestamp) -> Self {
        Self { time: gateway_time, validity: Validity::WasValid }
    }

    /// The same at the log's keeper, who judged it when it came in.
    pub const fn kept(gateway_time: Timestamp) -> Self {
        Self { time: gateway_time, validity: Validity::WasJudged }
    }
}

impl fmt::Debug for Before<'_> {
    /// Without the group context: it holds the slot key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Before").field("members", &self.roster.len()).finish_non_exhaustive()
    }
}

/// A member that a commit seats.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Index of its leaf in the new epoch.
    pub leaf: u32,
    /// Who it is.
    pub uri: DeviceUri,
    /// KeyPackageRef of the key package used (RFC 9420 section 5.2).
    pub reference: Digest,
    /// Whether that was a last resort; a one-time package may be used once and must have been claimed.
    pub is_last_resort: bool,
}

/// Why a member goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemovalCause {
    /// It proposed to leave.
    Left,
    /// The gateway asked for it, with evidence that a member must see for itself ([`crate::removal_due`]).
    Asked,
    /// The committer removed it.
    Removed,
}

/// A member that a commit removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// Index of its leaf in the old epoch.
    pub leaf: u32,
    /// Who it was.
    pub uri: DeviceUri,
    /// Why it goes.
    pub cause: RemovalCause,
}

/// What a commit does, once it has passed every check.
#[derive(Clone, Debug)]
pub struct CommitSummary {
    /// The epoch that it makes.
    pub epoch: Epoch,
    /// Who committed, with the key that its leaf has afterwards: the one that signs the GroupInfo.
    pub committer: Seat,
    /// New members, in the order of their proposals.
    pub added: Vec<Added>,
    /// Members that go, in the order of their proposals.
    pub removed: Vec<Removed>,
    /// The leaf that the committer had before, if it came back by an external commit: it is neither added nor removed, and
    /// sits at `committer.leaf` now.
    pub rejoined_from: Option<u32>,
    /// Whether the committer renewed its leaf.
    pub updated: bool,
    /// The channel context of the new epoch.
    pub context: ChannelContext,
    /// Whether that differs from the old one.
    pub context_changed: bool,
    /// The members of the new epoch.
    pub roster: Roster,
}

/// Checks a commit that openmls has verified and staged, against the epoch `before` it. `named` is who the commit is said to
/// be from: the TLS caller at the gateway, the event's sender at a member.
///
/// Allowed by a member are Adds and context changes by the committer, Removes by the committer, Removes of themselves by those
/// who leave, Removes that the zone's removal key asked for, by reference, and the committer's own path. Every leaf that
/// enters or changes has a valid credential; a changed leaf keeps its
/// identity. In the group that results nobody sits twice, everybody's department is named, and only the channel context
/// has moved, forward. From outside the tree a commit is allowed only to come back: an ExternalInit, the Remove of the leaf
/// that `named` has, a new leaf with the same identity and key, and nothing else.
///
/// `as_of` says whether it is to enter the log or lies there already. What has come out since about certificates and keys that
/// counted when it entered does not undo it.
///
/// # Errors
/// [`ProfileError::SenderMismatch`], [`ProfileError::RejoinKey`], [`ProfileError::ProposalNotAllowed`],
/// [`ProfileError::InvalidCommit`],
/// [`ProfileError::InvalidContext`], [`ProfileError::InvalidKeyPackage`], [`ProfileError::DepartmentNotNamed`],
/// [`ProfileError::LimitReached`], and those of [`check_leaf`].
pub fn check_commit(
    federation: &Federation,
    crypto: &impl OpenMlsCrypto,
    staged: &StagedCommit,
    sender: &Sender,
    named: &DeviceUri,
    before: Before<'_>,
    as_of: AsOf,
) -> Result<CommitSummary, ProfileError> {
    if *sender == Sender::NewMemberCommit {
        return check_rejoin(federation, staged, named, before, as_of);
    }
    let mut committer = check_sender(before.roster, sender, named)?.clone();
    let context = check_change(federation, before.context, staged.group_context(), as_of)?;
    let mut roster = before.roster.clone();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for queued in staged.queued_proposals() {
        check_allowed(queued, &committer)?;
        if let Proposal::Remove(remove) = queued.proposal() {
            let seat = roster.remove(remove.removed().u32()).ok_or(fault("it removes a leaf that is not there"))?;
            let cause = match queued.sender() {
                asker if is_removal_sender(asker) => RemovalCause::Asked,
                proposer if proposer != sender => RemovalCause::Left,
                _ => RemovalCause::Removed,
            };
            removed.push(Removed { leaf: seat.leaf, uri: seat.uri, cause });
        }
    }
    let updated = check_path(federation, staged, &mut committer, &mut roster, as_of)?;
    for queued in staged.queued_proposals() {
        if let Proposal::Add(add) = queued.proposal() {
            let checked = check_added(federation, crypto, add.key_package(), as_of)?;
            let key = add.key_package().leaf_node().signature_key().as_slice().to_vec();
            let leaf = roster.add(checked.identity.uri.clone(), key);
            let Some(seat) = roster.at(leaf) else { return Err(fault("an added leaf has no place")) };
            added.push(Added {
                leaf,
                uri: seat.uri.clone(),
                reference: checked.reference,
                is_last_resort: checked.is_last_resort,
            });
        }
    }
    check_counts(&added)?;
    roster.check()?;
    roster.check_departments(&context)?;
    let context_changed = staged.group_context().extensions() != before.context.extensions();
    let epoch = Epoch(staged.group_context().epoch().as_u64());
    let rejoined_from = None;
    Ok(CommitSummary { epoch, committer, added, removed, rejoined_from, updated, context, context_changed, roster })
}

/// The member that `sender` is, if it is the one that `expected` names: the TLS caller at the gateway, the event's sender
/// at a member. Who comes from outside the tree must be said to be a member; that the leaf which signed is that member's
/// says [`check_commit`].
///
/// # Errors
/// [`ProfileError::SenderMismatch`] for another member or no member.
pub fn check_sender<'a>(roster: &'a Roster, sender: &Sender, expected: &DeviceUri) -> Result<&'a Seat, ProfileError> {
    let seat = match sender {
        Sender::Member(leaf) => roster.at(leaf.u32()),
        Sender::NewMemberCommit => roster.of(expected),
        Sender::External(_) | Sender::NewMemberProposal => None,
    };
    seat.filter(|seat| seat.uri == *expected).ok_or(ProfileError::SenderMismatch)
}

/// Checks a proposal that stands alone: members may propose their own removal and nothing else. Gives the one who leaves.
///
/// # Errors
/// [`ProfileError::ProposalNotAllowed`].
pub fn check_leave<'a>(queued: &QueuedProposal, roster: &'a Roster) -> Result<&'a Seat, ProfileError> {
    let not_allowed = ProfileError::ProposalNotAllowed { proposal: "only a removal of oneself may stand alone" };
    match (queued.proposal(), queued.sender()) {
        (Proposal::Remove(remove), Sender::Member(leaf)) if remove.removed() == *leaf => {
            roster.at(leaf.u32()).ok_or(not_allowed)
        }
        _ => Err(not_allowed),
    }
}

/// Kind and sender of one proposal in a commit by `committer`.
fn check_allowed(queued: &QueuedProposal, committer: &Seat) -> Result<(), ProfileError> {
    let by_committer = matches!(queued.sender(), Sender::Member(leaf) if leaf.u32() == committer.leaf);
    let proposal = match queued.proposal() {
        Proposal::Add(_) | Proposal::GroupContextExtensions(_) if by_committer => return Ok(()),
        Proposal::Remove(remove) => match queued.sender() {
            Sender::Member(leaf) if by_committer || remove.removed() == *leaf => return Ok(()),
            Sender::External(_) if is_asked(queued) => return Ok(()),
            _ => "a removal by another than the committer",
        },
        Proposal::Add(_) => "an addition by another than the committer",
        Proposal::GroupContextExtensions(_) => "a context change by another than the committer",
        Proposal::Update(_) => "update",
        Proposal::PreSharedKey(_) => "pre-shared key",
        Proposal::ReInit(_) => "reinit",
        Proposal::ExternalInit(_) => "external init by a member",
        Proposal::SelfRemove => "self remove",
        Proposal::Custom(_) => "custom",
    };
    Err(ProfileError::ProposalNotAllowed { proposal })
}

/// The committer's new leaf, if the commit has a path: valid as of then, same identity. Gives whether there is one.
fn check_path(
    federation: &Federation,
    staged: &StagedCommit,
    committer: &mut Seat,
    roster: &mut Roster,
    as_of: AsOf,
) -> Result<bool, ProfileError> {
    let Some(leaf) = staged.update_path_leaf_node() else { return Ok(false) };
    check_leaf_form(leaf)?;
    let key = leaf.signature_key().as_slice();
    let identity = check_leaf(federation, leaf.credential(), key, as_of.time, as_of.validity)?;
    if identity.uri != committer.uri {
        return Err(ProfileError::InvalidCredential { fault: "a leaf keeps its identity" });
    }
    committer.signature_key = key.to_vec();
    roster.rekey(committer.leaf, key.to_vec());
    Ok(true)
}

fn check_counts(added: &[Added]) -> Result<(), ProfileError> {
    let (found, limit) = (added.len(), LIMITS.invites_per_commit_max);
    if found > limit {
        return Err(ProfileError::LimitReached { what: "devices added by one commit", limit, found });
    }
    Ok(())
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidCommit { fault }
}
