//! Random units against the model, with restarts and lost states in between; the seed replays a failure.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{ChannelId, Clock, Digest, Sequence, Timestamp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::audit::check_audit;
use super::drops::{check_rebuild, drop_before, put_view};
use super::fixture::{
    ManualClock, block_on, change_group, channel, device, effects, event, first_group, leave, message, start,
    with_proposals,
};
use super::model::{Model, Predicted};
use super::packages::{claim, item, publish};
use super::suite::{Home, seed, times};
use crate::unit::{Effect, Expect, Outcome, Refused, Unit};
use crate::zone::ZoneOptions;
use crate::zone_store::{Member, ZoneStore};

const CHANNELS: u64 = 5;
const DEVICES: usize = 7;
const PACKAGES: usize = 30;

struct Play {
    seed: u64,
    random: StdRng,
    clock: Arc<ManualClock>,
    model: Model,
    sent: Vec<Unit>,
    channels: Vec<ChannelId>,
    /// The first bucket that has not been dropped.
    dropped: u64,
}

pub(super) fn units_do_what_the_model_says(home: &impl Home) {
    let seed = seed();
    let mut play = Play {
        seed,
        random: StdRng::seed_from_u64(seed),
        clock: ManualClock::new(),
        model: Model::default(),
        sent: Vec::new(),
        channels: (0..CHANNELS).map(channel).collect(),
        dropped: 0,
    };
    let options = ZoneOptions { bucket_records_max: 37, batch_units_max: 4, ..ZoneOptions::default() };
    let open = |play: &Play| {
        let clock = Arc::<ManualClock>::clone(&play.clock);
        home.open(clock, options).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
    };
    let mut store = open(&play);
    for round in 0..times(150) {
        play.step(&*store, round);
        match play.random.random_range(0..40) {
            0 => {
                drop(store);
                store = open(&play);
                play.compare(&*store);
            }
            1 => {
                drop(store);
                check_rebuild(home, || open(&play));
                store = open(&play);
                play.take_over_cursors(&*store);
                play.compare(&*store);
            }
            2 => {
                play.end_buckets(&*store);
                play.compare(&*store);
            }
            _ => {}
        }
    }
    play.compare(&*store);
    assert_eq!(check_audit(&*store, &play.channels), play.model.leaves, "seed {seed}");
}

impl Play {
    fn step(&mut self, store: &dyn ZoneStore, round: usize) {
        let now = self.clock.now().0;
        let jump: i64 = if self.random.random_range(0..20) == 0 { -3_600_000_000 } else { 40_000_000 };
        self.clock.set(Timestamp(now.saturating_add_signed(self.random.random_range(0..=jump.abs()) * jump.signum())));
        let count = self.random.random_range(1..7);
        let units: Vec<Unit> = (0..count).map(|_| self.unit()).collect();
        let now = self.clock.now();
        let predicted: Vec<_> = units.iter().map(|unit| self.model.commit(unit, now)).collect();
        let outcomes = block_on(store.commit_many(units.clone()));
        for ((unit, outcome), predicted) in units.iter().zip(outcomes).zip(predicted) {
            assert_eq!(shape(outcome), predicted, "seed {} round {round}: {unit:?}", self.seed);
        }
        self.sent.extend(units);
        let (who, where_to) =
            (device(self.random.random_range(0..DEVICES)), channel(self.random.random_range(0..CHANNELS)));
        let cursor = self.random.random_range(0..50);
        store.cursor_merge(&who, &[(where_to, Sequence(cursor))]).expect("writable");
        let known = self.model.cursors.entry((who, where_to)).or_default();
        *known = cursor.max(*known);
    }

    fn unit(&mut self) -> Unit {
        if self.random.random_range(0..12) == 0
            && let Some(old) = self.sent.choose(&mut self.random)
        {
            // A repeat, or its id for other bytes.
            let mut again = old.clone();
            if let (Some(call), true) = (&mut again.idempotency, self.random.random_range(0..3) == 0) {
                call.bytes_hash = Digest::sha256(b"other bytes");
            }
            return again;
        }
        let to = channel(self.random.random_range(0..CHANNELS));
        let who = self.random.random_range(0..DEVICES);
        let epoch = self.epoch(&to);
        match self.random.random_range(0..100) {
            0..10 => start(to, &device(who)),
            10..55 => self.message(to, who, epoch),
            55..70 => {
                let unit = self.change_group(to, who, epoch);
                self.on_proposals(unit)
            }
            70..75 => self.on_proposals(leave(to, &device(who), epoch)),
            75..82 => self.publish(who),
            82..90 => self.claim(who, to),
            90..92 => {
                let group_info = Bytes::from(vec![0x44; self.random.random_range(0..9_000)]);
                let current = first_group(epoch);
                effects(&device(who), vec![Effect::ReplaceGroupInfo { channel: to, current, group_info }])
            }
            92..94 => {
                let ids = (0..2).map(|_| self.random.random_range(0..6)).collect();
                effects(&device(who), vec![Effect::ConfirmInbox { device: device(who), ids }])
            }
            94..96 => event(to, &device(who), Expect::Epoch(first_group(epoch)), EventKind::Report, b"report"),
            _ => effects(&device(who), Vec::new()),
        }
    }

    /// Verified against the waiting proposals, or sometimes against others, or against the epoch alone.
    fn on_proposals(&mut self, unit: Unit) -> Unit {
        let to = unit.channel.as_ref().expect("an event").channel;
        let waiting = self.model.channels.get(&to).map_or(0, |channel| channel.proposal);
        match self.random.random_range(0..8) {
            0 => unit,
            1 => with_proposals(unit, waiting + 1),
            2 => with_proposals(unit, waiting.saturating_sub(1)),
            _ => with_proposals(unit, waiting),
        }
    }

    /// The current epoch, or sometimes one beside it.
    fn epoch(&mut self, to: &ChannelId) -> u64 {
        let current = self.model.channels.get(to).map_or(0, |channel| channel.epoch.0);
        match self.random.random_range(0..12) {
            0 => current + 1,
            1 => current.saturating_sub(1),
            _ => current,
        }
    }

    fn message(&mut self, to: ChannelId, who: usize, epoch: u64) -> Unit {
        let mut mls = vec![self.random.random_range(0..40u8)];
        if self.random.random_range(0..10) == 0 {
            mls.resize(self.random.random_range(4_000..20_000), 0x5A);
        }
        let mut unit = message(to, &device(who), epoch, &mls);
        if self.random.random_range(0..2) == 0 {
            let count = self.model.channels.get(&to).map_or(0, |channel| channel.events.len() as u64);
            let sequence = Sequence((count + 1).saturating_sub(self.random.random_range(0..6)));
            let head = Some(Head { sequence, chain_hash: Digest::ZERO });
            unit.channel.as_mut().expect("an event").event.head = head;
        }
        unit
    }

    fn change_group(&mut self, to: ChannelId, who: usize, epoch: u64) -> Unit {
        let mut some =
            |max| (0..self.random.random_range(0..max)).map(|_| self.random.random_range(0..DEVICES)).collect();
        let (mut seated, mut unseated): (Vec<usize>, Vec<usize>) = (some(4), some(2));
        seated.sort_unstable();
        seated.dedup();
        unseated.dedup();
        let seats: Vec<(usize, u32)> = seated.iter().map(|number| (*number, *number as u32 + 10)).collect();
        let mut unit = change_group(to, &device(who), epoch, &seats, &unseated);
        let bytes = Bytes::from(vec![0x33; self.random.random_range(0..9_000)]);
        if self.random.random_range(0..2) == 0 {
            let recipients = seated.iter().map(|number| device(*number)).collect();
            let tree = Bytes::from_static(b"tree");
            unit.effects.push(Effect::Welcome { recipients, inviter: device(who), welcome: bytes.clone(), tree });
        }
        if self.random.random_range(0..2) == 0 {
            unit.effects.push(Effect::GroupSnapshot { state: bytes });
        }
        let claims: Vec<Digest> =
            self.model.claims.keys().filter(|(id, _)| *id == to).map(|(_, claim)| *claim).collect();
        if let Some(reference) = claims.choose(&mut self.random) {
            unit.effects.push(Effect::UseClaims { channel: to, references: vec![*reference] });
        }
        unit
    }

    fn publish(&mut self, who: usize) -> Unit {
        let now = self.clock.now().0;
        let mut some = || {
            item(who, self.random.random_range(0..PACKAGES), Timestamp(now + self.random.random_range(0..900_000_000)))
        };
        let items = (0..4).map(|_| some()).collect();
        let last_resort = some();
        publish(who, items, Some(last_resort).filter(|_| self.random.random_range(0..4) == 0))
    }

    fn claim(&mut self, who: usize, to: ChannelId) -> Unit {
        let number = self.channels.iter().position(|channel| *channel == to).expect("one of ours") as u64;
        let first = self.random.random_range(0..DEVICES);
        let owners: Vec<usize> = (0..self.random.random_range(1..3)).map(|more| (first + more) % DEVICES).collect();
        claim(who, number, &owners)
    }

    /// Cursors are lazy: with the state the newer ones are lost, and never more than was said before.
    fn take_over_cursors(&mut self, store: &dyn ZoneStore) {
        for ((who, id), cursor) in &mut self.model.cursors {
            let left = store.cursor(who, id).expect("readable").0;
            assert!(left <= *cursor, "seed {}", self.seed);
            *cursor = left;
        }
    }

    fn end_buckets(&mut self, store: &dyn ZoneStore) {
        for id in &self.channels {
            let Some(view) = put_view(store, id) else { continue };
            let model = self.model.channels.get_mut(id).expect("a channel that there is");
            if model.snapshot.as_ref().is_none_or(|(_, sequence, _)| *sequence < view.sequence.0) {
                model.snapshot = Some((view.epoch, view.sequence.0, view.state));
            }
        }
        let droppable = block_on(store.prepare_drop()).expect("the zone is open");
        let before = self.random.random_range(0..=droppable + 1);
        let unit = drop_before(before);
        let outcome = block_on(store.commit_many(vec![unit.clone()])).remove(0);
        if before > droppable {
            assert_eq!(outcome, Err(Refused::BucketNeeded { bucket: droppable }), "seed {}", self.seed);
            return;
        }
        assert_eq!(shape(outcome), self.model.commit(&unit, self.clock.now()), "seed {}", self.seed);
        self.dropped = self.dropped.max(before);
        assert_eq!(store.health().journal.first_bucket, self.dropped.max(1), "seed {}", self.seed);
    }

    /// The events that each channel still has are those of the leaves from some leaf on, the same for all.
    fn compare_edge(&self, store: &dyn ZoneStore) {
        let (mut last_gone, mut first_left) = (None, u64::MAX);
        for id in self.channels.iter().filter(|id| self.model.channels.contains_key(*id)) {
            let events = &self.model.channels[id].events;
            let first = store.read(id, Sequence(0), 1, 1).expect("readable").first_retained.0 as usize;
            last_gone = last_gone.max(events[..first - 1].last().map(|event| event.leaf));
            first_left = first_left.min(events.get(first - 1).map_or(u64::MAX, |event| event.leaf));
        }
        assert!(last_gone.is_none_or(|gone| gone < first_left), "seed {}", self.seed);
        assert!(last_gone.is_none() || self.dropped > 1, "seed {}", self.seed);
    }

    fn compare(&self, store: &dyn ZoneStore) {
        self.compare_edge(store);
        let seed = self.seed;
        for id in &self.channels {
            self.compare_channel(store, id);
        }
        for number in 0..DEVICES {
            let who = device(number);
            let member: Vec<ChannelId> = self
                .model
                .channels
                .iter()
                .filter(|(_, channel)| channel.members.contains_key(&who))
                .map(|(id, _)| *id)
                .collect();
            assert_eq!(store.channels_of(&who, None, 100).expect("readable"), member, "seed {seed}");
            let entries = self.model.inboxes.get(&who).into_iter().flatten().enumerate();
            let waiting: Vec<_> =
                entries.filter(|(_, entry)| !entry.3).map(|(index, entry)| (index as u64 + 1, entry.clone())).collect();
            let inbox = store.inbox(&who, 0, 1_000).expect("readable");
            let inbox: Vec<_> = inbox
                .into_iter()
                .map(|entry| (entry.id, (entry.channel, entry.head.sequence.0, entry.welcome, false)))
                .collect();
            assert_eq!(inbox, waiting, "seed {seed}");
            let now = self.clock.now();
            let stock = self.model.packages.get(&who).cloned().unwrap_or_default();
            let living = stock.one_time.iter().filter(|(_, end, _)| *end > now).count();
            let count = store.key_package_count(&who, now).expect("readable");
            let last_resort = stock.last_resort.as_ref().is_some_and(|(_, end, _)| *end > now);
            assert_eq!(count, (living, last_resort), "seed {seed}");
            for number in 0..PACKAGES {
                let reference = item_reference(number, &who);
                for id in &self.channels {
                    let is_claimed = self.model.claims.contains_key(&(*id, reference));
                    assert_eq!(store.is_claimed(id, &reference).expect("readable"), is_claimed, "seed {seed}");
                }
            }
        }
        for ((who, id), cursor) in &self.model.cursors {
            assert_eq!(store.cursor(who, id).expect("readable"), Sequence(*cursor), "seed {seed}");
        }
    }

    fn compare_channel(&self, store: &dyn ZoneStore, id: &ChannelId) {
        let seed = self.seed;
        let head = store.head(id).expect("readable");
        let Some(model) = self.model.channels.get(id) else {
            assert_eq!(head, None, "seed {seed}");
            return;
        };
        let head = head.unwrap_or_else(|| panic!("seed {seed}: a channel is missing"));
        let members = model.members.iter();
        let members =
            members.map(|(who, (leaf, joined))| (who.clone(), Member { leaf: *leaf, joined: Sequence(*joined) }));
        assert_eq!(head.members, members.collect(), "seed {seed}");
        assert_eq!((head.epoch, head.epoch_sequence.0), (model.epoch, model.epoch_sequence), "seed {seed}");
        assert_eq!(
            (&head.leaving, &head.known, head.proposal_sequence.0),
            (&model.leaving, &model.known, model.proposal),
            "seed {seed}"
        );
        assert_eq!(store.group_info(id).expect("readable"), Some(model.group_info.clone()), "seed {seed}");
        let snapshot = store.group_snapshot(id).expect("readable");
        let snapshot = snapshot.map(|snapshot| (snapshot.epoch, snapshot.sequence.0, snapshot.state));
        assert_eq!(snapshot, model.snapshot, "seed {seed}");
        let page = store.read(id, Sequence(0), usize::MAX, usize::MAX).expect("readable");
        let events: Vec<_> =
            page.events.iter().map(|event| (&event.sender, &event.mls, event.kind, event.gateway_time)).collect();
        let left = &model.events[page.first_retained.0 as usize - 1..];
        let expect: Vec<_> = left.iter().map(|event| (&event.sender, &event.mls, event.kind, event.time)).collect();
        assert_eq!(events, expect, "seed {seed}");
    }
}

fn item_reference(number: usize, owner: &lianxin_types::DeviceUri) -> Digest {
    let owner: usize = owner.opaque_id()[1..].parse().expect("devices are named by number");
    item(owner, number, Timestamp(0)).reference
}

fn shape(outcome: Outcome) -> Result<Predicted, Refused> {
    outcome.map(|accepted| Predicted {
        sequence: accepted.sequence,
        gateway_time: accepted.gateway_time,
        leaf_index: accepted.leaf_index,
        key_packages: accepted.key_packages,
        is_repeat: accepted.is_repeat,
    })
}
