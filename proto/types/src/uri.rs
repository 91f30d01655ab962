//! Who somebody is: `lianxin://<department>/<kind>/<opaque id>/<device>` (PROTOCOL 1).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UriError {
    /// It does not start with `lianxin://` or does not have exactly four segments.
    #[error("read an identity: it is not of the form lianxin://department/kind/id/device")]
    Shape,
    /// A segment is empty, longer than 64 bytes, or has other characters than `a-z 0-9 -`.
    #[error("{segment} is not 1 to 64 lower-case letters, digits or hyphens")]
    Segment {
        /// Which segment.
        segment: &'static str,
    },
    /// The kind is none of `app person officer gateway witness issuer`.
    #[error("read an identity: its kind is none of app, person, officer, gateway, witness, issuer")]
    Kind,
}

/// Longest segment of an identity, in bytes.
const SEGMENT_BYTES_MAX: usize = 64;

fn checked(segment: &'static str, text: &str) -> Result<(), UriError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > SEGMENT_BYTES_MAX || !text.bytes().all(good) {
        return Err(UriError::Segment { segment });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $segment:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = UriError;

            fn from_str(text: &str) -> Result<Self, UriError> {
                checked($segment, text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A department's short name in identities: 1 to 64 lower-case letters, digits, hyphens. Organisations are public,
    /// so it is shown whole; the Chinese display name is in the trust bundle.
    DepartmentId,
    "department"
);
name!(
    /// The name of a zone, a place where data may live; same alphabet as a department's.
    ZoneId,
    "zone"
);

/// What a certificate's holder is. A certificate of one kind is refused in every other place (PROTOCOL 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A department application.
    App,
    /// A person's device.
    Person,
    /// A security, audit or system officer.
    Officer,
    /// A gateway.
    Gateway,
    /// A department's witness.
    Witness,
    /// A department's issuer of device certificates.
    Issuer,
}

impl Kind {
    /// All kinds, in the order of PROTOCOL 1.
    pub const ALL: [Self; 6] = [Self::App, Self::Person, Self::Officer, Self::Gateway, Self::Witness, Self::Issuer];

    /// The word in an identity.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Person => "person",
            Self::Officer => "officer",
            Self::Gateway => "gateway",
            Self::Witness => "witness",
            Self::Issuer => "issuer",
        }
    }

    /// Whether holders of this kind own MLS leaves and may call the messaging services.
    pub const fn is_member(self) -> bool {
        matches!(self, Self::App | Self::Person)
    }
}

/// The identity of one device: one MLS leaf, or one TLS peer.
///
/// ```
/// use lianxin_types::{DeviceUri, Kind};
/// let device: DeviceUri = "lianxin://jiwei/app/a7f3/node-1".parse()?;
/// assert_eq!(device.department().as_str(), "jiwei");
/// assert_eq!(device.kind(), Kind::App);
/// # Ok::<(), lianxin_types::UriError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUri {
    text: Box<str>,
    department: DepartmentId,
    kind: Kind,
}

impl DeviceUri {
    /// Longest identity in bytes.
    pub const BYTES_MAX: usize = "lianxin://".len() + SEGMENT_BYTES_MAX * 3 + "officer".len() + 3;

    /// The department that the identity names.
    pub const fn department(&self) -> &DepartmentId {
        &self.department
    }

    /// What the holder is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The opaque id that the department assigned.
    pub fn opaque_id(&self) -> &str {
        self.segment(2)
    }

    /// The device under that id.
    pub fn device(&self) -> &str {
        self.segment(3)
    }

    /// The whole identity, as in the certificate. Never for a log: `Debug` shows the department and a short hash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn segment(&self, index: usize) -> &str {
        self.text["lianxin://".len()..].split('/').nth(index).unwrap_or_default()
    }
}

impl FromStr for DeviceUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let path = text.strip_prefix("lianxin://").ok_or(UriError::Shape)?;
        let mut segments = path.split('/');
        let (Some(department), Some(kind), Some(id), Some(device), None) =
            (segments.next(), segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(UriError::Shape);
        };
        checked("id", id)?;
        checked("device", device)?;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(UriError::Kind)?;
        Ok(Self { text: text.into(), department: department.parse()?, kind })
    }
}

impl fmt::Debug for DeviceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:?}", self.department, self.kind.as_str(), crate::Digest::sha256(self.text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_shapes_are_refused() {
        let refused = |text: &str| text.parse::<DeviceUri>().expect_err(text);
        assert_eq!(refused("https://jiwei/app/a/b"), UriError::Shape);
        assert_eq!(refused("lianxin://jiwei/app/a"), UriError::Shape);
        assert_eq!(refused("lianxin://jiwei/app/a/b/c"), UriError::Shape);
        assert_eq!(refused("lianxin://jiwei/admin/a/b"), UriError::Kind);
        assert_eq!(refused("lianxin://Jiwei/app/a/b"), UriError::Segment { segment: "department" });
        assert_eq!(refused("lianxin://jiwei/app//b"), UriError::Segment { segment: "id" });
        assert_eq!(refused("lianxin://jiwei/app/张三/b"), UriError::Segment { segment: "id" });
        assert_eq!(
            refused(&format!("lianxin://jiwei/app/a/{}", "b".repeat(65))),
            UriError::Segment { segment: "device" }
        );
    }

    #[test]
    fn every_kind_parses_and_debug_hides_the_id() {
        for kind in Kind::ALL {
            let uri: DeviceUri =
                format!("lianxin://shenji/{}/id-77/dev-1", kind.as_str()).parse().expect("well formed");
            assert_eq!((uri.kind(), uri.opaque_id(), uri.device()), (kind, "id-77", "dev-1"));
            assert!(!format!("{uri:?}").contains("id-77"));
        }
    }
}
