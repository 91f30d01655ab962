//! What a zone does all day: messages, commits with their Welcomes, group views, key packages published and claimed, inboxes
//! confirmed; and refused units between them.

use bytes::Bytes;
use lianxin_store::conformance::{change_group, channel, device, effects, message};
use lianxin_store::{Effect, KeyPackageItem, Unit};
use lianxin_types::{ChannelId, DeviceUri, Digest, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;

use crate::WRITERS;

/// Bodies of every size class: one part, many parts, none.
fn body(random: &mut StdRng, number: usize) -> Vec<u8> {
    let size = if random.random_range(0..10) == 0 {
        random.random_range(4_000..70_000)
    } else {
        random.random_range(0..2_000)
    };
    let mut bytes = vec![0; size];
    random.fill(&mut bytes[..]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// One writer with a channel of its own, and a guest who comes and goes.
pub(crate) struct Day {
    number: u64,
    pub(crate) own: ChannelId,
    pub(crate) creator: DeviceUri,
    guest: usize,
    is_there: bool,
    epoch: u64,
    invites: u64,
    packages: u64,
}

impl Day {
    pub(crate) fn new(number: u64) -> Self {
        let (own, creator, guest) = (channel(100 + number), device(number as usize), 50 + number as usize);
        Self { number, own, creator, guest, is_there: false, epoch: 0, invites: 0, packages: 0 }
    }

    /// The next units; each round another one may be refused, and then nothing of it is seen.
    pub(crate) fn round(&mut self, random: &mut StdRng, round: usize) -> Vec<Unit> {
        match random.random_range(0..10) {
            0 | 1 => vec![self.change(random)],
            2 => vec![self.publish(random)],
            3 => vec![self.claim(random)],
            4 if self.invites > 0 => vec![self.confirm()],
            _ => self.messages(random, round),
        }
    }

    fn messages(&self, random: &mut StdRng, round: usize) -> Vec<Unit> {
        let bytes = body(random, round);
        let mut units = vec![message(self.own, &self.creator, self.epoch, &bytes)];
        if random.random_range(0..3) == 0 {
            // Of another writer's channel: refused, and nothing of it may ever be seen.
            let to = channel(100 + random.random_range(0..WRITERS));
            units.push(message(to, &device(99), self.epoch, &bytes));
            units.push(message(self.own, &self.creator, self.epoch, &[&bytes[..], b"!"].concat()));
        }
        units
    }

    /// The guest comes with a Welcome, or goes.
    fn change(&mut self, random: &mut StdRng) -> Unit {
        let (seated, unseated) =
            if self.is_there { (vec![], vec![self.guest]) } else { (vec![(self.guest, 1)], vec![]) };
        let mut unit = change_group(self.own, &self.creator, self.epoch, &seated, &unseated);
        let state = Bytes::from(body(random, self.epoch as usize));
        unit.effects.push(Effect::GroupSnapshot { state });
        if !self.is_there {
            let (welcome, tree) = (Bytes::from(body(random, 1)), Bytes::from(body(random, 2)));
            let (recipients, inviter) = (vec![device(self.guest)], self.creator.clone());
            unit.effects.push(Effect::Welcome { recipients, inviter, welcome, tree });
            self.invites += 1;
        }
        self.is_there = !self.is_there;
        self.epoch += 1;
        unit
    }

    fn publish(&mut self, random: &mut StdRng) -> Unit {
        let mut item = || {
            self.packages += 1;
            let bytes = Bytes::from(body(random, self.packages as usize));
            let reference = Digest::sha256(&[&self.number.to_be_bytes()[..], &self.packages.to_be_bytes()].concat());
            KeyPackageItem { reference, not_after: Timestamp(u64::MAX / 2), bytes }
        };
        let (one_time, last_resort) = (vec![item(), item()], Some(item()));
        effects(&self.creator, vec![Effect::PublishKeyPackages { owner: self.creator.clone(), one_time, last_resort }])
    }

    /// One of everybody's packages, if there is one; else the last resort, if there is one.
    fn claim(&self, random: &mut StdRng) -> Unit {
        let owner = device(random.random_range(0..WRITERS) as usize);
        let department = self.creator.department().clone();
        effects(&self.creator, vec![Effect::ClaimKeyPackages { channel: self.own, department, owners: vec![owner] }])
    }

    fn confirm(&self) -> Unit {
        let device = device(self.guest);
        effects(&device.clone(), vec![Effect::ConfirmInbox { device, ids: vec![self.invites] }])
    }
}
