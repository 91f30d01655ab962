//! A channel at random: who does what next.

use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_certs_dev::read_signing_key;
use lianxin_mls::CommitBundle;
use lianxin_mutation::{MlsKind, Seeded, mls};
use lianxin_profile::{RemovalData, RemovalReason, removal_message};
use lianxin_specimens::{Channel, Device, office};
use lianxin_types::{Clock as _, DeviceUri, Digest, GroupId, Incarnation, SystemClock};

use crate::classes::{Stock, mutants};
use crate::judges::{Handshake, Judges, Kind};
use crate::signing::{Signer, context_of};
use crate::trail::Trail;
use crate::verdicts::Seen;

const DEPARTMENTS: [&str; 3] = ["jiwei", "shenji", "weijian"];

/// What can happen in a channel beside invitations.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Remove,
    Leave,
    ComeBack,
    Revoke,
    ChangeKey,
}

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
    /// What has not happened in this round yet.
    to_come: Vec<Turn>,
    pub(crate) unknown: Vec<String>,
}

impl History {
    pub(crate) fn start(devices: usize) -> Self {
        let devices: Vec<Device> = (0..devices).map(|number| Device::of(DEPARTMENTS[number % 3])).collect();
        let channel = Channel::start(&devices[0], &DEPARTMENTS).expect("a start");
        let (info, tree, now) = (&channel.start.group_info, &channel.start.ratchet_tree, SystemClock.now());
        let judges = Judges::start(&office().federation(), info, tree, now);
        let roots = office().minted().roots().expect("minted");
        let trail = Trail::start(&roots, &office().federation(), info, tree, now);
        let context = context_of(&mls(MlsKind::Message, info)).expect("a GroupInfo");
        Self {
            channel,
            devices,
            members: vec![0],
            judges,
            trail,
            context,
            older: None,
            to_come: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// One change of the channel: an invitation while there are few, else any, but each kind once before one comes again.
    pub(crate) fn go_on(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let outside: Vec<usize> = (0..self.devices.len()).filter(|one| !self.members.contains(one)).collect();
        if self.members.len() < 3 {
            return self.invite(&outside, random, seen);
        }
        if self.to_come.is_empty() {
            self.to_come = vec![Turn::Remove, Turn::Leave, Turn::ComeBack, Turn::Revoke, Turn::ChangeKey];
        }
        match self.to_come.swap_remove(random.below(self.to_come.len())) {
            Turn::Remove => self.remove(random, seen),
            Turn::Leave => self.leave(random, seen),
            Turn::ComeBack => self.come_back(random, seen),
            Turn::Revoke => self.revoke(random, seen),
            Turn::ChangeKey => self.change_key(random, seen),
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
        self.judge_mutants_of(leaver, &handshake, random, seen);
        self.channel.leave(&self.devices[leaver], proposal).expect("acceptable");
        self.accept(&handshake, None);
        self.feed();
        let bundle = self.devices[committer].run(move |mls, tx, federation| mls.commit_pending(tx, federation, id));
        self.members.retain(|member| *member != leaver);
        self.commit(committer, &bundle.expect("a commit"), random, seen);
        self.replace(leaver);
    }

    /// A member has lost its group and comes back from outside.
    fn come_back(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let (member, lost) = self.two(random);
        let id = self.channel.id;
        let info = self.devices[member].run(move |mls, tx, _| mls.group_info(tx, id)).expect("a GroupInfo");
        let tree = self.channel.state.tree().expect("a tree").to_vec();
        let bundle = self.devices[lost].run(move |mls, tx, federation| {
            mls.discard(tx, id)?;
            mls.rejoin(tx, federation, id, &info, &tree)
        });
        let bundle = bundle.expect("a way back");
        self.change(Kind::Rejoin, lost, &bundle, random, seen);
    }

    /// A member's certificate is revoked; the gateway asks for its removal, a member commits it.
    fn revoke(&mut self, random: &mut Seeded, seen: &mut Seen) {
        let (committer, gone) = self.two(random);
        self.devices[gone].revoke();
        self.learn();
        let gateway = office().minted().gateway();
        let key = read_signing_key(&gateway.removal_key).expect("minted");
        let [certificate] = &self.devices[gone].identity().chain[..] else { panic!("a chain is one certificate") };
        let data = RemovalData { reason: RemovalReason::CertificateRevoked, evidence: Digest::sha256(certificate) };
        let leaf = self.leaf(gone);
        let group = GroupId { channel: self.channel.id, incarnation: Incarnation(0) };
        let sign = |signed: &[u8]| key.sign(signed).to_bytes();
        let proposal = removal_message(group, self.channel.state.epoch(), leaf, &data, sign);
        let caller: DeviceUri = "lianxin://jiwei/gateway/g/1".parse().expect("well formed");
        let (kind, now) = (Kind::Removal, SystemClock.now());
        let handshake = Handshake { kind, caller: caller.clone(), bytes: proposal.clone(), now };
        self.judge_mutants(&key, leaf, &handshake, random, seen);
        self.channel.removal(&caller, proposal).expect("acceptable");
        self.accept(&handshake, None);
        self.feed();
        let id = self.channel.id;
        let bundle = self.devices[committer].run(move |mls, tx, federation| mls.commit_pending(tx, federation, id));
        self.members.retain(|member| *member != gone);
        self.commit(committer, &bundle.expect("a commit"), random, seen);
        self.replace(gone);
    }

    /// The zone gets another removal key; a member moves the channel to it, which changes the context.
    fn change_key(&mut self, random: &mut Seeded, seen: &mut Seen) {
        office().minted().rotate_removal_key().expect("a writable temporary folder");
        office().reload();
        self.learn();
        let (committer, _) = self.two(random);
        let id = self.channel.id;
        let bundle = self.devices[committer].run(move |mls, tx, federation| mls.commit_pending(tx, federation, id));
        self.commit(committer, &bundle.expect("a commit"), random, seen);
    }

    fn learn(&mut self) {
        let federation = office().federation();
        self.judges.learn(&federation);
        self.trail.learned(&federation);
    }

    fn leaf(&self, device: usize) -> u32 {
        self.channel.state.roster().of(&self.devices[device].uri).expect("a member").leaf
    }

    fn commit(&mut self, sender: usize, bundle: &CommitBundle, random: &mut Seeded, seen: &mut Seen) {
        self.change(Kind::Commit, sender, bundle, random, seen);
    }

    fn change(&mut self, kind: Kind, sender: usize, bundle: &CommitBundle, random: &mut Seeded, seen: &mut Seen) {
        let handshake = self.handshake(kind, sender, &bundle.commit);
        self.judge_mutants_of(sender, &handshake, random, seen);
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

    fn judge_mutants_of(&mut self, sender: usize, handshake: &Handshake, random: &mut Seeded, seen: &mut Seen) {
        let key = SigningKey::from_bytes(&self.devices[sender].identity().key);
        let leaf = match handshake.kind {
            // The leftmost leaf that is free once the old one is (RFC 9420 section 7.7).
            Kind::Rejoin => {
                let own = self.leaf(sender);
                let taken = |leaf: u32| leaf != own && self.channel.state.roster().at(leaf).is_some();
                (0..).find(|leaf| !taken(*leaf)).expect("a tree has an end")
            }
            Kind::Commit | Kind::Proposal | Kind::Removal => self.leaf(sender),
        };
        self.judge_mutants(&key, leaf, handshake, random, seen);
    }

    fn judge_mutants(
        &mut self,
        key: &SigningKey,
        leaf: u32,
        handshake: &Handshake,
        random: &mut Seeded,
        seen: &mut Seen,
    ) {
        let leaves: Vec<u32> = self.channel.state.roster().seats().map(|seat| seat.leaf).collect();
        let older = self.older.as_deref();
        let signer = Signer { key, context: &self.context, leaf };
        let stock = Stock { signer, older, leaves: &leaves };
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

    /// All members read what happened; who has just come back has seen nothing but the last event.
    fn feed(&self) {
        for member in &self.members {
            let device = &self.devices[*member];
            match device.view(self.channel.id).expect("a readable state") {
                Some(_) => self.channel.feed(device).expect("the log is honest"),
                None => drop(device.process(self.channel.log.last().expect("an event")).expect("the log is honest")),
            }
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
