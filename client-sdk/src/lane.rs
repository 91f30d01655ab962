//! One channel's way to the gateway: which stored message may be handed to the Send stream next, and what an answer means.
//! Pure: no storage, no network. PROTOCOL 6: after a refusal that may be tried again the gateway holds back everything
//! later of the channel until the refused message comes again, so the lane waits for all answers and starts over there.

use std::collections::VecDeque;
use std::time::Duration;

use lianxin_connection::{Problem, ReasonCode, Receipt};
use lianxin_types::{IdempotencyId, Monotonic};

use crate::proofs::GIVEN_WITHIN;

/// State of one channel on one connection.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Outbox position of the last message handed over.
    handed: u64,
    /// Handed over and not answered, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Rises with each epoch; answers to messages of an older one say nothing about the present.
    generation: u64,
    /// Start over from the first stored message once everything is answered.
    start_over: bool,
    /// The message handed over first since then.
    first: Option<IdempotencyId>,
    wait: Wait,
    /// Refusals in a row, for the delay.
    refusals: u32,
    /// The gateway has said that this device is no member.
    is_disputed: bool,
    /// Nothing is handed over before the backlog is read: most of it would be refused.
    caught_up: bool,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    id: IdempotencyId,
    generation: u64,
    /// Handed over when the gateway had said that this device is no member, and the log had had the time to tell why.
    is_last_attempt: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wait {
    #[default]
    No,
    /// The group must move on first. If the log never tells that it has, the gateway is asked again.
    ForEpoch(Monotonic),
    /// The next message cannot be encrypted yet.
    ToEncrypt,
    /// The log may tell why this device is no member.
    ForReason(Monotonic),
    /// Something at the gateway must pass.
    Until(Monotonic),
}

/// What an answer means for its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In the log; the echo will settle it.
    Accepted(Receipt),
    /// In the log already, by an answer that was lost.
    AcceptedBefore,
    /// Not accepted; it goes again by itself.
    Again,
    /// Not accepted; it goes again once the proposals that wait are committed.
    CommitFirst,
    /// Not accepted, and nothing of the channel will be on this stream: the gateway waits for a refused message to come again that
    /// is stored no more, because the device left or came in anew in between.
    HeldBack,
    /// Not accepted, and never will be.
    Failed(Problem),
    /// An answer that nobody waits for.
    Unexpected,
}

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_DOUBLINGS_MAX: u32 = 6;
/// The log has told by then why this device is no member, if it does: of its removal, or of a group that carries the channel on.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(10);

impl Lane {
    /// Behind which outbox position the next messages may be read; `None` while nothing may be handed over.
    pub(crate) fn next(&mut self, now: Monotonic) -> Option<u64> {
        if let Wait::Until(moment) | Wait::ForReason(moment) | Wait::ForEpoch(moment) = self.wait
            && now >= moment
        {
            self.wait = Wait::No;
        }
        if self.start_over && self.in_flight.is_empty() {
            self.start_over = false;
            self.first = None;
            self.handed = 0;
        }
        (self.caught_up && !self.start_over && self.wait == Wait::No).then_some(self.handed)
    }

    /// Whether what is stored must be looked at again once everything is answered.
    pub(crate) const fn is_starting_over(&self) -> bool {
        self.start_over
    }

    /// When waiting ends by itself.
    pub(crate) const fn wakes(&self) -> Option<Monotonic> {
        match self.wait {
            Wait::Until(moment) | Wait::ForReason(moment) | Wait::ForEpoch(moment) => Some(moment),
            Wait::No | Wait::ToEncrypt => None,
        }
    }

    /// A message went to the stream.
    pub(crate) fn handed(&mut self, position: u64, id: IdempotencyId) {
        self.handed = position;
        self.first.get_or_insert(id);
        self.in_flight.push_back(InFlight { id, generation: self.generation, is_last_attempt: self.is_disputed });
    }

    /// A message needs nothing more from the stream.
    pub(crate) fn passed(&mut self, position: u64) {
        self.handed = position;
    }

    /// The next message cannot be encrypted yet.
    pub(crate) fn wait_to_encrypt(&mut self) {
        self.wait = Wait::ToEncrypt;
    }

    /// What kept the next message from being encrypted may have passed.
    pub(crate) fn may_encrypt(&mut self) {
        if self.wait == Wait::ToEncrypt {
            self.wait = Wait::No;
        }
    }

    /// The backlog of the channel has been read.
    pub(crate) fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// Whether it has, on this connection.
    pub(crate) const fn has_caught_up(&self) -> bool {
        self.caught_up
    }

    /// What is stored is to be looked at again from the first on, once everything is answered.
    pub(crate) fn start_over(&mut self) {
        self.start_over = true;
    }

    /// The epoch changed: what is stored has been encrypted again.
    pub(crate) fn epoch_changed(&mut self) {
        self.generation += 1;
        self.start_over = true;
        self.is_disputed = false;
        if !matches!(self.wait, Wait::Until(_)) {
            self.wait = Wait::No;
        }
    }

    /// The gateway answered a message of this channel.
    pub(crate) fn answered(&mut self, id: IdempotencyId, result: Result<Receipt, Problem>, now: Monotonic) -> Verdict {
        // Answers of one channel come in the order of its messages.
        let Some(index) = self.in_flight.iter().position(|sent| sent.id == id) else { return Verdict::Unexpected };
        let Some(sent) = self.in_flight.remove(index) else { return Verdict::Unexpected };
        let problem = match result {
            Ok(receipt) => {
                self.refusals = 0;
                self.is_disputed = false;
                return Verdict::Accepted(receipt);
            }
            Err(problem) => problem,
        };
        let current = sent.generation == self.generation;
        match problem.code {
            ReasonCode::Duplicate => Verdict::AcceptedBefore,
            ReasonCode::BehindRefused if self.first == Some(id) => Verdict::HeldBack,
            ReasonCode::BehindRefused => {
                self.start_over = true;
                Verdict::Again
            }
            ReasonCode::WrongEpoch | ReasonCode::PendingRemoves => {
                self.start_over = true;
                if current {
                    self.wait = Wait::ForEpoch(now.plus(GIVEN_WITHIN));
                }
                if problem.code == ReasonCode::PendingRemoves { Verdict::CommitFirst } else { Verdict::Again }
            }
            // A ciphertext of an epoch that has passed cannot be judged by its head either; and who has no seat in the group that
            // carries the channel on, yet, is no member.
            ReasonCode::BadHead | ReasonCode::NotMember if !current => {
                self.start_over = true;
                Verdict::Again
            }
            // A commit that is in order for this device may have broken the group for others, who carry the channel on in another;
            // the gateway knows before the log has told.
            ReasonCode::NotMember if !sent.is_last_attempt => {
                self.start_over = true;
                self.is_disputed = true;
                if !matches!(self.wait, Wait::ForReason(_)) {
                    self.wait = Wait::ForReason(now.plus(TOLD_WITHIN));
                }
                Verdict::Again
            }
            _ if problem.try_again => {
                self.start_over = true;
                self.delay(now);
                Verdict::Again
            }
            _ => Verdict::Failed(problem),
        }
    }

    fn delay(&mut self, now: Monotonic) {
        if self.wait == Wait::No {
            let delay = DELAY_MIN * 2_u32.pow(self.refusals.min(DELAY_DOUBLINGS_MAX));
            self.refusals += 1;
            self.wait = Wait::Until(now.plus(delay));
        }
    }
}

#[cfg(test)]
mod tests {
    use lianxin_types::{Digest, Sequence, Timestamp};

    use super::*;

    const NOW: Monotonic = Monotonic(1_000_000);

    fn id(number: u8) -> IdempotencyId {
        IdempotencyId([number; 16])
    }

    fn receipt() -> Receipt {
        Receipt {
            sequence: Sequence(1),
            gateway_time: Timestamp(2),
            expiry: None,
            policy_version: 0,
            leaf_index: 3,
            leaf_hash: Digest([4; 32]),
            chain_hash: Some(Digest([5; 32])),
        }
    }

    fn refused(code: ReasonCode) -> Result<Receipt, Problem> {
        Err(Problem::new(code))
    }

    /// A lane with messages 1, 2, 3 in flight.
    fn three_in_flight() -> Lane {
        let mut lane = Lane::default();
        assert_eq!(lane.next(NOW), None, "nothing goes before the backlog is read");
        lane.caught_up();
        for number in 1..=3 {
            assert_eq!(lane.next(NOW), Some(u64::from(number) - 1));
            lane.handed(number.into(), id(number));
        }
        lane
    }

    #[test]
    fn a_wrong_epoch_holds_everything_until_the_group_has_moved() {
        let mut lane = three_in_flight();
        assert_eq!(lane.answered(id(1), refused(ReasonCode::WrongEpoch), NOW), Verdict::Again);
        assert_eq!(lane.answered(id(2), refused(ReasonCode::BehindRefused), NOW), Verdict::Again);
        lane.epoch_changed();
        assert_eq!(lane.next(NOW), None, "one answer is missing: it would count against the new round");
        assert_eq!(lane.answered(id(3), refused(ReasonCode::BehindRefused), NOW), Verdict::Again);
        assert_eq!(lane.next(NOW), Some(0), "all go again from the first, encrypted for the new epoch");
    }

    /// The same, all refused because the group has moved.
    fn three_held() -> Lane {
        let mut lane = three_in_flight();
        for number in 1..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::WrongEpoch), NOW), Verdict::Again);
        }
        lane
    }

    #[test]
    fn without_an_epoch_change_a_wrong_epoch_waits() {
        let mut lane = three_in_flight();
        for number in 1..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::WrongEpoch), NOW), Verdict::Again);
        }
        let late = NOW.plus(GIVEN_WITHIN);
        assert_eq!((lane.next(NOW.plus(GIVEN_WITHIN - Duration::from_millis(1))), lane.wakes()), (None, Some(late)));
        assert_eq!(lane.next(late), Some(0), "not for ever");
        assert_eq!(three_held().next(NOW), None);
        let mut lane = three_held();
        lane.epoch_changed();
        assert_eq!(lane.next(NOW), Some(0));
    }

    #[test]
    fn a_late_wrong_epoch_of_an_older_ciphertext_does_not_hold_the_new_ones() {
        let mut lane = three_in_flight();
        lane.epoch_changed();
        for number in 1..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::WrongEpoch), NOW), Verdict::Again);
        }
        assert_eq!(lane.next(NOW), Some(0));
    }

    #[test]
    fn a_full_gateway_is_asked_again_after_a_growing_delay() {
        let mut lane = Lane::default();
        lane.caught_up();
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert_eq!(lane.next(NOW), Some(0));
            lane.handed(1, id(1));
            let mut problem = Problem::new(ReasonCode::ZoneUnavailable);
            problem.try_again = true;
            assert_eq!(lane.answered(id(1), Err(problem), NOW), Verdict::Again);
            assert_eq!(lane.next(NOW), None);
            let wakes = lane.wakes().expect("a delay");
            delays.push(wakes.since(NOW).as_millis());
            assert_eq!(lane.next(wakes), Some(0));
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 6400, 6400]);
    }

    #[test]
    fn a_final_refusal_fails_one_message_and_the_others_go_on() {
        let mut lane = three_in_flight();
        let problem = Problem::new(ReasonCode::ChannelExpired);
        assert_eq!(lane.answered(id(1), Err(problem.clone()), NOW), Verdict::Failed(problem));
        assert_eq!(lane.answered(id(2), Ok(receipt()), NOW), Verdict::Accepted(receipt()));
        assert_eq!(lane.next(NOW), Some(3));
    }

    #[test]
    fn what_was_accepted_before_is_not_sent_again() {
        let mut lane = three_in_flight();
        assert_eq!(lane.answered(id(1), refused(ReasonCode::Duplicate), NOW), Verdict::AcceptedBefore);
        assert_eq!(lane.answered(id(1), Ok(receipt()), NOW), Verdict::Unexpected, "one answer per message");
        assert_eq!(lane.next(NOW), Some(3));
    }

    #[test]
    fn a_channel_that_is_held_back_for_a_message_that_is_stored_no_more_needs_another_stream() {
        let mut lane = three_in_flight();
        assert_eq!(lane.answered(id(1), refused(ReasonCode::WrongEpoch), NOW), Verdict::Again);
        for number in 2..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::BehindRefused), NOW), Verdict::Again);
        }
        // The device came in anew: what was stored is given up, and the gateway does not know.
        lane.epoch_changed();
        for number in 4..=5 {
            assert!(lane.next(NOW).is_some());
            lane.handed(number.into(), id(number));
        }
        assert_eq!(lane.answered(id(4), refused(ReasonCode::BehindRefused), NOW), Verdict::HeldBack);
        assert_eq!(lane.answered(id(5), refused(ReasonCode::BehindRefused), NOW), Verdict::Again);
        // So it is also if it is a lane of its own.
        let mut lane = Lane::default();
        lane.handed(4, id(4));
        assert_eq!(lane.answered(id(4), refused(ReasonCode::BehindRefused), NOW), Verdict::HeldBack);
    }

    #[test]
    fn who_is_said_to_be_no_member_asks_again_when_the_log_has_had_the_time_to_tell_why() {
        let mut lane = three_in_flight();
        for number in 1..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::NotMember), NOW), Verdict::Again);
        }
        assert_eq!(lane.next(NOW), None);
        let wakes = lane.wakes().expect("not for ever");
        assert_eq!(wakes, NOW.plus(TOLD_WITHIN));
        // It has told nothing: this is final.
        assert_eq!(lane.next(wakes), Some(0));
        lane.handed(1, id(1));
        lane.handed(2, id(2));
        for number in 1..=2 {
            let problem = Problem::new(ReasonCode::NotMember);
            assert_eq!(lane.answered(id(number), Err(problem.clone()), wakes), Verdict::Failed(problem));
        }
        assert_eq!(lane.next(wakes), Some(2), "what comes next is judged for itself");
    }

    #[test]
    fn who_is_seated_in_another_group_sends_there_what_the_gateway_would_not_have_before() {
        let mut lane = three_in_flight();
        assert_eq!(lane.answered(id(1), refused(ReasonCode::NotMember), NOW), Verdict::Again);
        lane.epoch_changed();
        for number in 2..=3 {
            assert_eq!(lane.answered(id(number), refused(ReasonCode::NotMember), NOW), Verdict::Again);
        }
        assert_eq!(lane.next(NOW), Some(0), "without delay");
        lane.handed(1, id(1));
        assert_eq!(
            lane.answered(id(1), refused(ReasonCode::NotMember), NOW),
            Verdict::Again,
            "the next group, too, may end"
        );
        let wakes = lane.wakes().expect("a moment");
        assert_eq!(lane.next(wakes), Some(0));
        lane.handed(1, id(1));
        assert_eq!(lane.answered(id(1), Ok(receipt()), wakes), Verdict::Accepted(receipt()));
        lane.handed(2, id(2));
        let answer = lane.answered(id(2), refused(ReasonCode::NotMember), wakes);
        assert_eq!(answer, Verdict::Again, "it has been a member in between");
    }

    #[test]
    fn pending_proposals_are_committed_first() {
        let mut lane = three_in_flight();
        assert_eq!(lane.answered(id(1), refused(ReasonCode::PendingRemoves), NOW), Verdict::CommitFirst);
        assert_eq!(lane.next(NOW), None);
    }
}
