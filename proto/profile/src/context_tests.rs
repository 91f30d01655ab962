use lianxin_types::{Classification, Timestamp};

use super::*;

/// Made with Python's struct, hashlib and hmac.
const GOLDEN: &str = "\
    0105050505050505050505050505050505000000067a6f6e652d310300000000000000090000000ce88194e59088e6a0\
    b8e69fa500000009e5aea1e8aea1e6b3950002000000056a697765690000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000067368656e6a690000000000000007dddddddddddddddddddd\
    ddddddddddddddddddddddddddddddddddddddddddddeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\
    eeeeeeeeeeeeabababababababababababababababababababababababababababababababab";

fn department(name: &str) -> DepartmentId {
    name.parse().expect("well formed")
}

fn shenji(policy_version: u64) -> NamedDepartment {
    NamedDepartment { id: department("shenji"), policy_version, policy_digest: Digest([0xDD; 32]) }
}

fn label() -> Label {
    Label::new(Classification::General3, "联合核查", "审计法", Some(Timestamp(9))).expect("valid")
}

fn with(departments: Vec<NamedDepartment>, envelope: u8) -> Result<ChannelContext, ContextError> {
    let zone = "zone-1".parse().expect("well formed");
    ChannelContext::new(ChannelId([5; 16]), zone, label(), departments, Digest([envelope; 32]), [0xAB; 32])
}

fn context() -> ChannelContext {
    with(vec![shenji(7), NamedDepartment::without_policy(department("jiwei"))], 0xEE).expect("valid")
}

#[test]
fn golden_and_back() {
    let bytes = context().to_bytes();
    assert_eq!(hex::encode(&bytes), GOLDEN);
    assert_eq!(ChannelContext::from_bytes(&bytes), Ok(context()));
}

#[test]
fn every_cut_and_every_added_byte_is_refused() {
    let bytes = context().to_bytes();
    for cut in 0..bytes.len() {
        assert!(ChannelContext::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(ChannelContext::from_bytes(&longer), Err(DecodeError::Trailing { count: 1 }.into()));
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(ChannelContext::from_bytes(&newer), Err(DecodeError::UnknownVersion { version: 2 }.into()));
}

#[test]
fn departments_are_counted_ascending_and_unique() {
    let many = |count: usize| {
        let all = (0..count).map(|number| NamedDepartment::without_policy(department(&format!("d{number:03}"))));
        with(all.collect(), 0).map(|_| ())
    };
    assert_eq!(many(0), Err(ContextError::DepartmentCount { found: 0, limit: 64 }));
    assert_eq!(many(64), Ok(()));
    assert_eq!(many(65), Err(ContextError::DepartmentCount { found: 65, limit: 64 }));
    assert_eq!(with(vec![shenji(1), shenji(2)], 0), Err(ContextError::DepartmentOrder));

    let mut swapped = context();
    swapped.departments.swap(0, 1);
    assert_eq!(ChannelContext::from_bytes(&swapped.to_bytes()), Err(ContextError::DepartmentOrder));
}

#[test]
fn a_policy_has_a_version_and_a_digest_or_neither() {
    let refused = Err(ContextError::PolicyReference { department: department("shenji") });
    assert_eq!(with(vec![shenji(0)], 0), refused);
    let bare = NamedDepartment { policy_digest: Digest::ZERO, ..shenji(3) };
    assert_eq!(with(vec![bare], 0), refused);
}

#[test]
fn a_context_moves_forward_only() {
    let before = context();
    let changed = |field| Err(ContextError::Changed { field });
    assert_eq!(before.check_successor(&before), Ok(()));

    let jiwei = NamedDepartment::without_policy(department("jiwei"));
    let next = |departments, envelope| with(departments, envelope).expect("valid");
    assert_eq!(before.check_successor(&next(vec![shenji(8), jiwei.clone()], 1)), Ok(()));
    assert_eq!(before.check_successor(&next(vec![shenji(6), jiwei.clone()], 1)), changed("policy version"));
    assert_eq!(before.check_successor(&next(vec![shenji(7)], 0xEE)), changed("departments"));
    let weijian = NamedDepartment::without_policy(department("weijian"));
    let more = vec![shenji(8), jiwei.clone(), weijian.clone()];
    assert_eq!(before.check_successor(&next(more, 1)), changed("departments"), "none comes in");
    assert_eq!(before.check_successor(&next(vec![shenji(8), weijian], 1)), changed("departments"), "nor in a place");
    assert_eq!(before.check_successor(&next(vec![shenji(7), jiwei.clone()], 1)), changed("envelope digest"));
    let rewritten = NamedDepartment { policy_digest: Digest([1; 32]), ..shenji(7) };
    assert_eq!(before.check_successor(&next(vec![rewritten, jiwei], 1)), changed("policy digest"));

    let other_label = Label::new(Classification::General1, "a", "b", None).expect("valid");
    let variants = [
        ("channel", ChannelContext { channel: ChannelId([6; 16]), ..before.clone() }),
        ("zone", ChannelContext { zone: "zone-2".parse().expect("well formed"), ..before.clone() }),
        ("label", ChannelContext { label: other_label, ..before.clone() }),
        ("slot key", ChannelContext { slot_key: [0; 32], ..before.clone() }),
    ];
    for (field, variant) in variants {
        assert_eq!(before.check_successor(&variant), changed(field));
    }
}

#[test]
fn debug_hides_the_slot_key() {
    let shown = format!("{:?}", context());
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    assert!(shown.contains("jiwei"));
}

#[test]
fn derived_values_golden() {
    let group = [&[5; 16][..], &[0; 4]].concat();
    assert_eq!(hex::encode(slot(&[0xAB; 32], &group, Epoch(3))), "b2ef8674010de850a54833f136aa4ce3");
    assert_ne!(slot(&[0xAB; 32], &group, Epoch(4)), slot(&[0xAB; 32], &group, Epoch(3)));
    let reference = label_reference(&label()).to_hex();
    assert_eq!(reference, "3b0375279195c3c0980a2c5358a13176938970fcea109b138dc7f49c0f5cb9e1");
}
