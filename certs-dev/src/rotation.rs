//! New keys in the place of old ones, each in two steps: first both are good, then only the new one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use lianxin_trust::{Department, REMOVAL_KEYS_BEFORE_MAX, TrustBundle, Usage, VerifiedBundle};
use lianxin_types::DepartmentId;

use crate::authority::{Authority, KeyKind};
use crate::key::new_signing_key;
use crate::minted::Minted;

impl Minted {
    /// Gives the zone a new removal key and signs the bundle that lists the old one among those of before. The old private
    /// key moves to [`Minted::removal_key_before`].
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn rotate_removal_key(&self) -> anyhow::Result<VerifiedBundle> {
        let file = self.gateway().removal_key;
        fs::rename(&file, self.removal_key_before()).with_context(|| format!("cannot move {}", file.display()))?;
        let key = new_signing_key(&file)?.verifying_key().to_bytes();
        self.succeed(|bundle| {
            let zone = &mut bundle.zones[0];
            zone.removal_keys_before.insert(0, zone.removal_key);
            zone.removal_keys_before.truncate(REMOVAL_KEYS_BEFORE_MAX);
            zone.removal_key = key;
        })
    }

    /// Signs the bundle that lists no removal key of before, as after a theft.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn drop_removal_keys(&self) -> anyhow::Result<VerifiedBundle> {
        self.succeed(|bundle| bundle.zones[0].removal_keys_before.clear())
    }

    /// The zone's removal key before the last rotation.
    pub fn removal_key_before(&self) -> PathBuf {
        self.gateway().folder.join("removal-before.key")
    }

    /// Gives a department a new authority beside its old one and signs the bundle with both. What is issued from now on is
    /// the new one's. The old one's files move into [`crate::DepartmentPaths::before`].
    ///
    /// # Errors
    /// If it has two already, or a file cannot be read or written.
    pub fn rotate_authority(&self, department: &str) -> anyhow::Result<VerifiedBundle> {
        let (id, paths) = (department.parse::<DepartmentId>()?, self.department(department));
        ensure!(!paths.before.exists(), "{department} has two authorities; retire the one of before first");
        fs::create_dir_all(&paths.before)?;
        let list = [&paths.revocation_list, &paths.revocation_list_pem, &paths.revoked_serials];
        for file in [&paths.ca_certificate, &paths.ca_key].into_iter().chain(list) {
            let name = file.file_name().context("a file has a name")?;
            fs::rename(file, paths.before.join(name)).with_context(|| format!("cannot move {}", file.display()))?;
        }
        let (authority, certificate) = Authority::create(&id, &paths.ca_key, Some(&paths.ca_certificate), self.now)?;
        authority.write_revocation_list(&paths, &[], 1, self.now)?;
        self.succeed(|bundle| department_of(bundle, &id).authorities.push(certificate))
    }

    /// Signs the bundle without a department's authority of before: what that has issued is good for nothing any more.
    ///
    /// # Errors
    /// If there is none, or a file cannot be read or written.
    pub fn retire_authority(&self, department: &str) -> anyhow::Result<VerifiedBundle> {
        let (id, paths) = (department.parse::<DepartmentId>()?, self.department(department));
        fs::remove_dir_all(&paths.before).with_context(|| format!("{department} has no authority of before"))?;
        self.succeed(|bundle| drop(department_of(bundle, &id).authorities.remove(0)))
    }

    /// Gives an application new certificates of its department's newest authority: for a new TLS key, and for the MLS key that
    /// it has (PROTOCOL 1).
    ///
    /// # Errors
    /// If there is no such application, or a file cannot be read or written.
    pub fn renew_app(&self, department: &str, name: &str) -> anyhow::Result<()> {
        let (app, authority) = (self.app(department, name)?, self.authority(department)?);
        let leaf = |usage| self.leaf(&app.uri, usage);
        authority.issue(&leaf(Usage::TlsClient), KeyKind::P256, &app.tls_certificate, &app.tls_key)?;
        authority.reissue(&leaf(Usage::Mls), &app.mls_certificate, &app.mls_key)
    }
}

/// A department that has its folder has its place in the bundle.
fn department_of<'a>(bundle: &'a mut TrustBundle, id: &DepartmentId) -> &'a mut Department {
    let found = bundle.departments.iter_mut().find(|department| department.id == *id);
    found.expect("the bundle was minted with every department that has an authority in its folder")
}
