//! What the applications of a simulation have done and were told: the other side of the account that the judge draws up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lianxin_sdk::{ClientError, Event, Message};

/// Shared by all applications.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

/// What is written in it.
#[derive(Default)]
pub(crate) struct Book {
    /// Messages by their text, which is different for each.
    pub(crate) sends: BTreeMap<String, Sent>,
    /// What each device was told, in the order in which it was.
    pub(crate) events: BTreeMap<usize, Vec<Event>>,
    /// Positions of the messages of others that each device's application was given.
    pub(crate) given: BTreeMap<usize, BTreeSet<u64>>,
    /// What is wrong already, whatever comes.
    pub(crate) wrong: Vec<String>,
    /// Devices whose state was put back from an older copy.
    pub(crate) went_back: BTreeSet<usize>,
    /// How many calls of each device have no outcome yet.
    pub(crate) open: BTreeMap<usize, usize>,
}

/// What became of a message, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The call has not returned, or never did.
    Unknown,
    /// The receipt names this position.
    Accepted(u64),
    /// It never will be accepted.
    Refused(String),
}

impl Ledger {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// The call for a message has returned.
    pub(crate) fn sent(&mut self, text: String, outcome: Result<u64, ClientError>) {
        if let Err(ClientError::Refused(problem)) = &outcome
            && problem.try_again
        {
            self.wrong.push(format!("the sender of {text:?} was left alone with a refusal that passes: {problem}"));
        }
        let sent = match outcome {
            Ok(sequence) => Sent::Accepted(sequence),
            Err(error @ (ClientError::Refused(_) | ClientError::NotMember)) => Sent::Refused(error.to_string()),
            // Nothing was promised.
            Err(_) => Sent::Unknown,
        };
        self.sends.insert(text, sent);
    }

    /// A device's application is told of something. Everybody here is honest, so nobody may be accused, and only an older state may be
    /// taken for one.
    pub(crate) fn told(&mut self, device: usize, event: Event) {
        let is_untrue = match &event {
            Event::Violation { .. } | Event::CommitReported { .. } => true,
            Event::StateRestored { .. } => !self.went_back.contains(&device),
            _ => false,
        };
        if is_untrue {
            self.wrong.push(format!("device {device} was told what is not so: {event:?}"));
        }
        self.events.entry(device).or_default().push(event);
    }

    /// The application of a device was given a message of another; `last` is the position of the one before it in the same stream.
    pub(crate) fn given(&mut self, device: usize, last: u64, message: &Message) {
        let sequence = message.sequence.0;
        if sequence <= last {
            self.wrong.push(format!("device {device} was given message {sequence} behind {last}"));
        }
        self.given.entry(device).or_default().insert(sequence);
    }
}
