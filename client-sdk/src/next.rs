//! What a connection in use looks at next. Frames and the rest go in turns and not at random, so that a simulation goes the same way
//! again; and neither keeps the other waiting: a backlog that is read, or an application that sends without end.

use std::future::Future;

use lianxin_connection::{CallError, Frame, SendOutcome};

use crate::calls::CallDone;

/// What is to be looked at.
pub(crate) enum Next {
    Frame(Result<Frame, CallError>),
    Outcome(Result<SendOutcome, CallError>),
    CallDone(CallDone),
    Requested(Result<(), CallError>),
    Asked,
    Woken,
}

/// Which goes first where both are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Frames,
    TheRest,
}

impl First {
    /// Whichever is ready; the one whose turn it is if both are. The other is dropped.
    pub(crate) async fn of(self, frame: impl Future<Output = Next>, other: impl Future<Output = Next>) -> Next {
        match self {
            Self::Frames => tokio::select! { biased; next = frame => next, next = other => next },
            Self::TheRest => tokio::select! { biased; next = other => next, next = frame => next },
        }
    }

    /// Whose turn it is behind this one.
    pub(crate) const fn after(next: &Next) -> Self {
        if matches!(next, Next::Frame(_)) { Self::TheRest } else { Self::Frames }
    }
}

/// What comes from a stream that has ended.
pub(crate) fn ended<T>() -> Result<T, CallError> {
    Err(CallError::Unknown { detail: "the gateway ended the stream".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_always_ready_does_not_keep_the_other_waiting() {
        let mut first = First::Frames;
        let mut frames = Vec::new();
        for _ in 0..6 {
            let next = first.of(async { Next::Frame(ended()) }, async { Next::Asked }).await;
            frames.push(matches!(next, Next::Frame(_)));
            first = First::after(&next);
        }
        assert_eq!(frames, [true, false, true, false, true, false]);
        let never = std::future::pending();
        assert!(matches!(First::Frames.of(never, async { Next::Woken }).await, Next::Woken));
    }
}
