//! From one federation to the next: a bundle follows the one in force, and no revocation is forgotten (PROTOCOL 9).

use lianxin_types::DepartmentId;
use thiserror::Error;

use crate::federation::Federation;
use crate::verified::{BundleError, VerifiedBundle};

/// Why a federation may not take the place of the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SuccessionError {
    /// The bundle does not follow.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A revocation list is another one than the one in force, and its number is not higher (RFC 5280 section 5.2.3).
    #[error("the revocation list of {department} is not newer than the one in force")]
    OlderRevocationList {
        /// Whose.
        department: DepartmentId,
    },
    /// There is no list of an authority that has one in force.
    #[error("the revocation list of {department} is missing, and there is one in force")]
    MissingRevocationList {
        /// Whose.
        department: DepartmentId,
    },
}

impl VerifiedBundle {
    /// Whether `newer` may take this bundle's place when all of `known` are: as [`VerifiedBundle::check_successor`], and a
    /// bundle several versions ahead follows if its predecessors lead here one by one. `known` may be in any order and hold
    /// more than is needed. Gives the bundles between the two, ascending.
    ///
    /// # Errors
    /// As [`VerifiedBundle::check_successor`]; [`BundleError::BrokenChain`] also if a bundle between the two is missing.
    pub fn check_follows<'known>(&self, newer: &Self, known: &'known [Self]) -> Result<Vec<&'known Self>, BundleError> {
        let broken = BundleError::BrokenChain { have: self.bundle.version, found: newer.bundle.version };
        let mut between: Vec<&Self> = Vec::new();
        loop {
            let at = between.last().copied().unwrap_or(newer);
            match self.check_successor(at) {
                Ok(()) => {
                    between.reverse();
                    return Ok(between);
                }
                Err(BundleError::BrokenChain { .. }) => {}
                // A predecessor at or below our version that is not ours: the chain went past us.
                Err(_) if !between.is_empty() => return Err(broken),
                Err(error) => return Err(error),
            }
            let (predecessor, version) = (at.bundle.predecessor, at.bundle.version);
            let before = known.iter().find(|one| Some(one.digest) == predecessor && one.bundle.version < version);
            between.push(before.ok_or_else(|| broken.clone())?);
        }
    }
}

impl Federation {
    /// Whether `newer` may take this federation's place: its bundle follows (`known` and the answer as in
    /// [`VerifiedBundle::check_follows`]), and each authority that stays and has a revocation list keeps it or has one with a
    /// higher number.
    ///
    /// # Errors
    /// [`SuccessionError`], the bundle first.
    pub fn check_successor<'known>(
        &self,
        newer: &Self,
        known: &'known [VerifiedBundle],
    ) -> Result<Vec<&'known VerifiedBundle>, SuccessionError> {
        let between = self.bundle().check_follows(newer.bundle(), known)?;
        for authority in &self.authorities {
            let Some(list) = &authority.revocation_list else { continue };
            let Some(same) = newer.authorities.iter().find(|other| other.is_same(authority)) else { continue };
            let department = authority.department.clone();
            match &same.revocation_list {
                None => return Err(SuccessionError::MissingRevocationList { department }),
                Some(fresh) if fresh.der != list.der && !fresh.has_higher_number_than(list) => {
                    return Err(SuccessionError::OlderRevocationList { department });
                }
                Some(_) => {}
            }
        }
        Ok(between)
    }
}
