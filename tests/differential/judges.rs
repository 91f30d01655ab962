//! Both judges side by side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lianxin_delivery::GroupState;
use lianxin_specimens::office;
use lianxin_store::StoredEvent;
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, Digest, IdempotencyId, Timestamp};
use tls_codec::Serialize as _;

use crate::second::{Second, Seen};

/// Which call a handshake comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A member's commit.
    Commit,
    /// A commit from outside the group, by which a member comes back.
    Rejoin,
    /// A member's proposal to leave.
    Proposal,
    /// A Remove that the gateway asks for.
    Removal,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Commit, Self::Rejoin, Self::Proposal, Self::Removal];

    /// The kind of which `word` is the name.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| format!("{kind:?}") == word)
    }
}

/// A handshake, who sends it, and when.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    pub(crate) kind: Kind,
    pub(crate) caller: DeviceUri,
    pub(crate) bytes: Vec<u8>,
    pub(crate) now: Timestamp,
}

/// What the two say of one handshake: nothing, or why not.
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) first: Result<(), String>,
    pub(crate) second: Result<(), String>,
}

pub(crate) struct Judges {
    federation: Arc<Federation>,
    first: GroupState,
    second: Second,
}

impl Judges {
    pub(crate) fn start(federation: &Arc<Federation>, info: &[u8], tree: &[u8], now: Timestamp) -> Self {
        let (first, _) = GroupState::start(federation, info, tree, now).expect("ours takes the start");
        let second = Second::start(federation, info, tree, now).expect("mls-rs takes the start");
        let judges = Self { federation: Arc::clone(federation), first, second };
        judges.compare(None);
        judges
    }

    /// Both know what the federation has become.
    pub(crate) fn learn(&mut self, federation: &Arc<Federation>) {
        self.federation = Arc::clone(federation);
        self.second.learn(federation);
    }

    /// Asks both; changes nothing.
    pub(crate) fn judge(&self, handshake: &Handshake) -> Verdicts {
        Verdicts { first: self.first(handshake).map(drop), second: self.second(handshake).map(drop) }
    }

    /// Both accept the handshake, and are compared afterwards, also with what the committer says of the new epoch.
    pub(crate) fn accept(&mut self, handshake: &Handshake, committers_context: Option<&[u8]>) {
        let replayed = self.replay(handshake);
        self.first =
            self.first(handshake).unwrap_or_else(|error| panic!("ours refuses an honest {handshake:?}: {error}"));
        self.second =
            self.second(handshake).unwrap_or_else(|error| panic!("mls-rs refuses an honest {handshake:?}: {error}"));
        self.compare(committers_context);
        assert_eq!(seen(&replayed), seen(&self.first), "a replay of {handshake:?} makes another state");
    }

    /// The state that ours makes of the handshake once it is in the log, when everything by which it was judged has gone.
    fn replay(&self, handshake: &Handshake) -> GroupState {
        let Handshake { kind, caller, bytes, now } = handshake;
        let kind = match kind {
            Kind::Commit | Kind::Rejoin => EventKind::Commit,
            Kind::Proposal | Kind::Removal => EventKind::Proposal,
        };
        let event = StoredEvent {
            channel: self.first.context().channel(),
            head: Head { sequence: self.first.sequence().next(), chain_hash: Digest::ZERO },
            kind,
            sender: caller.clone(),
            gateway_time: *now,
            expiry: None,
            label_reference: Digest::ZERO,
            mls: bytes.clone().into(),
            leaf_index: 0,
            leaf_hash: Digest::ZERO,
            idempotency_id: IdempotencyId([0; 16]),
        };
        let replayed = self.first.replay(office().long_after(), &event);
        let replayed =
            replayed.unwrap_or_else(|error| panic!("the log cannot be read any more: {error}: {handshake:?}"));
        replayed.expect("a handshake makes a state")
    }

    fn compare(&self, committers_context: Option<&[u8]>) {
        let first = seen(&self.first);
        assert_eq!(first, self.second.seen(), "the two have come apart");
        if let Some(context) = committers_context {
            assert_eq!(hex::encode(context), hex::encode(first.context), "the committer has another group context");
        }
    }

    /// A judge that panics has not judged: that is a finding of its own.
    fn first(&self, handshake: &Handshake) -> Result<GroupState, String> {
        let Handshake { kind, caller, bytes, now } = handshake;
        let judged = catch_unwind(AssertUnwindSafe(|| match kind {
            Kind::Commit | Kind::Rejoin => {
                let verified = self.first.verify_commit(&self.federation, caller, bytes, *now);
                verified.map(|verified| verified.next).map_err(text)
            }
            Kind::Proposal => self.first.verify_leave(caller, bytes).map(|verified| verified.next).map_err(text),
            Kind::Removal => self.first.verify_removal(bytes).map_err(text),
        }));
        judged.unwrap_or_else(|_| Err("PANIC".to_owned()))
    }

    fn second(&self, handshake: &Handshake) -> Result<Second, String> {
        let judged = catch_unwind(AssertUnwindSafe(|| self.second.judge(&handshake.bytes, handshake.now)));
        judged.unwrap_or_else(|_| Err("PANIC".to_owned()))
    }
}

fn seen(state: &GroupState) -> Seen {
    let members = state.roster().seats().map(|seat| (seat.leaf, seat.signature_key.clone()));
    Seen {
        epoch: state.epoch().0,
        tree: state.tree().expect("a tree that it holds").to_vec(),
        context: state.group_context().tls_serialize_detached().expect("a context that it holds"),
        members: members.collect(),
    }
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
