use lianxin_types::{ChannelId, Classification, Digest, Incarnation, Label};

use super::*;
use crate::{ContextError, NamedDepartment};

fn uri(name: &str) -> DeviceUri {
    format!("lianxin://jiwei/app/{name}/1").parse().expect("well formed")
}

fn context(channel: u8, zone: &str, versions: [u64; 2], slot_key: u8) -> ChannelContext {
    let label = Label::new(Classification::General3, "联合核查", "审计法", None).expect("valid");
    let departments = ["jiwei", "shenji"].into_iter().zip(versions).map(|(name, policy_version)| NamedDepartment {
        id: name.parse().expect("well formed"),
        policy_version,
        policy_digest: Digest([u8::try_from(policy_version).expect("small"); 32]),
    });
    let zone = zone.parse().expect("well formed");
    let envelope = Digest([0xEE; 32]);
    ChannelContext::new(ChannelId([channel; 16]), zone, label, departments.collect(), envelope, [slot_key; 32])
        .expect("valid")
}

fn roster(members: &[(&str, u8)]) -> Roster {
    let mut roster = Roster::default();
    for (name, key) in members {
        roster.add(uri(name), vec![*key; 32]);
    }
    roster
}

fn group(channel: u8, incarnation: u32) -> GroupId {
    GroupId { channel: ChannelId([channel; 16]), incarnation: Incarnation(incarnation) }
}

/// What `b` makes of the group of `a`, `b` and `c` that `a`'s commit at 9 has broken, with one thing changed by `change`.
fn found(of: u32, change: impl FnOnce(&mut GroupStart)) -> Result<(), ProfileError> {
    let (broken, before, members) = (group(5, of), context(5, "zone-1", [3, 7], 1), [("a", 1), ("b", 2), ("c", 3)]);
    let mut start = GroupStart {
        group: group(5, of.wrapping_add(1)),
        context: context(5, "zone-1", [3, 7], 2),
        roster: roster(&[("b", 2)]),
        head: Head { sequence: Sequence(9), chain_hash: Digest([0xCC; 32]) },
    };
    change(&mut start);
    let (members, culprit) = (roster(&members), uri("a"));
    let broken =
        Broken { group: &broken, context: &before, roster: &members, culprit: Some(&culprit), commit: Sequence(9) };
    check_follows(&start, broken)
}

#[test]
fn a_member_goes_on_without_the_culprit() {
    assert_eq!(found(0, |_| ()), Ok(()));
    assert_eq!(found(0, |start| start.head.sequence = Sequence(12)), Ok(()));
    assert_eq!(found(0, |start| start.context = context(5, "zone-1", [4, 7], 2)), Ok(()));
    assert_eq!(found(41, |_| ()), Ok(()));
}

#[test]
fn only_the_next_incarnation_of_the_same_channel_follows() {
    let next = Err(fault("it is not the next incarnation"));
    for other in [0, 2] {
        assert_eq!(found(0, |start| start.group = group(5, other)), next, "{other}");
    }
    assert_eq!(found(u32::MAX, |_| ()), next, "the number does not wrap");
    assert_eq!(found(0, |start| start.group = group(6, 1)), Err(fault("it is of another channel")));
}

#[test]
fn the_context_goes_on_with_another_slot_key() {
    let changed = |field| Err(ContextError::Changed { field }.into());
    assert_eq!(found(0, |start| start.context = context(5, "zone-1", [3, 7], 1)), changed("slot key"));
    assert_eq!(found(0, |start| start.context = context(5, "zone-2", [3, 7], 2)), changed("zone"));
    assert_eq!(found(0, |start| start.context = context(5, "zone-1", [3, 6], 2)), Ok(()), "versions are not compared");
    let within = context(5, "zone-1", [3, 7], 1);
    assert_eq!(
        within.check_successor(&context(5, "zone-1", [3, 7], 2)),
        Err(ContextError::Changed { field: "slot key" }),
        "within an incarnation it stays"
    );
}

#[test]
fn neither_the_culprit_nor_a_stranger_nor_another_key_starts_it() {
    for (who, creator) in [("the culprit", ("a", 1)), ("a stranger", ("d", 4)), ("another key", ("b", 9))] {
        assert_eq!(found(0, |start| start.roster = roster(&[creator])), Err(ProfileError::SenderMismatch), "{who}");
    }
}

#[test]
fn its_head_has_the_commit_behind_it() {
    let older = Err(fault("its head is older than the commit that broke the group"));
    assert_eq!(found(0, |start| start.head.sequence = Sequence(8)), older);
}
