//! Messages of a Send stream that go to the committer together.

use std::collections::HashMap;

use lianxin_types::{ChannelId, Epoch, IdempotencyId};

/// What is known of a message before it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It fits this epoch.
    Ready(Epoch),
    /// It is refused and may be tried again.
    HeldBack,
    /// It has its answer: a repeat, or a refusal for good.
    Answered,
}

/// What is committed with one durability point. Those of a channel were all judged in one epoch, and nothing that is held
/// back stands behind them. Else an epoch that begins between two of them would have the first refused by the committer and
/// the second accepted, or would make the second the one that the stream must go on from (PROTOCOL 6). A full disk cannot
/// part them either: a run is one step of the committer, which lets nothing past what found no room.
pub(crate) struct Run<T> {
    /// In the order of the stream.
    pub(crate) messages: Vec<(IdempotencyId, ChannelId)>,
    /// One for each message.
    pub(crate) steps: Vec<T>,
    epochs: HashMap<ChannelId, Epoch>,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self { messages: Vec::new(), steps: Vec::new(), epochs: HashMap::new() }
    }
}

impl<T> Run<T> {
    /// Whether a message that was judged so may go with those before it; otherwise these must have their answers first.
    pub(crate) fn takes(&self, channel: &ChannelId, judged: Judged) -> bool {
        match (self.epochs.get(channel), judged) {
            (None, _) | (_, Judged::Answered) => true,
            (Some(first), Judged::Ready(epoch)) => *first == epoch,
            (Some(_), Judged::HeldBack) => false,
        }
    }

    /// Puts a message behind those before it.
    pub(crate) fn push(&mut self, id: IdempotencyId, channel: ChannelId, judged: Judged, step: T) {
        if let Judged::Ready(epoch) = judged {
            self.epochs.entry(channel).or_insert(epoch);
        }
        self.messages.push((id, channel));
        self.steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ChannelId = ChannelId([1; 16]);
    const ELSEWHERE: ChannelId = ChannelId([2; 16]);
    const ID: IdempotencyId = IdempotencyId([0; 16]);

    #[test]
    fn messages_of_one_channel_go_together_only_within_an_epoch() {
        let mut run = Run::default();
        run.push(ID, HERE, Judged::Answered, "refused for good");
        assert!(run.takes(&HERE, Judged::Ready(Epoch(7))), "the first of its channel that is to be committed");
        run.push(ID, HERE, Judged::Ready(Epoch(7)), "ready");
        assert!(run.takes(&HERE, Judged::Ready(Epoch(7))));
        assert!(!run.takes(&HERE, Judged::Ready(Epoch(8))), "an epoch has begun between them");
        assert!(run.takes(&HERE, Judged::Answered));
        assert!(run.takes(&ELSEWHERE, Judged::Ready(Epoch(8))), "another channel has its own epochs");
        assert_eq!((run.messages.len(), run.steps), (2, vec!["refused for good", "ready"]));
        assert!(Run::<()>::default().takes(&HERE, Judged::Ready(Epoch(8))), "the next run begins with any");
    }

    #[test]
    fn what_is_held_back_waits_for_the_answers_of_those_before_it() {
        let mut run = Run::default();
        assert!(run.takes(&HERE, Judged::HeldBack), "nothing is before it");
        run.push(ID, HERE, Judged::HeldBack, ());
        assert!(run.takes(&HERE, Judged::HeldBack), "what is before it has its answer");
        run.push(ID, ELSEWHERE, Judged::Ready(Epoch(7)), ());
        assert!(run.takes(&HERE, Judged::HeldBack) && !run.takes(&ELSEWHERE, Judged::HeldBack));
    }
}
