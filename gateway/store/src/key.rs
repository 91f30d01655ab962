//! Keys of the journal and the state: one letter, then fixed-length or length-prefixed fields, integers big-endian. Within
//! a family no key is the beginning of another, so a part number can follow (`parts`).

use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Digest, Epoch, Sequence, Timestamp};

/// Journal: a unit's own record, by leaf index.
pub(crate) const UNIT: u8 = b'j';
/// Journal: a unit's audit leaf and parts, by leaf index.
pub(crate) const AUDIT: u8 = b'a';
/// Journal: a unit's changes of state, by leaf index.
pub(crate) const CHANGES: u8 = b'f';
/// Journal: leaf index of a channel's event, by channel and sequence.
pub(crate) const EVENT: u8 = b'e';

/// Journal: the beginning of a state snapshot, by its number in the bucket.
pub(crate) const STATE_BEGIN: u8 = b'B';
/// Journal: a row of the state as a snapshot has it, by the snapshot's number and the row's key.
const STATE_ROW: u8 = b'S';
/// Journal: the end of a state snapshot, by its number in the bucket.
pub(crate) const STATE_END: u8 = b'E';

/// State: the fixed part of a channel's head.
pub(crate) const HEAD: u8 = b'h';
/// State: everybody a channel knows.
pub(crate) const ROSTER: u8 = b'm';
const CHANNEL_OF_DEVICE: u8 = b'n';
const CHANNEL_COUNT: u8 = b'c';
pub(crate) const CHANNEL_BUCKET: u8 = b'b';
pub(crate) const DUPLICATE: u8 = b'd';
const PREVIOUS_HEAD: u8 = b'p';
pub(crate) const REMEMBERED: u8 = b'r';
/// State: when calls were accepted, oldest first.
pub(crate) const REMEMBERED_AT: u8 = b'R';
const REMEMBERED_PACKAGES: u8 = b'P';
const GROUP_INFO: u8 = b'g';
pub(crate) const SNAPSHOT: u8 = b's';
pub(crate) const LAZY_SNAPSHOT: u8 = b'z';
const INBOX: u8 = b'i';
const INBOX_LAST: u8 = b'l';
const WELCOME: u8 = b'w';
const WELCOME_TREE: u8 = b't';
const WELCOME_WAITING: u8 = b'v';
const ONE_TIME: u8 = b'k';
const ONE_TIME_LAST: u8 = b'o';
const LAST_RESORT: u8 = b'y';
const CLAIM: u8 = b'q';
const CLAIM_BY: u8 = b'C';
pub(crate) const CURSOR: u8 = b'u';
const DEPARTMENT: u8 = b'x';
const REPORTED: u8 = b'@';

/// State: index of the first leaf that is not applied yet.
pub(crate) const APPLIED: &[u8] = b"!applied";

/// State: number of the first bucket that has not been dropped.
pub(crate) const DROPPED: &[u8] = b"!dropped";

/// Whether records of the key's family may need more than one part.
pub(crate) fn is_large(key: &[u8]) -> bool {
    matches!(
        key.first(),
        Some(
            &(GROUP_INFO
                | SNAPSHOT
                | LAZY_SNAPSHOT
                | WELCOME
                | WELCOME_TREE
                | ONE_TIME
                | LAST_RESORT
                | REMEMBERED_PACKAGES)
        )
    )
}

/// Whether rows of this family of the journal belong to state snapshots.
pub(crate) fn is_of_snapshot(family: u8) -> bool {
    matches!(family, STATE_BEGIN | STATE_ROW | STATE_END)
}

/// Whether the row is written lazily and the journal has no word of it.
pub(crate) fn is_lazy(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(LAZY_SNAPSHOT | CURSOR)))
}

/// The kind of row of the state, as an operator reads it.
pub(crate) fn family(key: &[u8]) -> &'static str {
    match key.first() {
        Some(&HEAD) => "head of a channel",
        Some(&ROSTER) => "roster of a channel",
        Some(&CHANNEL_OF_DEVICE) => "channel of a device",
        Some(&CHANNEL_COUNT) => "number of channels of a device",
        Some(&CHANNEL_BUCKET) => "bucket of a channel",
        Some(&DUPLICATE) => "accepted bytes of a channel",
        Some(&PREVIOUS_HEAD) => "last head of a device",
        Some(&(REMEMBERED | REMEMBERED_AT | REMEMBERED_PACKAGES)) => "remembered call",
        Some(&GROUP_INFO) => "group info of a channel",
        Some(&(SNAPSHOT | LAZY_SNAPSHOT)) => "group view of a channel",
        Some(&(INBOX | INBOX_LAST)) => "inbox of a device",
        Some(&(WELCOME | WELCOME_TREE | WELCOME_WAITING)) => "welcome of a channel",
        Some(&(ONE_TIME | ONE_TIME_LAST | LAST_RESORT)) => "key package of a device",
        Some(&(CLAIM | CLAIM_BY)) => "claim of a key package",
        Some(&CURSOR) => "cursor of a device",
        Some(&DEPARTMENT) => "counter of a department",
        Some(&b'!') => "mark of the state",
        _ => "row of unknown kind",
    }
}

/// The channel or the device, with its length, that a key of a large family starts with, behind the family.
pub(crate) fn subject(key: &[u8]) -> &[u8] {
    let Some((family, rest)) = key.split_first() else { return key };
    let length = match (*family, rest.first()) {
        (ONE_TIME | LAST_RESORT, Some(text)) => 1 + usize::from(*text),
        _ => size_of::<ChannelId>(),
    };
    &rest[..length.min(rest.len())]
}

struct Key(Vec<u8>);

impl Key {
    fn new(family: u8) -> Self {
        Self(vec![family])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn text(mut self, text: &str) -> Self {
        debug_assert!(text.len() < 256, "identities are bounded by DeviceUri::BYTES_MAX");
        self.0.push(text.len() as u8);
        self.raw(text.as_bytes())
    }

    fn device(self, device: &DeviceUri) -> Self {
        self.text(device.as_str())
    }

    fn channel(self, channel: &ChannelId) -> Self {
        self.raw(channel.as_bytes())
    }
}

/// A record of the journal by leaf index.
pub(crate) fn leaf(family: u8, index: u64) -> Vec<u8> {
    Key::new(family).number(index).0
}

/// The leaf index in a key made by [`leaf`], parts or not.
pub(crate) fn leaf_index(key: &[u8]) -> Option<u64> {
    key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

/// All events of a channel.
pub(crate) fn events(channel: &ChannelId) -> Vec<u8> {
    Key::new(EVENT).channel(channel).0
}

/// One event of a channel.
pub(crate) fn event(channel: &ChannelId, sequence: Sequence) -> Vec<u8> {
    Key::new(EVENT).channel(channel).number(sequence.0).0
}

/// A snapshot's first or last record.
pub(crate) fn state_mark(family: u8, number: u64) -> Vec<u8> {
    Key::new(family).number(number).0
}

/// All rows of the state that a snapshot has.
pub(crate) fn state_rows(number: u64) -> Vec<u8> {
    Key::new(STATE_ROW).number(number).0
}

/// A row of the state in a snapshot.
pub(crate) fn state_row(number: u64, row_key: &[u8]) -> Vec<u8> {
    Key::new(STATE_ROW).number(number).raw(row_key).0
}

/// The number in a key made by [`state_mark`] or [`state_row`].
pub(crate) fn snapshot_number(key: &[u8]) -> Option<u64> {
    leaf_index(key)
}

/// The fixed part of a channel's head.
pub(crate) fn head(channel: &ChannelId) -> Vec<u8> {
    Key::new(HEAD).channel(channel).0
}

/// What a channel knows of a device.
pub(crate) fn roster(channel: &ChannelId, device: &DeviceUri) -> Vec<u8> {
    Key::new(ROSTER).channel(channel).device(device).0
}

/// All channels of a device.
pub(crate) fn channels_of(device: &DeviceUri) -> Vec<u8> {
    Key::new(CHANNEL_OF_DEVICE).device(device).0
}

/// That a device is a member of a channel.
pub(crate) fn channel_of(device: &DeviceUri, channel: &ChannelId) -> Vec<u8> {
    Key::new(CHANNEL_OF_DEVICE).device(device).channel(channel).0
}

/// Of how many channels a device is a member.
pub(crate) fn channel_count(device: &DeviceUri) -> Vec<u8> {
    Key::new(CHANNEL_COUNT).device(device).0
}

/// All buckets in which a channel has events.
pub(crate) fn buckets_of(channel: &ChannelId) -> Vec<u8> {
    Key::new(CHANNEL_BUCKET).channel(channel).0
}

/// The sequence in a key made by [`bucket_of`].
pub(crate) fn bucket_first(key: &[u8]) -> Option<Sequence> {
    key.get(17..25).and_then(|bytes| bytes.try_into().ok()).map(|bytes| Sequence(u64::from_be_bytes(bytes)))
}

/// The bucket that a channel entered with this sequence.
pub(crate) fn bucket_of(channel: &ChannelId, first: Sequence) -> Vec<u8> {
    Key::new(CHANNEL_BUCKET).channel(channel).number(first.0).0
}

/// That MLS bytes were accepted in an epoch.
pub(crate) fn duplicate(channel: &ChannelId, epoch: Epoch, mls_hash: &Digest) -> Vec<u8> {
    Key::new(DUPLICATE).channel(channel).number(epoch.0).raw(&mls_hash.0).0
}

/// All MLS bytes accepted in a channel, oldest epoch first.
pub(crate) fn duplicates(channel: &ChannelId) -> Vec<u8> {
    Key::new(DUPLICATE).channel(channel).0
}

/// The epoch in a key made by [`duplicate`].
pub(crate) fn duplicate_epoch(key: &[u8]) -> Option<Epoch> {
    key.get(17..25).and_then(|bytes| bytes.try_into().ok()).map(|bytes| Epoch(u64::from_be_bytes(bytes)))
}

/// That a device has reported the commit at a sequence.
pub(crate) fn reported(channel: &ChannelId, commit: Sequence, reporter: &DeviceUri) -> Vec<u8> {
    Key::new(REPORTED).channel(channel).number(commit.0).device(reporter).0
}

/// The last head that a device named in a channel.
pub(crate) fn previous_head(channel: &ChannelId, device: &DeviceUri) -> Vec<u8> {
    Key::new(PREVIOUS_HEAD).channel(channel).device(device).0
}

/// What a call got, by the hash of its scope and id.
pub(crate) fn remembered(scope: &Digest) -> Vec<u8> {
    Key::new(REMEMBERED).raw(&scope.0).0
}

/// When a call was accepted.
pub(crate) fn remembered_at(time: Timestamp, scope: &Digest) -> Vec<u8> {
    Key::new(REMEMBERED_AT).number(time.0).raw(&scope.0).0
}

/// Time and scope in a key made by [`remembered_at`].
pub(crate) fn remembered_at_parts(key: &[u8]) -> Option<(Timestamp, Digest)> {
    let (time, scope) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*time)), Digest(scope.try_into().ok()?)))
}

/// The key packages that a call got.
pub(crate) fn remembered_packages(scope: &Digest) -> Vec<u8> {
    Key::new(REMEMBERED_PACKAGES).raw(&scope.0).0
}

/// GroupInfo of a channel's current epoch.
pub(crate) fn group_info(channel: &ChannelId) -> Vec<u8> {
    Key::new(GROUP_INFO).channel(channel).0
}

/// The group view that came with a unit.
pub(crate) fn snapshot(channel: &ChannelId) -> Vec<u8> {
    Key::new(SNAPSHOT).channel(channel).0
}

/// The group view that was put lazily; apart from [`snapshot`], so that only lazy writers touch it.
pub(crate) fn lazy_snapshot(channel: &ChannelId) -> Vec<u8> {
    Key::new(LAZY_SNAPSHOT).channel(channel).0
}

/// All inbox entries of a device.
pub(crate) fn inboxes(device: &DeviceUri) -> Vec<u8> {
    Key::new(INBOX).device(device).0
}

/// One inbox entry.
pub(crate) fn inbox(device: &DeviceUri, id: u64) -> Vec<u8> {
    Key::new(INBOX).device(device).number(id).0
}

/// The last inbox id of a device.
pub(crate) fn inbox_last(device: &DeviceUri) -> Vec<u8> {
    Key::new(INBOX_LAST).device(device).0
}

/// A Welcome: once, whatever the number of its recipients.
pub(crate) fn welcome(channel: &ChannelId, sequence: Sequence, ordinal: u8) -> Vec<u8> {
    Key::new(WELCOME).channel(channel).number(sequence.0).raw(&[ordinal]).0
}

/// The tree beside a Welcome.
pub(crate) fn welcome_tree(channel: &ChannelId, sequence: Sequence, ordinal: u8) -> Vec<u8> {
    Key::new(WELCOME_TREE).channel(channel).number(sequence.0).raw(&[ordinal]).0
}

/// All trees of an event.
pub(crate) fn welcome_trees(channel: &ChannelId, sequence: Sequence) -> Vec<u8> {
    Key::new(WELCOME_TREE).channel(channel).number(sequence.0).0
}

/// How many recipients of a Welcome have not confirmed it.
pub(crate) fn welcome_waiting(channel: &ChannelId, sequence: Sequence, ordinal: u8) -> Vec<u8> {
    Key::new(WELCOME_WAITING).channel(channel).number(sequence.0).raw(&[ordinal]).0
}

/// All one-time packages of a device, oldest first.
pub(crate) fn one_times(owner: &DeviceUri) -> Vec<u8> {
    Key::new(ONE_TIME).device(owner).0
}

/// One one-time package.
pub(crate) fn one_time(owner: &DeviceUri, ordinal: u64) -> Vec<u8> {
    Key::new(ONE_TIME).device(owner).number(ordinal).0
}

/// The last number given to a one-time package of a device.
pub(crate) fn one_time_last(owner: &DeviceUri) -> Vec<u8> {
    Key::new(ONE_TIME_LAST).device(owner).0
}

/// A device's last resort.
pub(crate) fn last_resort(owner: &DeviceUri) -> Vec<u8> {
    Key::new(LAST_RESORT).device(owner).0
}

/// That a one-time package was claimed for a channel.
pub(crate) fn claim(channel: &ChannelId, reference: &Digest) -> Vec<u8> {
    Key::new(CLAIM).channel(channel).raw(&reference.0).0
}

/// The claims that a department has on one-time packages of a device.
pub(crate) fn claims_by(owner: &DeviceUri, department: &DepartmentId) -> Vec<u8> {
    Key::new(CLAIM_BY).device(owner).text(department.as_str()).0
}

/// One of them.
pub(crate) fn claim_by(
    owner: &DeviceUri,
    department: &DepartmentId,
    channel: &ChannelId,
    reference: &Digest,
) -> Vec<u8> {
    Key::new(CLAIM_BY).device(owner).text(department.as_str()).channel(channel).raw(&reference.0).0
}

/// A device's cursor in a channel.
pub(crate) fn cursor(device: &DeviceUri, channel: &ChannelId) -> Vec<u8> {
    Key::new(CURSOR).device(device).channel(channel).0
}

/// A department's counter and previous commitment in the audit log.
pub(crate) fn department(department: &DepartmentId) -> Vec<u8> {
    Key::new(DEPARTMENT).text(department.as_str()).0
}
