//! What the gateway's own word proves of a channel's log: a receipt says what stands where in it, and a refusal because the log has gone
//! on says how far it goes. It outlives a connection. What is proven and not given is asked for again on another connection, and then
//! told. Pure: no storage, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use lianxin_connection::{LogEntry, Receipt};
use lianxin_types::{ChannelId, IdempotencyId, Monotonic, Sequence};

/// Within so long the log goes on towards what is proven of it.
pub(crate) const GIVEN_WITHIN: Duration = Duration::from_secs(30);

/// What is proven of the log of each channel and was not given yet.
#[derive(Debug, Default)]
pub(crate) struct Proofs(BTreeMap<ChannelId, Proof>);

#[derive(Debug)]
struct Proof {
    /// The log goes as far as this.
    last: Sequence,
    /// What stands where.
    receipts: BTreeMap<Sequence, (IdempotencyId, Receipt)>,
    /// Until then something more of the log is to come.
    moment: Monotonic,
    /// How far it went when the connection began.
    carried: Sequence,
    /// On how many connections it was kept back.
    times: u32,
}

/// What to do about a channel whose log is kept back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// To ask for it on another connection.
    AskAnew,
    /// To tell the application: this was accepted, or the log goes as far as this.
    Tell(Sequence, Option<(IdempotencyId, Receipt)>),
}

impl Proofs {
    fn proof(&mut self, channel: ChannelId, now: Monotonic) -> &mut Proof {
        self.0.entry(channel).or_insert_with(|| Proof {
            last: Sequence(0),
            receipts: BTreeMap::new(),
            moment: now.plus(GIVEN_WITHIN),
            carried: Sequence(0),
            times: 0,
        })
    }

    /// The gateway has accepted something, and the own head is in front of it.
    pub(crate) fn accepted(&mut self, channel: ChannelId, id: IdempotencyId, receipt: Receipt, now: Monotonic) {
        let proof = self.proof(channel, now);
        proof.last = proof.last.max(receipt.sequence);
        proof.receipts.insert(receipt.sequence, (id, receipt));
    }

    /// The gateway has refused something because the log goes further than the own head.
    pub(crate) fn goes_to(&mut self, channel: ChannelId, sequence: Sequence, now: Monotonic) {
        let proof = self.proof(channel, now);
        proof.last = proof.last.max(sequence);
    }

    /// The receipt that an event of the log gives the lie to.
    pub(crate) fn contradicted(&self, event: &LogEntry) -> Option<Receipt> {
        let receipts = &self.0.get(&event.channel)?.receipts;
        let at_its_place = receipts.get(&event.sequence).filter(|(id, receipt)| {
            *id != event.idempotency_id
                || receipt.leaf_hash != event.leaf_hash
                || receipt.leaf_index != event.leaf_index
                || receipt.gateway_time != event.gateway_time
        });
        let mut elsewhere =
            receipts.iter().filter(|(sequence, (id, _))| **sequence != event.sequence && *id == event.idempotency_id);
        at_its_place.or_else(|| elsewhere.next().map(|(_, found)| found)).map(|(_, receipt)| *receipt)
    }

    /// The log was read as far as `head`.
    pub(crate) fn given(&mut self, channel: ChannelId, head: Sequence, now: Monotonic) {
        let Some(proof) = self.0.get_mut(&channel) else { return };
        if proof.last <= head {
            self.0.remove(&channel);
            return;
        }
        proof.receipts.retain(|sequence, _| *sequence > head);
        proof.moment = now.plus(GIVEN_WITHIN);
    }

    /// Another group, or another part of the log, is read from now on.
    pub(crate) fn forget(&mut self, channel: ChannelId) {
        self.0.remove(&channel);
    }

    /// A connection begins: everything is asked for again.
    pub(crate) fn begin(&mut self, now: Monotonic) {
        for proof in self.0.values_mut() {
            (proof.carried, proof.moment) = (proof.last, now.plus(GIVEN_WITHIN));
        }
    }

    /// A backlog is being read: other channels' turn comes later.
    pub(crate) fn wait_for(&mut self, channel: ChannelId, now: Monotonic) {
        if let Some(proof) = self.0.get_mut(&channel) {
            proof.moment = now.plus(GIVEN_WITHIN);
        }
    }

    /// When the first of them is due.
    pub(crate) fn next(&self) -> Option<Monotonic> {
        self.0.values().map(|proof| proof.moment).min()
    }

    /// Channels that are due.
    pub(crate) fn due(&self, now: Monotonic) -> Vec<ChannelId> {
        self.0.iter().filter(|(_, proof)| proof.moment <= now).map(|(channel, _)| *channel).collect()
    }

    /// The gateway says that there is no more behind `sequence`; whether it had proven that there is before it was asked.
    pub(crate) fn is_cut_short(&self, channel: ChannelId, sequence: Sequence) -> bool {
        self.0.get(&channel).is_some_and(|proof| sequence < proof.carried)
    }

    /// What is proven of a channel is kept back: the first time it may be the connection's fault.
    pub(crate) fn withheld(&mut self, channel: ChannelId) -> Option<Withheld> {
        let proof = self.0.get_mut(&channel)?;
        proof.times += 1;
        if proof.times == 1 {
            return Some(Withheld::AskAnew);
        }
        let proof = self.0.remove(&channel)?;
        let first = proof.receipts.into_iter().next();
        let sequence = first.as_ref().map_or(proof.last, |(sequence, _)| *sequence);
        Some(Withheld::Tell(sequence, first.map(|(_, found)| found)))
    }
}

#[cfg(test)]
mod tests {
    use lianxin_tlog::EventKind;
    use lianxin_types::{Digest, Timestamp};

    use super::*;

    const NOW: Monotonic = Monotonic(1_000_000);
    const CHANNEL: ChannelId = ChannelId([1; 16]);
    const ID: IdempotencyId = IdempotencyId([2; 16]);

    fn receipt(sequence: u64) -> Receipt {
        Receipt {
            sequence: Sequence(sequence),
            gateway_time: Timestamp(2),
            expiry: None,
            policy_version: 0,
            leaf_index: 3,
            leaf_hash: Digest([4; 32]),
            chain_hash: Some(Digest([5; 32])),
        }
    }

    fn echo(sequence: u64) -> LogEntry {
        LogEntry {
            channel: CHANNEL,
            sequence: Sequence(sequence),
            kind: EventKind::Application,
            sender: "lianxin://a/app/b/c".parse().expect("well formed"),
            gateway_time: Timestamp(2),
            expiry: None,
            label_reference: Digest::ZERO,
            mls: vec![].into(),
            leaf_index: 3,
            leaf_hash: Digest([4; 32]),
            idempotency_id: ID,
        }
    }

    fn proofs() -> Proofs {
        let mut proofs = Proofs::default();
        proofs.accepted(CHANNEL, ID, receipt(7), NOW);
        proofs
    }

    #[test]
    fn what_is_given_in_time_is_forgotten() {
        let mut proofs = proofs();
        let late = NOW.plus(GIVEN_WITHIN);
        assert_eq!((proofs.next(), proofs.due(NOW).len(), proofs.due(late)), (Some(late), 0, vec![CHANNEL]));
        proofs.given(CHANNEL, Sequence(6), late);
        assert!(proofs.due(late).is_empty(), "it is on its way");
        proofs.given(CHANNEL, Sequence(7), late);
        assert_eq!((proofs.next(), proofs.withheld(CHANNEL)), (None, None));
    }

    #[test]
    fn what_is_kept_back_is_asked_for_once_more_and_then_told() {
        let mut proofs = proofs();
        proofs.goes_to(CHANNEL, Sequence(9), NOW);
        assert!(!proofs.is_cut_short(CHANNEL, Sequence(6)), "it may have been accepted since the question");
        assert_eq!(proofs.withheld(CHANNEL), Some(Withheld::AskAnew));
        proofs.begin(NOW);
        assert!(proofs.is_cut_short(CHANNEL, Sequence(8)) && !proofs.is_cut_short(CHANNEL, Sequence(9)));
        assert_eq!(proofs.withheld(CHANNEL), Some(Withheld::Tell(Sequence(7), Some((ID, receipt(7))))));
        assert_eq!(proofs.withheld(CHANNEL), None, "told once");
        proofs.goes_to(CHANNEL, Sequence(9), NOW);
        proofs.withheld(CHANNEL);
        assert_eq!(proofs.withheld(CHANNEL), Some(Withheld::Tell(Sequence(9), None)));
    }

    #[test]
    fn an_echo_that_is_not_what_the_receipt_says_gives_it_the_lie() {
        let proofs = proofs();
        assert_eq!(proofs.contradicted(&echo(7)), None);
        assert_eq!(proofs.contradicted(&echo(6)), Some(receipt(7)), "it stands elsewhere");
        let other = [
            LogEntry { idempotency_id: IdempotencyId([9; 16]), ..echo(7) },
            LogEntry { leaf_hash: Digest([9; 32]), ..echo(7) },
            LogEntry { leaf_index: 9, ..echo(7) },
            LogEntry { gateway_time: Timestamp(9), ..echo(7) },
        ];
        for event in other {
            assert_eq!(proofs.contradicted(&event), Some(receipt(7)), "{event:?}");
        }
        let strange = LogEntry { idempotency_id: IdempotencyId([9; 16]), ..echo(6) };
        assert_eq!(proofs.contradicted(&strange), None, "nothing is known of it");
    }
}
