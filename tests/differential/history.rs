//! A channel at random: who does what next.

use ed25519_dalek::SigningKey;
use lianxin_mls::CommitBundle;
use lianxin_mutation::{MlsKind, Seeded, mls};
use lianxin_specimens::{Channel, Device, office};
use lianxin_types::{Clock as _, SystemClock};

use crate::classes::{Stock, mutants};
use crate::judges::{Handshake, Judges, Kind};
use crate::signing::context_of;
use crate::trail::Trail;
use crate::verdicts::Seen;

const DEPARTMENTS: [&str; 3] = ["jiwei", "shenji", "weijian"];

pub(crate) struct History {
    channel: Channel,
    /// Members first; the others are invited when their turn comes.
    devices: Vec<Device>,
    members: Vec<usize>,
    judges: Judges,
    trail: Trail,
    /// Group context of the current epoch.
    context: Vec<u8>,
    older: Option<Vec<u8>>,
    pub(crate) unknown: Vec<String>,
}

impl History {
    pub(crate) fn start(devices: usize) -> Self {
        let devices: Vec<Device> = (0..devices).map(|number| Device::of(DEPARTMENTS[number % 3])).collect();
        let channel = Channel::start(&devices[0], &DEPARTMENTS).expect("a start");
        let (info, tree, now) = (&channel.start.group_info, &channel.start.ratchet_tree, SystemClock.now());
        let judges = Judges::start(office().federation(), info, tree, now);
        let roots = office().minted().roots().expect("minted");
        let trail = Trail::start(&roots, office().federation(), info, tree, now);
        let context = context_of(&mls(MlsKind::Message, info)).expect("a GroupInfo");
        Self { channel, devices, members: vec![0], judges, trail, context, older: None, unknown: Vec::new() }
    }

    /// One change of the channel: an invitation while there are few, else any.
    pub(crate) fn go_on(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let outside: Vec<usize> = (0..self.devices.len()).filter(|one| !self.members.contains(one)).collect();
        let few = self.members.len() < 3;
        match random.below(3) {
            0 if !few => self.remove(random, seen),
            1 if !few => self.leave(random, seen),
            _ if !outside.is_empty() => self.invite(&outside, random, seen),
            _ => self.remove(random, seen),
        }
    }

    fn invite(&mut self, outside: &[usize], random: &mut Seeded, seen: &mut Seen) {
        let inviter = self.members[random.below(self.members.len())];
        let count = (1 + random.below(2)).min(outside.len());
        let newcomers = outside[..count].to_vec();
        let packages: Vec<_> = newcomers.iter().map(|one| self.devices[*one].key_package()).collect();
        let id = self.channel.id;
        let bundle = self.devices[inviter].run(move |mls, tx, federation| mls.invite(tx, federation, id, &packages));
        let bundle = bundle.expect("an invitation");
        self.commit(inviter, &bundle, random, seen);
        let invitation = self.channel.invitation(&self.devices[inviter], &bundle).expect("an invitation");
        for newcomer in newcomers {
            let invitation = invitation.clone();
            let joined = self.devices[newcomer].run(move |mls, tx, federation| mls.join(tx, federation, &invitation));
            joined.expect("a join");
            self.members.push(newcomer);
        }
    }

    fn remove(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let (remover, gone) = self.two(random);
        let (id, uri) = (self.channel.id, self.devices[gone].uri.clone());
        let bundle = self.devices[remover].run(move |mls, tx, federation| mls.remove(tx, federation, id, &[uri]));
        self.members.retain(|member| *member != gone);
        self.commit(remover, &bundle.expect("a removal"), random, seen);
        self.replace(gone);
    }

    fn leave(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let (committer, leaver) = self.two(random);
        let id = self.channel.id;
        let proposal = self.devices[leaver].run(move |mls, tx, _| mls.leave(tx, id)).expect("a proposal");
        let handshake = self.handshake(Kind::Proposal, leaver, &proposal);
        self.judge_mutants(leaver, &handshake, random, seen);
        self.channel.leave(&self.devices[leaver], proposal).expect("acceptable");
        self.accept(&handshake, None);
        self.feed();
        let bundle = self.devices[committer].run(move |mls, tx, federation| mls.commit_pending(tx, federation, id));
        self.members.retain(|member| *member != leaver);
        self.commit(committer, &bundle.expect("a commit"), random, seen);
        self.replace(leaver);
    }

    fn commit(&mut self, sender: usize, bundle: &CommitBundle, random: &mut Seeded, seen: &mut Seen) {
        let handshake = self.handshake(Kind::Commit, sender, &bundle.commit);
        self.judge_mutants(sender, &handshake, random, seen);
        self.channel.commit(&self.devices[sender], bundle).expect("acceptable");
        let context = context_of(&mls(MlsKind::Message, &bundle.group_info)).expect("a GroupInfo");
        self.accept(&handshake, Some(&context));
        self.context = context;
        self.older = Some(bundle.commit.clone());
        self.feed();
    }

    fn accept(&mut self, handshake: &Handshake, context: Option<&[u8]>) {
        self.judges.accept(handshake, context);
        self.trail.accepted(handshake);
    }

    fn judge_mutants(&mut self, sender: usize, handshake: &Handshake, random: &mut Seeded, seen: &mut Seen) {
        let key = SigningKey::from_bytes(&self.devices[sender].identity().key);
        let leaves: Vec<u32> = self.channel.state.roster().seats().map(|seat| seat.leaf).collect();
        let older = self.older.as_deref();
        let stock = Stock { key: &key, context: &self.context, older, leaves: &leaves };
        for (class, bytes) in mutants(&handshake.bytes, &stock, random) {
            let class = format!("{:?}: {class}", handshake.kind).to_lowercase();
            let mutant = Handshake { bytes, ..handshake.clone() };
            let verdicts = self.judges.judge(&mutant);
            let panicked = [&verdicts.first, &verdicts.second].iter().any(|one| matches!(one, Err(e) if e == "PANIC"));
            if !seen.add(&class, &verdicts) || panicked {
                let replay = self.trail.keep(&class, &mutant);
                self.unknown.push(format!("{class}: {verdicts:?}; replay with: {replay}"));
            }
        }
    }

    fn handshake(&self, kind: Kind, sender: usize, bytes: &[u8]) -> Handshake {
        let caller = self.devices[sender].uri.clone();
        Handshake { kind, caller, bytes: bytes.to_vec(), now: SystemClock.now() }
    }

    /// All members read what happened.
    fn feed(&self) {
        for member in &self.members {
            self.channel.feed(&self.devices[*member]).expect("the log is honest");
        }
    }

    /// Who is gone does not come back: a new device stands in its place.
    fn replace(&mut self, gone: usize) {
        self.devices[gone] = Device::of(DEPARTMENTS[gone % 3]);
    }

    fn two(&self, random: &mut Seeded) -> (usize, usize) {
        let one = random.below(self.members.len());
        let other = (one + 1 + random.below(self.members.len() - 1)) % self.members.len();
        (self.members[one], self.members[other])
    }
}
