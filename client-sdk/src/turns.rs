//! When a change that the gateway refused is made anew. Pure: no storage, no network.

use std::time::Duration;

use lianxin_connection::{Problem, ReasonCode};
use lianxin_types::Sequence;

/// How often the commit of what waits is made in one epoch. Members take turns, so it need not be this device.
const REFUSALS_MAX: u32 = 20;
const DELAY_MIN: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// Whether a change was refused only because the log has moved on: what it missed is read, and the change is made on top.
pub(crate) const fn is_overtaken(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::WrongEpoch | ReasonCode::PendingRemoves | ReasonCode::BadHead)
}

/// Whether the log holds what a refused change missed: then the next attempt before that is read would be refused, too.
pub(crate) fn is_to_be_read_first(problem: &Problem, head: Sequence) -> bool {
    is_overtaken(problem.code) && head < problem.sequence
}

/// How long after the `refusals`th refusal in one epoch the next own commit comes; `None` when there were too many.
pub(crate) fn delay_after_refusal(refusals: u32) -> Option<Duration> {
    let doublings = refusals.saturating_sub(1).min(16);
    (refusals < REFUSALS_MAX).then(|| (DELAY_MIN * 2_u32.pow(doublings)).min(DELAY_MAX))
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
    fn refused_again_and_again_it_comes_later_and_later_and_ends() {
        let delays: Vec<_> = (1..).map_while(delay_after_refusal).map(|delay| delay.as_millis()).collect();
        assert_eq!(delays.len(), 19);
        assert_eq!(delays[..5], [200, 400, 800, 1600, 3200]);
        assert_eq!(delays[8..], [30_000; 11]);
    }
}
