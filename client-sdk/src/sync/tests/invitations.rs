//! Invitations that nobody accepts.

use std::collections::{BTreeSet, HashSet};

use super::*;
use crate::unknown::is_unknown;

/// An invitation into the channel of that number; what it holds is looked at when it is accepted.
fn invitation(number: u64, sequence: u64, bytes: usize) -> Welcome {
    let mut channel = [0; 16];
    channel[..8].copy_from_slice(&number.to_be_bytes());
    let head = lianxin_tlog::Head { sequence: Sequence(sequence), chain_hash: Digest([1; 32]) };
    let inviter = "lianxin://weijian/app/x/1".parse().expect("well formed");
    Welcome {
        channel: ChannelId(channel),
        head,
        welcome: vec![7; bytes].into(),
        inviter,
        gateway_time: Timestamp(number),
    }
}

impl Device {
    /// Gives what became of it, and the inbox items of those that it pushed out.
    fn is_invited_by(&self, inbox_id: u64, welcome: &Welcome) -> (Invited, Vec<u64>) {
        let welcome = welcome.clone();
        self.run(move |tx, mls, _| {
            let invited = invite(tx, mls, inbox_id, &welcome, Log::Ended)?;
            Ok((invited, push_out(tx, mls)?))
        })
    }

    fn offered(&self) -> Vec<u64> {
        let open = self.run(|tx, _, _| open_invitations(tx, &HashSet::new()));
        open.1.iter().map(|one| one.gateway_time.0).collect()
    }

    fn would_come_by_itself(&self, channel: ChannelId) -> bool {
        self.run(move |tx, mls, _| is_unknown(tx, mls, channel))
    }
}

#[test]
fn what_is_declined_is_not_offered_again_and_brings_the_device_nowhere_until_it_is_invited_anew() {
    let (_, guest) = Device::with_guest();
    let [first, second, newer] = [5, 6, 9].map(|sequence| invitation(1, sequence, 10));
    let channel = first.channel;
    assert!(guest.would_come_by_itself(channel));
    for (inbox_id, welcome) in [(1, &first), (2, &second)] {
        assert_eq!(guest.is_invited_by(inbox_id, welcome), (Invited::New, vec![]));
    }
    assert_eq!(guest.is_invited_by(3, &invitation(2, 7, 10)), (Invited::New, vec![]));
    let declined = guest.run(move |tx, _, _| decline(tx, channel, Sequence(6)));
    assert_eq!(declined, [1, 2], "older ones as well");
    assert_eq!(guest.offered(), [2], "the other channel's");
    assert!(!guest.would_come_by_itself(channel));
    let again = guest.run(move |tx, _, _| Ok(decline(tx, channel, Sequence(6)).is_err()));
    assert!(again, "it is gone");

    // The gateway had not been told.
    for (inbox_id, welcome) in [(1, &first), (2, &second)] {
        assert_eq!(guest.is_invited_by(inbox_id, welcome).0, Invited::Used);
    }
    guest.run(move |tx, _, _| forget_declined(tx, &BTreeSet::from([channel])));
    assert!(!guest.would_come_by_itself(channel), "it is a member still");
    assert_eq!(guest.is_invited_by(4, &newer).0, Invited::New);
    assert_eq!(guest.offered(), [2, 1]);

    guest.run(move |tx, _, _| decline(tx, channel, Sequence(9)));
    guest.run(|tx, _, _| forget_declined(tx, &BTreeSet::new()));
    assert!(guest.would_come_by_itself(channel), "taken out, and let in by whoever");
}

#[test]
fn of_too_many_invitations_the_oldest_go_and_of_too_large_ones() {
    let (_, guest) = Device::with_guest();
    for number in 1..=200 {
        assert_eq!(guest.is_invited_by(number, &invitation(number, 1, 10)), (Invited::New, vec![]));
    }
    assert_eq!(guest.is_invited_by(1, &invitation(1, 1, 10)), (Invited::Known, vec![]), "it keeps its place");
    assert_eq!(guest.is_invited_by(201, &invitation(201, 1, 10)), (Invited::New, vec![1]));
    assert_eq!(guest.offered(), (2..=201).collect::<Vec<_>>());
    let first = invitation(1, 1, 10);
    assert_eq!(guest.is_invited_by(1, &first).0, Invited::Used, "it does not push out another");
    assert!(!guest.would_come_by_itself(first.channel));

    let million = 1024 * 1024 - 100;
    for number in 301..=316 {
        guest.is_invited_by(number, &invitation(number, 1, million));
    }
    let (_, pushed_out) = guest.is_invited_by(317, &invitation(317, 1, million));
    assert_eq!(guest.offered().first(), Some(&302), "{} were pushed out", pushed_out.len());
    assert_eq!(guest.offered().len(), 16);
    let rows =
        guest.run(|tx, _, _| Ok((tx.list(INVITATION)?.len(), tx.log_count(crate::rows::INVITATION_ORDER, b"", 0)?)));
    assert_eq!(rows, (16, 16));
}

#[test]
fn a_seat_that_is_waited_for_is_not_pushed_out() {
    let (story, seat) = seats::awaited();
    assert_eq!(story.is_invited_by(1, &seat), (Invited::Seat, vec![]));
    for number in 2..=200 {
        assert_eq!(story.is_invited_by(number, &invitation(number, 1, 10)).1, Vec::<u64>::new());
    }
    assert_eq!(story.is_invited_by(201, &invitation(201, 1, 10)).1, [2]);
}
