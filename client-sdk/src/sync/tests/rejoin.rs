//! Removed and invited again while offline.

use openmls::prelude::{GroupId, MlsGroup, tls_codec::Serialize as _};

use super::*;
use crate::config::Loaded;
use crate::shared::{Shared, Task};
use crate::waiters::Failure;

impl Device {
    /// The invitation that the last event of the log is.
    fn invitation(&self, welcome: Vec<u8>) -> (Welcome, Vec<u8>) {
        let channel = self.channel;
        let (head, tree) = self.run(move |tx, mls, _| {
            let group = GroupId::from_slice(&[&channel.0[..], &[0; 4]].concat());
            let group = MlsGroup::load(&tx.mls(), &group)?.expect("a group");
            let tree = group.export_ratchet_tree().tls_serialize_detached().expect("a tree");
            Ok((mls.channel(tx, channel)?.expect("a member").head, tree))
        });
        let (inviter, gateway_time) = (self.uri.clone(), Timestamp(1));
        (Welcome { channel, head, welcome: welcome.into(), inviter, gateway_time }, tree)
    }

    /// Invites `guest`, reads the echo, and puts the invitation into the guest's state. Gives its sequence and tree.
    pub(super) fn seat(&mut self, number: u8, guest: &Self) -> (Sequence, Vec<u8>) {
        let commit = self.invite(id(number), guest.key_package());
        let channel = self.channel;
        let intent = self.run(move |tx, _, _| changes::get(tx, channel, IntentKind::Commit));
        let welcome = intent.expect("stored").parts[1].clone();
        assert!(self.deliver(EventKind::Commit, id(number), commit).epoch_changed);
        let (welcome, tree) = self.invitation(welcome);
        let sequence = welcome.head.sequence;
        assert_eq!(guest.run(move |tx, mls, _| invite(tx, mls, number.into(), &welcome, Log::Ended)), Invited::New);
        (sequence, tree)
    }

    pub(super) fn accept(&mut self, sequence: Sequence, tree: Vec<u8>, log: &[LogEntry]) -> Accepted {
        self.log = log.to_vec();
        let channel = self.channel;
        self.run(move |tx, mls, federation| accept(tx, mls, federation, channel, sequence, tree))
    }

    fn remove(&mut self, number: u8, member: &Self) {
        let (channel, gone) = (self.channel, member.uri.clone());
        let commit = self.run(move |tx, mls, federation| Ok(mls.remove(tx, federation, channel, &[gone])?.commit));
        self.deliver(EventKind::Commit, id(number), commit);
    }

    pub(super) fn read(&self, number: u64) -> Vec<u8> {
        let channel = self.channel;
        let log = self.run(move |tx, _, _| Ok(tx.log_read(MESSAGE, &channel.0, number - 1, 1)?));
        MessageRow::from_bytes(&log[0].1).expect("a message").body
    }
}

#[test]
fn removed_and_invited_again_while_offline_it_joins_anew_and_reads_on() {
    let (mut host, mut guest) = Device::with_guest();
    let (sequence, tree) = host.seat(1, &guest);
    guest.accept(sequence, tree, &host.log);
    // Offline the guest has written something and begun to leave; neither has reached the gateway.
    guest.send(id(20), "从前");
    let channel = guest.channel;
    guest.run(move |tx, mls, _| changes::put_leave(tx, channel, id(21), mls.leave(tx, channel)).map(|_| ()));
    host.remove(2, &guest);
    let (again, tree) = host.seat(3, &guest);
    assert_eq!((sequence, again), (Sequence(2), Sequence(4)));
    let row = host.send(id(4), "以后");
    host.deliver(EventKind::Application, id(4), row.mls);

    // The gateway gives from the new seat on, and nothing else when it is asked again.
    guest.log = host.log.clone();
    for _ in 0..2 {
        let applied = guest.apply(3);
        assert_eq!((applied.place.head, applied.gap), (Sequence(2), Some(Sequence(4))));
    }
    let accepted = guest.accept(again, tree, &host.log);
    assert_eq!(accepted.inbox_ids, [3]);
    // Neither is known to have been in vain: their answers may have been lost.
    assert_eq!(accepted.settled, [(id(20), Err(Failure::GivenUp)), (id(21), Err(Failure::GivenUp))]);
    let applied = guest.apply(3);
    assert_eq!((applied.place.head, applied.gap, applied.removed), (Sequence(5), None, false));
    assert_eq!(guest.read(5), "以后".as_bytes());
    // It can send and change again: nothing of the old group is in the way.
    assert_eq!(guest.send(id(22), "又来").epoch, Epoch(3));
    let open = guest.run(move |tx, _, _| changes::open(tx, Some(channel)));
    assert_eq!(open.len(), 0);
}

#[test]
fn an_older_invitation_that_was_never_accepted_goes_with_the_newer_one() {
    let (mut host, mut guest) = Device::with_guest();
    host.seat(1, &guest);
    host.remove(2, &guest);
    let (again, tree) = host.seat(3, &guest);
    assert_eq!(guest.accept(again, tree, &host.log).inbox_ids, [1, 3]);
    // It would be taken for a newer way in when the device is cut off.
    let channel = guest.channel;
    assert!(!guest.run(move |tx, _, _| is_invited(tx, channel)));
}

#[test]
fn it_joins_anew_also_when_it_has_read_of_its_removal() {
    let (mut host, mut guest) = Device::with_guest();
    let (sequence, tree) = host.seat(1, &guest);
    guest.accept(sequence, tree, &host.log);
    host.remove(2, &guest);
    guest.log = host.log.clone();
    assert!(guest.apply(2).removed);
    let (again, tree) = host.seat(3, &guest);
    let row = host.send(id(4), "以后");
    host.deliver(EventKind::Application, id(4), row.mls);
    assert!(guest.accept(again, tree, &host.log).settled.is_empty());
    assert_eq!(guest.apply(3).place.head, Sequence(5));
    assert_eq!(guest.read(5), "以后".as_bytes());
}

#[test]
fn a_gap_of_the_time_before_the_newer_invitation_cuts_nothing_off() {
    assert!(is_cut_off(Sequence(2), Sequence(4)));
    assert!(!is_cut_off(Sequence(3), Sequence(4)), "the next event is there");
    assert!(!is_cut_off(Sequence(4), Sequence(4)), "joined anew at that seat");
}

#[test]
fn what_the_gateway_cannot_give_is_asked_for_once() {
    let (head, found) = (Sequence(2), Sequence(4));
    assert_eq!(gap_step(None, head, found), GapStep::FollowAgain);
    let asked = Some(Asked { head, found });
    assert_eq!(gap_step(asked, head, Sequence(5)), GapStep::Wait, "on its way before the request");
    assert_eq!(gap_step(asked, head, found), GapStep::GiveUp);
    assert_eq!(gap_step(asked, head, Sequence(3)), GapStep::GiveUp, "the second answer has no more to give");
    assert_eq!(gap_step(asked, Sequence(3), Sequence(5)), GapStep::FollowAgain, "it went on meanwhile");
}

/// The device's door to the session, and none behind it.
fn shared(device: &Device, department: &str) -> Arc<Shared> {
    let federation = device.folder.path().join("federation");
    let config = Config::from_certs_dev(&federation, department, "app-1", "unused").expect("configured");
    let Loaded { tls, mls, roots, bundle, lists } = config.load().expect("loaded");
    let federation = Federation::new(bundle, lists).expect("a federation");
    let mls = Mls::new(mls, device.uri.clone(), Arc::new(SystemClock), Arc::new(SystemRandom)).expect("an engine");
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    Arc::new(Shared::new(device.keystore.clone(), (mls, tls), device.uri.clone(), (roots, federation), clock, random))
}

#[test]
fn who_waits_in_an_older_group_is_told_though_the_call_that_accepts_is_dropped() {
    let (mut host, mut guest) = Device::with_guest();
    let (sequence, tree) = host.seat(1, &guest);
    guest.accept(sequence, tree, &host.log);
    guest.send(id(20), "从前");
    host.remove(2, &guest);
    let (again, tree) = host.seat(3, &guest);
    let shared = shared(&guest, "shenji");
    let waits = shared.waiters.register(id(20));
    let (channel, federation) = (guest.channel, Arc::clone(&guest.federation));
    // Its transaction is in the queue when it is dropped, in front of the one that looks.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (found, told) = runtime.block_on(async {
        let mut accept = Box::pin(shared.accept(federation, (channel, again), tree));
        assert!(futures_util::poll!(&mut accept).is_pending());
        drop(accept);
        let found = guest.keystore.transaction(move |tx| outbox::page(tx, channel, 0)).await.expect("readable");
        (found, futures_util::FutureExt::now_or_never(waits))
    });
    assert!(found.is_empty(), "it is in anew");
    assert_eq!(told.expect("told by now").expect("told"), Err(Failure::GivenUp));
    assert!(shared.take_tasks().contains(&Task::Confirm(3)));
}
