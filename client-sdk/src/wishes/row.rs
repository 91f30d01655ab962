//! How a wish is written, and what an application is told of one that did not come true.

use lianxin_types::{DecodeError, DeviceUri, IdempotencyId, LIMITS, Reader, Writer};

use crate::rows::read_uri;
use crate::waiters::Failure;

const VERSION: u8 = 1;

/// What was to be changed. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// The channel was to be made.
    Create = 1,
    /// Devices were to come in.
    Invite = 2,
    /// Devices were to be taken out.
    Remove = 3,
    /// This device was to leave.
    Leave = 4,
}

impl Change {
    /// The change with this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Create, Self::Invite, Self::Remove, Self::Leave].into_iter().find(|change| *change as u8 == number)
    }
}

/// Why a change was not made. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotMade {
    /// The gateway will never take it.
    Refused = 1,
    /// Others changed the channel first, again and again.
    Contended = 2,
    /// This device is a member no more, or is about to leave.
    NotMember = 3,
    /// The channel's group, or the profile, does not allow it.
    NotPossible = 4,
    /// This device came into the channel anew before it had read what became of it: it may have been made.
    Unknown = 5,
}

impl NotMade {
    const ALL: [Self; 5] = [Self::Refused, Self::Contended, Self::NotMember, Self::NotPossible, Self::Unknown];

    /// The reason with this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    pub(super) const fn because(failure: &Failure) -> Self {
        match failure {
            Failure::Refused(_) => Self::Refused,
            Failure::Superseded => Self::Contended,
            Failure::NotMember => Self::NotMember,
            Failure::NotPossible(_) => Self::NotPossible,
            Failure::GivenUp | Failure::NotServed => Self::Unknown,
        }
    }
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    Invite {
        devices: Vec<DeviceUri>,
        /// One of each device, in their order; none when they are to be claimed anew.
        key_packages: Vec<Vec<u8>>,
    },
    Remove {
        devices: Vec<DeviceUri>,
    },
    Leave,
}

impl Wanted {
    pub(crate) const fn change(&self) -> Change {
        match self {
            Self::Invite { .. } => Change::Invite,
            Self::Remove { .. } => Change::Remove,
            Self::Leave => Change::Leave,
        }
    }

    pub(crate) fn devices(&self) -> &[DeviceUri] {
        match self {
            Self::Invite { devices, .. } | Self::Remove { devices } => devices,
            Self::Leave => &[],
        }
    }
}

/// What an application wants changed in a channel, until it is so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WishRow {
    /// Under which its caller waits.
    pub(crate) id: IdempotencyId,
    /// The change that is on its way for it. A departure keeps it until the device is out.
    pub(crate) staged: Option<IdempotencyId>,
    /// How many changes were made for it in vain.
    pub(crate) attempts: u8,
    /// How often key packages were claimed for it in vain.
    pub(crate) claims: u8,
    pub(crate) wanted: Wanted,
}

impl WishRow {
    /// version u8, id 16, whether a change is on its way u8 and its id 16, attempts u8, claims u8, change u8, number of devices u16,
    /// devices, number of key packages u16, key packages; names and bytes with 32-bit lengths; big-endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(&self.id.0).u8(self.staged.is_some().into());
        self.staged.iter().for_each(|staged| {
            writer.raw(&staged.0);
        });
        writer.u8(self.attempts).u8(self.claims).u8(self.wanted.change() as u8);
        let devices = self.wanted.devices();
        writer.u16(devices.len() as u16);
        for device in devices {
            writer.bytes(device.as_str().as_bytes());
        }
        if let Wanted::Invite { key_packages, .. } = &self.wanted {
            writer.u16(key_packages.len() as u16);
            for package in key_packages {
                writer.bytes(package);
            }
        }
        writer.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("record version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let id = IdempotencyId(reader.array("id")?);
        let staged = match reader.u8("staged")? {
            0 => None,
            1 => Some(IdempotencyId(reader.array("staged id")?)),
            _ => return Err(DecodeError::OutOfRange { field: "staged" }),
        };
        let (attempts, claims) = (reader.u8("attempts")?, reader.u8("claims")?);
        let change = Change::of(reader.u8("change")?);
        let count = reader.u16("devices")?;
        let devices = (0..count).map(|_| read_uri(&mut reader, "device")).collect::<Result<Vec<_>, _>>()?;
        let wanted = match change {
            Some(Change::Invite) => {
                let count = reader.u16("key packages")?;
                if count != 0 && usize::from(count) != devices.len() {
                    return Err(DecodeError::OutOfRange { field: "key packages" });
                }
                let bytes_max = LIMITS.commit_bundle_bytes_max;
                let package = |_| reader.bytes("key package", bytes_max).map(<[u8]>::to_vec);
                let key_packages = (0..count).map(package).collect::<Result<_, _>>()?;
                Wanted::Invite { devices, key_packages }
            }
            Some(Change::Remove) => Wanted::Remove { devices },
            Some(Change::Leave) if devices.is_empty() => Wanted::Leave,
            _ => return Err(DecodeError::OutOfRange { field: "change" }),
        };
        reader.finish()?;
        Ok(Self { id, staged, attempts, claims, wanted })
    }
}

#[cfg(test)]
mod tests {
    use lianxin_mutation::{Mutator, seed, share};

    use super::*;

    fn rows() -> [WishRow; 4] {
        let device = |name: &str| format!("lianxin://{name}/app/b/c").parse().expect("well formed");
        let devices = vec![device("a"), device("d")];
        let id = IdempotencyId([7; 16]);
        let row = |staged, wanted| WishRow { id, staged, attempts: 2, claims: 1, wanted };
        let key_packages = vec![vec![0xAA], vec![0xBB, 0xCC]];
        [
            row(Some(IdempotencyId([8; 16])), Wanted::Invite { devices: devices.clone(), key_packages }),
            row(None, Wanted::Invite { devices: devices.clone(), key_packages: vec![] }),
            row(None, Wanted::Remove { devices }),
            row(None, Wanted::Leave),
        ]
    }

    #[test]
    fn golden_and_back() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (id, staged) = ("07".repeat(16), "08".repeat(16));
        let uri = |letter: &str| format!("000000136c69616e78696e3a2f2f{letter}2f6170702f622f63");
        let devices = format!("0002{}{}", uri("61"), uri("64"));
        let [invite, again, remove, leave] = rows();
        let packages = "000200000001aa00000002bbcc";
        assert_eq!(hex(&invite.to_bytes()), format!("01{id}01{staged}020102{devices}{packages}"));
        assert_eq!(hex(&again.to_bytes()), format!("01{id}00020102{devices}0000"));
        assert_eq!(hex(&remove.to_bytes()), format!("01{id}00020103{devices}"));
        assert_eq!(hex(&leave.to_bytes()), format!("01{id}000201040000"));
        for row in rows() {
            let bytes = row.to_bytes();
            assert_eq!(WishRow::from_bytes(&bytes), Ok(row));
            for cut in 0..bytes.len() {
                assert!(WishRow::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn mutants_are_refused_or_read_as_they_stand() {
        let (mut mutator, mut read) = (Mutator::new(seed()), 0);
        for row in rows() {
            let lengths = lianxin_mutation::lengths(&row.to_bytes());
            for number in 0..share(200, 5_000) {
                let mutant = mutator.mutate(&lengths, &lengths);
                if let Ok(found) = WishRow::from_bytes(&mutant.bytes) {
                    assert_eq!(found.to_bytes(), mutant.bytes, "mutant {number} of seed {}: {:?}", seed(), mutant.how);
                    read += 1;
                }
            }
        }
        assert!(read > 0, "no mutant came behind the first check");
    }

    #[test]
    fn numbers_are_their_own() {
        for number in 0..=u8::MAX {
            assert!(Change::of(number).is_none_or(|change| change as u8 == number));
            assert_eq!(NotMade::of(number).is_some(), (1..=5).contains(&number));
        }
        assert_eq!((Change::of(4), Change::of(5)), (Some(Change::Leave), None));
    }
}
