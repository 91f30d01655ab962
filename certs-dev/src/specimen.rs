//! Certificates that must be refused, one for each reason.

use std::path::Path;
use std::time::Duration;

use lianxin_trust::Usage;
use lianxin_types::{DepartmentId, Kind, Timestamp};

use crate::authority::{Authority, KeyKind};
use crate::issuance::{LEAF_LIFETIME, new_uri, valid_from};
use crate::leaf::Leaf;
use crate::paths::SpecimenPaths;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate that must be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Specimen {
    /// Its validity ended a day ago.
    Expired,
    /// Its validity begins in a day.
    NotYetValid,
    /// On its department's revocation list.
    Revoked,
    /// An authority outside the bundle that bears the first department's name.
    WrongCa,
    /// The first department's authority, the second department's name.
    OtherDepartment,
    /// An officer's certificate where a member's belongs.
    WrongKindOfficer,
    /// An application's MLS certificate where its TLS certificate belongs.
    WrongUsageMls,
}

impl Specimen {
    /// All specimens.
    pub const ALL: [Self; 7] = [
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::WrongCa,
        Self::OtherDepartment,
        Self::WrongKindOfficer,
        Self::WrongUsageMls,
    ];

    /// Its folder's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::WrongCa => "wrong-ca",
            Self::OtherDepartment => "other-department",
            Self::WrongKindOfficer => "wrong-kind-officer",
            Self::WrongUsageMls => "wrong-usage-mls",
        }
    }

    /// Whether there is an MLS certificate of the same kind besides the TLS one.
    pub const fn has_mls(self) -> bool {
        !matches!(self, Self::WrongKindOfficer | Self::WrongUsageMls)
    }
}

/// Issues all specimens: `authority` is the first department's. Returns the serial numbers that are to be revoked.
pub(crate) fn mint_all(
    out: &Path,
    authority: &Authority,
    first: &DepartmentId,
    second: &DepartmentId,
    now: Timestamp,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let stranger_key = out.join("specimens").join(Specimen::WrongCa.name()).join("ca.key");
    let (stranger, _) = Authority::create(first, &stranger_key, None, now)?;
    let mut revoked = Vec::new();
    for specimen in Specimen::ALL {
        let paths = SpecimenPaths::new(out, specimen.name());
        let department = if specimen == Specimen::OtherDepartment { second } else { first };
        let kind = if specimen == Specimen::WrongKindOfficer { Kind::Officer } else { Kind::App };
        let uri = new_uri(department, kind, "node-1")?;
        let (not_before, not_after) = match specimen {
            Specimen::Expired => (now.minus(31 * DAY), now.minus(DAY)),
            Specimen::NotYetValid => (now.plus(DAY), now.plus(31 * DAY)),
            _ => (valid_from(now), now.plus(LEAF_LIFETIME)),
        };
        let (usage, key) = match specimen {
            Specimen::WrongKindOfficer => (Usage::Officer, KeyKind::P256),
            Specimen::WrongUsageMls => (Usage::Mls, KeyKind::Ed25519),
            _ => (Usage::TlsClient, KeyKind::P256),
        };
        let issuer = if specimen == Specimen::WrongCa { &stranger } else { authority };
        let leaf = |usage| Leaf { uri: &uri, usage, host: None, not_before, not_after };
        let mut serials = vec![issuer.issue(&leaf(usage), key, &paths.tls_certificate, &paths.tls_key)?];
        if specimen.has_mls() {
            serials.push(issuer.issue(&leaf(Usage::Mls), KeyKind::Ed25519, &paths.mls_certificate, &paths.mls_key)?);
        }
        if specimen == Specimen::Revoked {
            revoked = serials;
        }
    }
    Ok(revoked)
}
