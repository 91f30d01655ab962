//! Bytes that nobody meant.

use lianxin_mls::{MlsError, Processed};
use lianxin_profile::{
    check_key_package, check_welcome, parse_application, parse_group_info, parse_handshake, parse_tree, parse_welcome,
};
use lianxin_tlog::EventKind;
use lianxin_types::{Clock as _, SystemClock};
use openmls_rust_crypto::RustCrypto;

use crate::device::Device;
use crate::federation::office;
use crate::gateway::{Gateway, join};

/// A small generator, so that a failure repeats (SplitMix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mutant = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(mutant.len().max(1));
            match self.below(4) {
                0 if !mutant.is_empty() => mutant[at] ^= 1 << self.below(8),
                1 if !mutant.is_empty() => mutant[at] = self.next() as u8,
                2 => mutant.truncate(at),
                _ => mutant.insert(at.min(mutant.len()), self.next() as u8),
            }
        }
        mutant
    }
}

const SEED: u64 = 20_260_217;

#[test]
fn mutants_of_every_message_are_refused_without_a_panic() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, shenji.key_package());
    let packages = [package.clone()];
    let bundle =
        jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages)).expect("a commit");
    let mut random = Seeded(SEED);
    let crypto = RustCrypto::default();
    for round in 0..400 {
        let mut changed = bundle.clone();
        match round % 3 {
            0 => changed.commit = random.mutate(&bundle.commit),
            1 => changed.welcome = random.mutate(&bundle.welcome),
            _ => changed.group_info = random.mutate(&bundle.group_info),
        }
        let mutant = random.mutate(&package);
        let checked = check_key_package(&office().federation, &crypto, &mutant, SystemClock.now());
        assert!(mutant == package || checked.is_err(), "round {round} of seed {SEED}");
        for bytes in [&changed.commit, &changed.welcome, &changed.group_info, &mutant] {
            let _any = (parse_handshake(bytes), parse_application(bytes), parse_welcome(bytes), parse_tree(bytes));
            let _any = (parse_group_info(bytes), check_welcome(bytes, &[]));
        }
        if changed.commit != bundle.commit && parse_handshake(&changed.commit).is_ok() {
            // A changed confirmation or membership tag is for members to find (facts: server side).
            let _either = check_only(&gateway, &jiwei, &changed);
        }
    }
    gateway.commit(&jiwei, &bundle).expect("the original is as good as ever");
}

fn check_only(gateway: &Gateway, sender: &Device, bundle: &lianxin_mls::CommitBundle) -> bool {
    gateway.would_accept(sender, bundle)
}

#[test]
fn mutants_in_an_invitation_do_not_let_anybody_in() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, shenji.key_package());
    let bundle =
        jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package])).expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    let good = gateway.invitation(&bundle);
    let mut random = Seeded(SEED + 1);
    for round in 0..60 {
        let mut changed = good.clone();
        if round % 2 == 0 {
            changed.welcome = random.mutate(&good.welcome);
        } else {
            changed.tree = random.mutate(&good.tree);
        }
        if changed != good {
            assert!(join(&shenji, &changed).is_err(), "round {round} of seed {}", SEED + 1);
        }
    }
    join(&shenji, &good).expect("a join");
}

#[test]
fn mutants_in_the_log_are_hidden_and_the_next_message_is_heard() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    let mut random = Seeded(SEED + 2);
    for round in 0..40 {
        let sent = jiwei.encrypt(gateway.channel, "原文".as_bytes()).expect("encrypted").mls;
        let mutant = random.mutate(&sent);
        if mutant == sent {
            continue;
        }
        let kind = [EventKind::Application, EventKind::Proposal][round % 2];
        gateway.append(kind, &jiwei.uri, mutant);
        let heard = gateway.feed(&shenji);
        assert!(matches!(&heard[..], [Processed::Hidden(_)]), "round {round} of seed {}: {heard:?}", SEED + 2);
    }
    let seen = gateway.feed(&jiwei);
    if seen.iter().any(|one| matches!(one, Processed::NotRemembered { .. })) {
        let channel = gateway.channel;
        assert!(matches!(jiwei.encrypt(channel, b"x"), Err(MlsError::OlderState)));
        let bundle = jiwei.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
        gateway.commit(&jiwei, &bundle.expect("new keys are due")).expect("acceptable");
        gateway.feed(&jiwei);
    }
    gateway.say(&jiwei, "还在".as_bytes());
    assert!(matches!(gateway.feed(&shenji).last(), Some(Processed::Message { .. })));
}
