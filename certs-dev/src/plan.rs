//! What is to be minted.

use anyhow::{Context as _, ensure};
use lianxin_types::{DepartmentId, ZoneId};

/// The officers of every department.
pub const OFFICER_ROLES: [&str; 3] = ["security", "audit", "system"];

/// A federation to mint: see [`FederationPlan::default`] for the one of the demo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FederationPlan {
    /// The departments; the first operates the zone. At least two, since a specimen of the first names the second.
    pub departments: Vec<DepartmentPlan>,
    /// The one zone.
    pub zone: ZoneId,
    /// DNS name or IP address at which the zone's gateway is reached; stands in its certificate.
    pub host: String,
    /// Its TCP port; 0 if it is known only later ([`crate::Minted::set_endpoint`]).
    pub port: u16,
    /// Names of the applications that every department gets.
    pub apps: Vec<String>,
}

/// A department to mint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DepartmentPlan {
    /// Its name in identities.
    pub id: DepartmentId,
    /// Its name for people.
    pub name: String,
}

impl Default for FederationPlan {
    /// 纪委监委, 审计局, 卫生健康委, and 外部单位: in the bundle like the others, and the one that no channel of the
    /// demo names. Two applications each, zone `cn-zj-1`, gateway at 127.0.0.1:7443.
    fn default() -> Self {
        let department = |id: &str, name: &str| DepartmentPlan {
            id: id.parse().expect("the literal is a department's name"),
            name: name.to_owned(),
        };
        Self {
            departments: vec![
                department("jiwei", "纪委监委"),
                department("shenji", "审计局"),
                department("weijian", "卫生健康委"),
                department("waibu", "外部单位"),
            ],
            zone: "cn-zj-1".parse().expect("the literal is a zone's name"),
            host: "127.0.0.1".to_owned(),
            port: 7443,
            apps: vec!["app-1".to_owned(), "app-2".to_owned()],
        }
    }
}

impl DepartmentPlan {
    /// Reads `id=名称`.
    ///
    /// # Errors
    /// If there is no `=`, the id is not a department's name, or the display name is empty.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (id, name) = text.split_once('=').context("write a department as id=名称, e.g. jiwei=纪委监委")?;
        ensure!(!name.is_empty(), "the display name after {id}= is empty");
        let id = id.parse().with_context(|| format!("{id} cannot be a department's id"))?;
        Ok(Self { id, name: name.to_owned() })
    }
}

impl FederationPlan {
    /// Whether the plan can be minted.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.departments.len() >= 2, "name at least two departments, one to talk to the other");
        for (index, department) in self.departments.iter().enumerate() {
            let twice = self.departments[..index].iter().any(|before| before.id == department.id);
            ensure!(!twice, "department {} is there twice", department.id);
        }
        ensure!(!self.host.is_empty(), "the gateway's host is empty");
        self.apps.iter().try_for_each(|name| check_file_name(name))
    }
}

/// Names of applications become folders.
pub(crate) fn check_file_name(name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(!name.is_empty() && name.chars().all(good), "{name:?} is not of lower-case letters, digits and hyphens");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_cannot_be_minted_are_refused() {
        let with = |change: fn(&mut FederationPlan)| {
            let mut plan = FederationPlan::default();
            change(&mut plan);
            plan.check().map_err(|error| error.to_string())
        };
        assert!(with(|plan| plan.departments.truncate(1)).is_err());
        assert!(with(|plan| plan.departments[1].id = plan.departments[0].id.clone()).is_err());
        assert!(with(|plan| plan.host.clear()).is_err());
        assert!(with(|plan| plan.apps.push("../../etc".to_owned())).is_err());
        assert_eq!(with(|_| ()), Ok(()));
    }

    #[test]
    fn a_department_is_written_with_its_display_name() {
        assert!(DepartmentPlan::parse("jiwei").is_err());
        assert!(DepartmentPlan::parse("jiwei=").is_err());
        assert!(DepartmentPlan::parse("纪委=纪委监委").is_err());
        let department = DepartmentPlan::parse("jiwei=纪委监委").expect("well formed");
        assert_eq!((department.id.as_str(), &department.name[..]), ("jiwei", "纪委监委"));
    }
}
