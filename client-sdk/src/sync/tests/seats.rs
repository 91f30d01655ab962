//! Seats in the group that carries a broken channel on.

use std::collections::HashSet;

use openmls::prelude::{GroupId, MlsGroup, tls_codec::Serialize as _};

use super::*;

/// Two members whose channel a third has broken; the first has started the next group and seated the second, whose inbox has the
/// seat already. It has read nothing of it all.
struct Story {
    guest: Device,
    welcome: Welcome,
    tree: Vec<u8>,
}

/// `host` invites `guest` into its group of that incarnation.
fn seat(host: &mut Device, guest: &Device, number: u8, incarnation: u8) -> (Welcome, Vec<u8>) {
    let commit = host.invite(id(number), guest.key_package());
    let channel = host.channel;
    let intent = host.run(move |tx, _, _| changes::get(tx, channel, IntentKind::Commit));
    let welcome = intent.expect("stored").parts[1].clone().into();
    assert!(host.deliver(EventKind::Commit, id(number), commit).epoch_changed);
    let (head, tree) = host.run(move |tx, mls, _| {
        let group = GroupId::from_slice(&[&channel.0[..], &[0, 0, 0, incarnation]].concat());
        let group = MlsGroup::load(&tx.mls(), &group)?.expect("a group");
        let tree = group.export_ratchet_tree().tls_serialize_detached().expect("a tree");
        Ok((mls.channel(tx, channel)?.expect("a member").head, tree))
    });
    (Welcome { channel, head, welcome, inviter: host.uri.clone(), gateway_time: Timestamp(1) }, tree)
}

/// Keeps what was kept.
fn put(tx: &Transaction<'_>, (key, row): &(Vec<u8>, Vec<u8>)) -> Result<(), ClientError> {
    let channel = ChannelId::try_from(&key[..16]).expect("its first 16 bytes");
    kept_invitations::put(tx, channel, &InvitationRow::from_bytes(row)?)
}

fn story() -> Story {
    let (mut host, mut guest) = Device::with_guest();
    let channel = host.channel;
    let (welcome, tree) = seat(&mut host, &guest, 1, 0);
    let sequence = welcome.head.sequence;
    guest.run(move |tx, mls, federation| {
        invite(tx, mls, 1, &welcome, Log::Ended)?;
        accept(tx, mls, federation, channel, sequence, tree)
    });
    assert!(host.broken_by_another().place.is_broken);
    let start = host.run(move |tx, mls, federation| Ok(mls.next_incarnation(tx, federation, channel)?));
    assert!(host.deliver(EventKind::Start, id(3), start.group_info).epoch_changed);
    let (welcome, tree) = seat(&mut host, &guest, 4, 1);
    guest.log.clone_from(&host.log);
    Story { guest, welcome, tree }
}

/// Who waits for a seat, and the invitation that gives it.
pub(super) fn awaited() -> (Device, Welcome) {
    let Story { guest, welcome, .. } = story();
    guest.apply(2);
    (guest, welcome)
}

impl Story {
    fn invited(&self, log: Log) -> Invited {
        let welcome = self.welcome.clone();
        self.guest.run(move |tx, mls, _| invite(tx, mls, 7, &welcome, log))
    }

    fn takes(&self) -> Option<u64> {
        let (place, tree) = ((self.welcome.channel, self.welcome.head.sequence), self.tree.clone());
        self.guest.run(move |tx, mls, federation| take_seat(tx, mls, federation, place, tree))
    }

    fn offered(&self, log: Log) -> Offered {
        let channel = self.guest.channel;
        self.guest.run(move |tx, mls, _| offer(tx, mls, channel, log))
    }

    /// What the application is offered.
    fn open(&self) -> Vec<crate::Invitation> {
        self.guest.run(|tx, _, _| Ok(open_invitations(tx, &HashSet::new())?.1))
    }

    fn invitations(&self) -> (usize, usize) {
        let told = self.guest.events().iter().filter(|event| matches!(event, Event::Invited { .. })).count();
        (told, self.guest.run(|tx, _, _| Ok(tx.list(INVITATION)?.len())))
    }
}

#[test]
fn a_seat_that_comes_before_the_start_is_read_is_not_the_applications() {
    let story = story();
    assert_eq!(story.invited(Log::Followed), Invited::HeldBack);
    assert_eq!(story.invited(Log::Followed), Invited::HeldBack, "on the next connection");
    assert!(story.guest.apply(2).is_awaited, "up to the commit that seats it");
    assert_eq!(story.offered(Log::Followed), Offered { is_seat: true, ..Offered::default() });
    assert_eq!(story.invitations(), (1, 1), "of the first group alone");
    assert!(story.open().is_empty(), "nor to be found by it");
    let row = story.guest.run(|tx, _, _| Ok(tx.list(INVITATION)?.remove(0)));
    assert_eq!(story.takes(), Some(7));
    assert!(story.guest.apply(4).epoch_changed, "seated");
    assert_eq!(story.invitations(), (1, 0));
    // One that was stored once more is of no use when the log has come there.
    story.guest.run(move |tx, _, _| {
        put(tx, &row)?;
        Ok(tx.put(crate::rows::WITHHELD, &row.0, &[])?)
    });
    assert_eq!(story.offered(Log::Followed), Offered { used: vec![7], ..Offered::default() });
    assert_eq!(story.invitations(), (1, 0));
    assert_eq!(story.offered(Log::Followed), Offered::default());
}

#[test]
fn a_seat_that_was_taken_and_comes_again_is_of_no_use() {
    let story = story();
    story.guest.apply(2);
    assert_eq!(story.invited(Log::Ended), Invited::Seat);
    assert_eq!(story.takes(), Some(7));
    // The gateway had not been told when the device was killed.
    assert_eq!(story.invited(Log::Ended), Invited::Used);
    assert_eq!(story.invitations(), (1, 0), "nothing is left of it, and nobody is told");
    assert!(story.guest.apply(4).epoch_changed, "seated");
    assert_eq!(story.invited(Log::Ended), Invited::Used);
}

/// A row that an application gets hold of all the same.
#[test]
fn nothing_that_fails_afterwards_takes_the_seat_away() {
    let story = story();
    story.guest.apply(2);
    story.invited(Log::Ended);
    let row = story.guest.run(|tx, _, _| Ok(tx.list(INVITATION)?.remove(0)));
    assert_eq!(story.takes(), Some(7));
    let (channel, sequence) = (story.guest.channel, story.welcome.head.sequence);
    let again = row.clone();
    story.guest.run(move |tx, _, _| put(tx, &again));
    let left = story.guest.run(move |tx, mls, _| not_a_seat(tx, mls, channel, sequence));
    assert_eq!(left, Offered { used: vec![7], ..Offered::default() });
    story.guest.run(move |tx, _, _| put(tx, &row));
    let dropped = story.guest.run(move |tx, mls, _| give_up_invitation(tx, mls, channel, sequence));
    assert_eq!(dropped, [7]);
    assert!(story.guest.apply(4).epoch_changed, "seated");
}

#[test]
fn what_is_no_seat_is_the_applications_once() {
    let mut story = story();
    story.guest.apply(2);
    let good = std::mem::replace(&mut story.welcome.welcome, vec![1].into());
    assert_eq!(story.invited(Log::Ended), Invited::Seat);
    assert_eq!(story.invitations(), (1, 1), "it is looked at first");
    let (channel, sequence) = (story.guest.channel, story.welcome.head.sequence);
    for is_new in [true, false] {
        let left = story.guest.run(move |tx, mls, _| not_a_seat(tx, mls, channel, sequence));
        assert_eq!(left, Offered { is_new, ..Offered::default() });
        assert_eq!(story.guest.run(move |tx, _, _| newest_seat(tx, channel)), None, "it waits on for another");
        assert_eq!(story.invited(Log::Ended), Invited::Known);
        assert_eq!(story.invitations(), (2, 1));
    }
    // The good one behind it is taken, and the wrong one goes with it when the log has come there.
    let head = lianxin_tlog::Head { sequence: sequence.next(), chain_hash: Digest([1; 32]) };
    story.welcome = Welcome { head, welcome: good, ..story.welcome };
    assert_eq!(story.invited(Log::Ended), Invited::Seat);
    assert_eq!(story.guest.run(move |tx, _, _| newest_seat(tx, channel)), Some(head.sequence));
}

#[test]
fn who_was_removed_and_invited_again_is_told_when_the_log_says_no_more() {
    let (mut host, guest) = Device::with_guest();
    let (welcome, tree) = seat(&mut host, &guest, 1, 0);
    let (channel, sequence) = (host.channel, welcome.head.sequence);
    guest.run(move |tx, mls, federation| {
        invite(tx, mls, 1, &welcome, Log::Ended)?;
        accept(tx, mls, federation, channel, sequence, tree)
    });
    let gone = guest.uri.clone();
    let commit = host.run(move |tx, mls, federation| Ok(mls.remove(tx, federation, channel, &[gone])?.commit));
    host.deliver(EventKind::Commit, id(2), commit);
    let (welcome, tree) = seat(&mut host, &guest, 3, 0);
    let story = Story { guest, welcome, tree };
    assert_eq!(story.invited(Log::Followed), Invited::HeldBack);
    assert_eq!(story.invitations(), (1, 1));
    assert_eq!(story.offered(Log::Followed), Offered { is_held_back: true, ..Offered::default() }, "it may be a seat");
    assert_eq!(story.invitations(), (1, 1));
    assert_eq!(story.offered(Log::Ended), Offered { is_new: true, ..Offered::default() });
    assert_eq!(story.offered(Log::Ended), Offered::default(), "once");
    assert_eq!(story.open().len(), 1);
    assert_eq!(story.invited(Log::Followed), Invited::Known);
    assert_eq!(story.invitations(), (2, 1));
}

/// Its group reads nothing of the commit that takes it out and lets it in again.
#[test]
fn whose_group_is_broken_is_told_of_an_invitation_behind_that_and_of_no_older_one() {
    let (mut host, mut guest) = Device::with_guest();
    let (welcome, tree) = seat(&mut host, &guest, 1, 0);
    let (channel, sequence, first) = (host.channel, welcome.head.sequence, welcome.clone());
    guest.run(move |tx, mls, federation| {
        invite(tx, mls, 1, &welcome, Log::Ended)?;
        accept(tx, mls, federation, channel, sequence, tree)
    });
    guest.log.clone_from(&host.log);
    for (number, kind) in [(2, EventKind::Commit), (3, EventKind::Application)] {
        guest.deliver(kind, id(number), b"garbage".to_vec());
    }
    let head = guest.run(move |tx, mls, _| Ok(mls.head(tx, channel)?.expect("a member")));
    let mut story = Story { guest, welcome: first.clone(), tree: Vec::new() };
    assert_eq!(story.invited(Log::Followed), Invited::Used, "by it the device came in");
    story.welcome = Welcome { head: lianxin_tlog::Head { sequence: head.sequence.next(), ..head }, ..first.clone() };
    assert_eq!(story.invited(Log::Followed), Invited::HeldBack);
    story.guest.deliver(EventKind::Commit, id(4), b"garbage".to_vec());
    assert_eq!(story.offered(Log::Followed), Offered { is_new: true, ..Offered::default() });
    story.welcome = Welcome { head, ..first };
    assert_eq!(story.invited(Log::Followed), Invited::New, "the log has told nothing of it");
}

#[test]
fn whom_the_starter_has_seated_it_does_not_bring_back_when_somebody_takes_it_out() {
    let (mut host, guest) = Device::with_guest();
    let channel = host.channel;
    seat(&mut host, &guest, 1, 0);
    host.broken_by_another();
    let start = host.run(move |tx, mls, federation| Ok(mls.next_incarnation(tx, federation, channel)?));
    assert!(host.deliver(EventKind::Start, id(3), start.group_info).place.is_between);
    seat(&mut host, &guest, 4, 1);
    let gone = guest.uri.clone();
    let commit = host.run(move |tx, mls, federation| Ok(mls.remove(tx, federation, channel, &[gone])?.commit));
    assert!(!host.deliver(EventKind::Commit, id(5), commit).place.is_between, "nobody is to be seated");
}
