//! What a stretch of log does to the local state, with the real engine and a log that the test writes.

use std::sync::Arc;

use lianxin_certs_dev::{FederationPlan, mint};
use lianxin_connection::Welcome;
use lianxin_keystore::{Keystore, StateKey};
use lianxin_mls::NewChannel;
use lianxin_tlog::EventKind;
use lianxin_types::{Classification, Clock as _, Digest, Label, Random as _, SystemClock, SystemRandom, Timestamp};

use super::*;
use crate::Config;
use crate::changes::{self, Staged};
use crate::event::kept;
use crate::rows::{INVITATION, Intent, IntentKind, InvitationRow, MESSAGE, MessageRow, OUTBOX_LAST, Origin, OutboxRow};

mod invitations;
mod next_group;
mod rejoin;
mod seats;

/// A device in a channel of its own, and the channel's log.
struct Device {
    mls: Arc<Mls>,
    uri: DeviceUri,
    federation: Arc<Federation>,
    keystore: Keystore,
    channel: ChannelId,
    log: Vec<LogEntry>,
    folder: Arc<tempfile::TempDir>,
}

fn id(number: u8) -> IdempotencyId {
    IdempotencyId([number; 16])
}

impl Device {
    /// The device, and a key package of somebody whom it may invite.
    fn in_a_channel() -> (Self, Vec<u8>) {
        let (device, guest) = Self::with_guest();
        let package = guest.key_package();
        (device, package)
    }

    /// The device, and one of another department, which is no member yet.
    fn with_guest() -> (Self, Self) {
        let folder = Arc::new(tempfile::tempdir().expect("folder"));
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("minted");
        let federation = Arc::new(minted.federation().expect("a federation"));
        let mut channel = [0; 16];
        SystemRandom.fill(&mut channel);
        let open = |department| Self::open(&folder, &federation, ChannelId(channel), department, "app-1");
        let (mut device, guest) = (open("jiwei"), open("shenji"));
        let channel = device.channel;
        let start = device.run(move |tx, mls, federation| {
            let label = Label::new(Classification::General1, "联合核查", "审计法", None).expect("a label");
            let departments = ["jiwei", "shenji"].map(|name| name.parse().expect("a department")).to_vec();
            let new = NewChannel { channel, zone: "cn-zj-1".parse().expect("a zone"), label, departments };
            Ok(mls.create(tx, federation, &new)?)
        });
        let applied = device.deliver(EventKind::Start, id(0), start.group_info);
        assert_eq!((applied.place.head, applied.settled.len()), (Sequence(1), 0));
        (device, guest)
    }

    /// A device of the federation in `folder` that knows of no channel.
    fn open(
        folder: &Arc<tempfile::TempDir>,
        federation: &Arc<Federation>,
        channel: ChannelId,
        department: &str,
        app: &str,
    ) -> Self {
        let minted = folder.path().join("federation");
        let config = Config::from_certs_dev(&minted, department, app, "unused").expect("configured");
        let uri = config.device.clone().expect("named");
        let identity = config.load().expect("loaded").mls;
        let mls = Mls::new(identity, uri.clone(), Arc::new(SystemClock), Arc::new(SystemRandom)).expect("an engine");
        let state = folder.path().join(format!("state-{department}-{app}"));
        let keystore = Keystore::open(&state, &StateKey::from_bytes([1; 32]), Arc::new(SystemRandom));
        let (mls, keystore, federation) = (Arc::new(mls), keystore.expect("opens"), Arc::clone(federation));
        Self { mls, uri, federation, keystore, channel, log: Vec::new(), folder: Arc::clone(folder) }
    }

    /// Another member comes in and breaks the group by a commit that nobody can process.
    fn broken_by_another(&mut self) -> Applied {
        let mut other = Self::open(&self.folder, &self.federation, self.channel, "jiwei", "app-2");
        let (sequence, tree) = self.seat(80, &other);
        other.accept(sequence, tree, &self.log.clone());
        let (channel, gone) = (self.channel, self.uri.clone());
        let mut commit = other.run(move |tx, mls, federation| Ok(mls.remove(tx, federation, channel, &[gone])?.commit));
        *commit.last_mut().expect("not empty") ^= 1;
        self.append(EventKind::Commit, id(81), commit);
        self.log.last_mut().expect("appended").sender = other.uri;
        self.apply(self.log.len() - 1)
    }

    fn key_package(&self) -> Vec<u8> {
        self.run(|tx, mls, federation| Ok(mls.key_packages(tx, federation, 1, false)?)).one_time.remove(0)
    }

    fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>, &Mls, &Federation) -> Result<T, ClientError> + Send + 'static,
    ) -> T {
        let (mls, federation) = (Arc::clone(&self.mls), Arc::clone(&self.federation));
        self.keystore.transaction_blocking(move |tx| f(tx, &mls, &federation)).expect("transaction")
    }

    /// Puts an event of the device itself into the log.
    fn append(&mut self, kind: EventKind, id: IdempotencyId, mls: Vec<u8>) {
        let sequence = Sequence(self.log.len() as u64 + 1);
        self.log.push(LogEntry {
            channel: self.channel,
            sequence,
            kind,
            sender: self.uri.clone(),
            gateway_time: SystemClock.now(),
            expiry: None,
            label_reference: Digest::ZERO,
            mls: mls.into(),
            leaf_index: sequence.0 + 100,
            leaf_hash: Digest([9; 32]),
            idempotency_id: id,
        });
    }

    /// Processes the log from the `from`th event on.
    fn apply(&self, from: usize) -> Applied {
        let (events, uri) = (self.log[from..].to_vec(), self.uri.clone());
        self.run(move |tx, mls, federation| {
            let (trust, coming) = (TrustAge::JustFetched, Coming::Stored);
            apply(tx, mls, Reader { device: &uri, federation, trust, coming }, &events)
        })
    }

    fn deliver(&mut self, kind: EventKind, id: IdempotencyId, mls: Vec<u8>) -> Applied {
        self.append(kind, id, mls);
        self.apply(self.log.len() - 1)
    }

    fn send(&self, id: IdempotencyId, body: &'static str) -> OutboxRow {
        let channel = self.channel;
        self.run(move |tx, mls, federation| outbox::put(tx, mls, federation, channel, id, body.into()));
        self.outbox().pop().expect("stored")
    }

    fn outbox(&self) -> Vec<OutboxRow> {
        let channel = self.channel;
        self.run(move |tx, _, _| Ok(outbox::page(tx, channel, 0)?.into_iter().map(|(_, row)| row).collect()))
    }

    fn events(&self) -> Vec<Event> {
        self.run(|tx, _, _| Ok(kept(tx, 0, 100)?.into_iter().map(|(_, event)| event).collect()))
    }

    /// Stages the invitation under an id and gives the commit's bytes.
    fn invite(&self, id: IdempotencyId, package: Vec<u8>) -> Vec<u8> {
        let channel = self.channel;
        self.run(move |tx, mls, federation| {
            let staged = changes::put_commit(tx, channel, id, mls.invite(tx, federation, channel, &[package]))?;
            assert!(matches!(staged, Staged::Ready));
            let intent = changes::get(tx, channel, IntentKind::Commit)?.expect("stored");
            Ok(intent.parts[0].clone())
        })
    }
}

#[test]
fn an_own_message_is_settled_by_its_echo_and_stays_readable() {
    let (mut device, _) = Device::in_a_channel();
    let row = device.send(id(1), "第一");
    device.send(id(2), "第二");
    let applied = device.deliver(EventKind::Application, id(1), row.mls);
    let receipts: Vec<_> =
        applied.settled.iter().map(|(id, outcome)| (*id, outcome.as_ref().map(|r| r.sequence))).collect();
    assert_eq!(receipts, [(id(1), Ok(Sequence(2)))]);
    assert_eq!(device.outbox().iter().map(|row| row.id).collect::<Vec<_>>(), [id(2)]);
    let channel = device.channel;
    let log = device.run(move |tx, _, _| Ok(tx.log_read(MESSAGE, &channel.0, 0, 10)?));
    let message = MessageRow::from_bytes(&log[0].1).expect("a message");
    assert_eq!((log.len(), log[0].0), (1, 2));
    assert_eq!((message.origin, message.body, message.leaf_index), (Origin::Own, "第一".into(), 102));
}

#[test]
fn what_an_epoch_leaves_behind_is_encrypted_again_under_the_same_id() {
    let (mut device, package) = Device::in_a_channel();
    let before = [device.send(id(1), "第一"), device.send(id(2), "第二")];
    let commit = device.invite(id(9), package);
    // The first message was accepted before the commit, the second was not.
    device.append(EventKind::Application, id(1), before[0].mls.clone());
    device.append(EventKind::Commit, id(9), commit);
    let applied = device.apply(1);
    assert!(applied.epoch_changed && !applied.removed && applied.gap.is_none());
    assert_eq!(applied.settled.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(1), id(9)]);
    assert!(applied.settled.iter().all(|(_, outcome)| outcome.is_ok()));
    let left = device.outbox();
    assert_eq!((left.len(), left[0].id, left[0].epoch), (1, id(2), Epoch(1)));
    assert_ne!(left[0].mls, before[1].mls);
    let applied = device.deliver(EventKind::Application, id(2), left[0].mls.clone());
    assert_eq!(applied.settled.len(), 1);
    assert!(device.outbox().is_empty());
    assert!(matches!(&device.events()[..], [Event::MemberJoined { epoch: Epoch(1), by, .. }] if *by == device.uri));
}

#[test]
fn a_refused_commit_makes_room_for_the_next() {
    let (device, package) = Device::in_a_channel();
    device.invite(id(8), package.clone());
    let (channel, again) = (device.channel, package.clone());
    let busy = device.run(move |tx, mls, federation| {
        changes::put_commit(tx, channel, id(9), mls.invite(tx, federation, channel, &[again]))
    });
    assert!(matches!(busy, Staged::Busy), "one commit at a time");
    let dropped = device.run(move |tx, mls, _| {
        let intent = changes::get(tx, channel, IntentKind::Commit)?.expect("stored");
        changes::accepted(tx, channel, &Intent { id: id(7), ..intent.clone() })?;
        assert!(!changes::refused(tx, mls, channel, &Intent { id: id(7), ..intent.clone() })?, "another's answer");
        changes::refused(tx, mls, channel, &intent)
    });
    assert!(dropped);
    device.invite(id(9), package);
}

#[test]
fn a_commit_that_breaks_the_group_is_told_and_messages_wait_for_the_way_back() {
    let (mut device, _) = Device::in_a_channel();
    device.send(id(1), "第一");
    let applied = device.deliver(EventKind::Commit, id(5), b"garbage".to_vec());
    assert!(applied.settled.is_empty() && applied.place.is_broken);
    // What is sent now waits, too.
    device.send(id(2), "第二");
    let waiting: Vec<_> = device.outbox().iter().map(|row| (row.id, row.mls.len())).collect();
    assert_eq!(waiting, [(id(1), 0), (id(2), 0)]);
    device.deliver(EventKind::Commit, id(6), b"more".to_vec());
    assert!(matches!(&device.events()[..], [Event::Violation { sequence: Sequence(2), .. }]), "{:?}", device.events());
}

#[test]
fn a_group_that_breaks_while_an_own_commit_waits_is_come_back_into_all_the_same() {
    let (mut device, package) = Device::in_a_channel();
    device.invite(id(9), package);
    let applied = device.deliver(EventKind::Commit, id(5), b"garbage".to_vec());
    assert_eq!(applied.settled.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(9)]);
    assert!(applied.place.is_broken, "the own commit can never be accepted");
}

#[test]
fn events_that_are_missing_are_asked_for() {
    let (mut device, _) = Device::in_a_channel();
    let rows = [device.send(id(1), "第一"), device.send(id(2), "第二")];
    device.append(EventKind::Application, id(1), rows[0].mls.clone());
    device.append(EventKind::Application, id(2), rows[1].mls.clone());
    let applied = device.apply(2);
    assert_eq!(applied.gap, Some(Sequence(3)));
    assert_eq!((applied.place.head, applied.settled.len()), (Sequence(1), 0));
    let applied = device.apply(0);
    assert_eq!((applied.place.head, applied.settled.len(), applied.gap), (Sequence(3), 2, None));
    assert_eq!(device.apply(0).settled.len(), 0, "what comes twice changes nothing");
}

/// What a gateway says of places may be any number.
#[test]
fn the_last_number_of_all_is_a_place_like_any_other() {
    let (mut device, _) = Device::in_a_channel();
    let last = Sequence(u64::MAX);
    let row = device.send(id(1), "第一");
    device.append(EventKind::Application, id(1), row.mls);
    device.log[1].sequence = last;
    let applied = device.apply(1);
    assert_eq!((applied.gap, applied.place.head, applied.settled.len()), (Some(last), Sequence(1), 0));
    assert!(is_cut_off(Sequence(1), last));
    assert!(!is_cut_off(last, last));
    let welcome = Welcome {
        channel: ChannelId([5; 16]),
        head: lianxin_tlog::Head { sequence: last, chain_hash: Digest([1; 32]) },
        welcome: vec![1].into(),
        inviter: device.uri.clone(),
        gateway_time: Timestamp(u64::MAX),
    };
    let invited = device.run(move |tx, mls, _| Ok([0, u64::MAX].map(|id| invite(tx, mls, id, &welcome, Log::Ended))));
    assert!(matches!(invited, [Ok(Invited::New), Ok(Invited::Known)]), "{invited:?}");
}

#[test]
fn an_invitation_is_new_once() {
    let (device, _) = Device::in_a_channel();
    let head = lianxin_tlog::Head { sequence: Sequence(4), chain_hash: Digest([1; 32]) };
    let welcome = Welcome {
        channel: ChannelId([5; 16]),
        head,
        welcome: vec![1].into(),
        inviter: device.uri.clone(),
        gateway_time: Timestamp(1),
    };
    let own = Welcome {
        channel: device.channel,
        head: lianxin_tlog::Head { sequence: Sequence(1), ..head },
        ..welcome.clone()
    };
    let outcomes = device.run(move |tx, mls, _| {
        Ok([(1, &welcome), (1, &welcome), (2, &own)].map(|(id, welcome)| invite(tx, mls, id, welcome, Log::Ended)))
    });
    assert!(matches!(outcomes, [Ok(Invited::New), Ok(Invited::Known), Ok(Invited::Used)]), "{outcomes:?}");
    assert_eq!(device.events().len(), 1);
}

#[test]
fn a_position_is_never_used_twice() {
    // A lane remembers how far it has handed over; a message in front of that would never be sent.
    let (mut device, _) = Device::in_a_channel();
    let channel = device.channel;
    for number in 1..=3 {
        let row = device.send(id(number), "x");
        let page = device.run(move |tx, _, _| outbox::page(tx, channel, u64::from(number) - 1));
        assert_eq!(page.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [u64::from(number)]);
        device.deliver(EventKind::Application, id(number), row.mls);
        assert!(device.outbox().is_empty());
    }
}

#[test]
fn a_full_outbox_refuses() {
    let (device, _) = Device::in_a_channel();
    device.send(id(1), "第一");
    let channel = device.channel;
    device.run(move |tx, _, _| Ok(tx.put(OUTBOX_LAST, &channel.0, &450_u64.to_be_bytes())?));
    let (mls, federation, body) = (Arc::clone(&device.mls), Arc::clone(&device.federation), vec![1]);
    let put = move |tx: &Transaction<'_>| outbox::put(tx, &mls, &federation, channel, id(3), body);
    let full = device.keystore.transaction_blocking(put);
    assert!(matches!(full, Err(ClientError::OutboxFull)), "{full:?}");
}
