//! When a change that the gateway refused is made anew. Pure: no storage, no network.

use std::time::Duration;

use lianxin_connection::{Problem, ReasonCode};
use lianxin_types::Sequence;

/// From so many refusals in one epoch on it takes somebody to mend what is wrong. Members take turns, so it need not be this device
/// that commits what waits; but what only it can commit is tried for as long as it takes.
const SLOW_FROM: u32 = 20;
const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(30);
const SLOW_MAX: Duration = Duration::from_secs(900);

/// Whether a change was refused only because the log has moved on: what it missed is read, and the change is made on top.
pub(crate) const fn is_overtaken(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::WrongEpoch | ReasonCode::PendingRemoves | ReasonCode::BadHead)
}

/// Whether the log holds what a refused change missed: then the next attempt before that is read would be refused, too.
pub(crate) fn is_to_be_read_first(problem: &Problem, head: Sequence) -> bool {
    is_overtaken(problem.code) && head < problem.sequence
}

/// How many refusals one more makes. That this device is paused is not mended by trying.
pub(crate) fn one_more(refusals: u32, code: ReasonCode) -> u32 {
    let more = refusals.saturating_add(1);
    if code == ReasonCode::CommitterPaused { more.max(SLOW_FROM) } else { more }
}

/// Whether only time can help.
pub(crate) const fn is_slow(refusals: u32) -> bool {
    refusals >= SLOW_FROM
}

/// How long after the `refusals`th refusal in one epoch the next own commit comes; slow ones are spread at random.
pub(crate) fn delay_after_refusal(refusals: u32, random: u8) -> Duration {
    if !is_slow(refusals) {
        let doublings = refusals.saturating_sub(1).min(16);
        return (DELAY_MIN * 2_u32.pow(doublings)).min(DELAY_MAX);
    }
    let full = (DELAY_MAX * 2_u32.pow((refusals - SLOW_FROM).min(16))).min(SLOW_MAX);
    full / 2 + full * u32::from(random) / (2 * u32::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_missed_a_proposal_waits_until_that_is_read() {
        let problem = Problem::new(ReasonCode::PendingRemoves).with_sequence(Sequence(7));
        assert!(is_overtaken(problem.code));
        assert!(is_to_be_read_first(&problem, Sequence(6)));
        assert!(!is_to_be_read_first(&problem, Sequence(7)));
        let other = Problem::new(ReasonCode::InvalidCommit).with_sequence(Sequence(7));
        assert!(!is_overtaken(other.code) && !is_to_be_read_first(&other, Sequence(6)));
    }

    #[test]
    fn refused_again_and_again_it_comes_later_and_later_and_goes_on_for_ever() {
        let delays: Vec<_> = (1..20).map(|refusals| delay_after_refusal(refusals, 0).as_millis()).collect();
        assert_eq!(delays[..5], [200, 400, 800, 1600, 3200]);
        assert_eq!(delays[8..], [30_000; 11]);
        let slow = |random| [20, 21, 25, u32::MAX].map(|refusals| delay_after_refusal(refusals, random).as_secs());
        assert_eq!((slow(0), slow(255)), ([15, 30, 450, 450], [30, 60, 900, 900]));
    }

    #[test]
    fn who_is_paused_tries_slowly_from_the_first_on() {
        assert_eq!(one_more(0, ReasonCode::InvalidCommit), 1);
        assert_eq!(one_more(0, ReasonCode::CommitterPaused), 20);
        assert_eq!(one_more(22, ReasonCode::CommitterPaused), 23);
        assert_eq!(one_more(u32::MAX, ReasonCode::InvalidCommit), u32::MAX);
        assert!(is_slow(20) && !is_slow(19));
    }
}
