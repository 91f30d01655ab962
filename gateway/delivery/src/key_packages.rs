//! Key packages of a device, checked before they are stored.

use bytes::Bytes;
use lianxin_policy::{Permit, PublishKeyPackages};
use lianxin_profile::{Added, CheckedKeyPackage, ProfileError, check_key_package};
use lianxin_store::{Effect, KeyPackageItem, ZoneStore};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Timestamp};
use openmls_rust_crypto::RustCrypto;

use crate::error::DeliveryError;

/// What storing them takes.
#[derive(Debug, Clone)]
pub struct PreparedKeyPackages {
    /// The effect of the unit.
    pub effect: Effect,
}

/// Checks that every package is the permit's caller's own, of the right sort, and lives on at `now`.
///
/// # Errors
/// [`DeliveryError::Profile`] for a package that breaks the profile, [`DeliveryError::SenderMismatch`] for another's.
pub fn prepare_key_packages(
    permit: &Permit<PublishKeyPackages>,
    federation: &Federation,
    one_time: &[Bytes],
    last_resort: Option<&Bytes>,
    now: Timestamp,
) -> Result<PreparedKeyPackages, DeliveryError> {
    let check = |bytes: &Bytes, want_last_resort: bool| {
        let checked: CheckedKeyPackage = check_key_package(federation, &RustCrypto::default(), bytes, now)?;
        if checked.identity.uri != *permit.caller() {
            return Err(DeliveryError::SenderMismatch);
        }
        if checked.is_last_resort != want_last_resort {
            let fault =
                if want_last_resort { "it is not a last resort" } else { "a last resort among one-time packages" };
            return Err(ProfileError::InvalidKeyPackage { fault }.into());
        }
        Ok(KeyPackageItem { reference: checked.reference, not_after: checked.not_after, bytes: bytes.clone() })
    };
    let last_resort = last_resort.map(|bytes| check(bytes, true)).transpose()?;
    let one_time = one_time.iter().map(|bytes| check(bytes, false)).collect::<Result<_, _>>()?;
    let owner = permit.caller().clone();
    Ok(PreparedKeyPackages { effect: Effect::PublishKeyPackages { owner, one_time, last_resort } })
}

/// Every device is added by a package that was given out for that: a one-time package claimed for this channel, a last resort
/// that its owner has published last.
pub(crate) fn check_given_out(
    store: &dyn ZoneStore,
    channel: &ChannelId,
    added: &[Added],
) -> Result<(), DeliveryError> {
    for one in added {
        let is_given_out = match one.is_last_resort {
            true => store.is_last_resort(&one.uri, &one.reference)?,
            false => store.is_claimed(channel, &one.reference)?,
        };
        if !is_given_out {
            return Err(DeliveryError::KeyPackageNotClaimed);
        }
    }
    Ok(())
}
