//! What the network does to what is sent, and how often.

use std::time::Duration;

use crate::chance::Chance;

/// How bad it is, in thousandths of calls and frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Calls whose request is lost.
    pub(crate) requests_lost: u32,
    /// Calls that are done and whose answer is lost.
    pub(crate) replies_lost: u32,
    /// Calls that arrive twice.
    pub(crate) repeated: u32,
    /// Frames of a stream at which the line is cut.
    pub(crate) cuts: u32,
    /// Frames and calls that come late: by seconds instead of milliseconds.
    pub(crate) late: u32,
}

impl Weather {
    /// Nothing but milliseconds of delay.
    pub(crate) const CLEAR: Self = Self { requests_lost: 0, replies_lost: 0, repeated: 0, cuts: 0, late: 0 };

    /// One kind of weather out of mild to rough.
    pub(crate) fn any(chance: &Chance) -> Self {
        let up_to = |most: usize| u32::try_from(chance.below(most)).unwrap_or_default();
        Self {
            requests_lost: up_to(80),
            replies_lost: up_to(120),
            repeated: up_to(120),
            cuts: up_to(40),
            late: up_to(60),
        }
    }

    pub(crate) fn delay(&self, chance: &Chance) -> Duration {
        if chance.happens(self.late) { chance.millis(1_000..20_000) } else { chance.millis(1..60) }
    }

    pub(crate) fn fate(&self, chance: &Chance) -> Fate {
        if chance.happens(self.requests_lost) {
            Fate::RequestLost(Loss::any(chance))
        } else if chance.happens(self.replies_lost) {
            Fate::ReplyLost(Loss::any(chance))
        } else if chance.happens(self.repeated) {
            Fate::Repeated
        } else {
            Fate::Delivered
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    RequestLost(Loss),
    ReplyLost(Loss),
    /// It arrives again, later; the answer is that of either.
    Repeated,
}

/// How the caller learns that something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The line breaks.
    Broken,
    /// The call fails, the line goes on.
    Failed,
    /// Not at all: there is no answer.
    Silent,
}

impl Loss {
    fn any(chance: &Chance) -> Self {
        *chance.pick(&[Self::Broken, Self::Broken, Self::Failed, Self::Silent])
    }
}
