//! What is written when a federation is minted, and the pieces that later issuing shares with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lianxin_trust::{BUNDLE_LIFETIME, Department, Endpoint, RootKey, RootKeys, TrustBundle, Usage, Zone, sign_bundle};
use lianxin_types::{Clock, DepartmentId, DeviceUri, Digest, Kind, Timestamp};

use crate::authority::{Authority, KeyKind};
use crate::folder::{prepare, write};
use crate::key::{new_signing_key, random, read_signing_key};
use crate::leaf::Leaf;
use crate::minted::Minted;
use crate::paths::AppPaths;
use crate::plan::{DepartmentPlan, FederationPlan, OFFICER_ROLES};
use crate::specimen;

/// How long a leaf is valid.
pub(crate) const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far a validity begins in the past: other tools check it without our tolerance for skewed clocks.
const BACKDATED: Duration = Duration::from_secs(300);
const ROOTS: [&str; 3] = ["root-1", "root-2", "root-3"];
pub(crate) const THRESHOLD: usize = 2;

/// Mints `plan` into the folder `out`, which is created if need be and must be empty.
///
/// # Errors
/// If the plan cannot be minted, the folder is not empty, or a file cannot be written.
pub fn mint(plan: &FederationPlan, out: &Path, clock: &dyn Clock) -> anyhow::Result<Minted> {
    plan.check()?;
    prepare(out)?;
    let minted = Minted { folder: out.to_owned(), now: clock.now() };
    minted.write_roots()?;
    let mut departments = Vec::new();
    let mut revoked = Vec::new();
    for (index, department) in plan.departments.iter().enumerate() {
        let paths = minted.department(department.id.as_str());
        let (authority, certificate) =
            Authority::create(&department.id, &paths.ca_key, Some(&paths.ca_certificate), minted.now)?;
        departments.push(bundle_department(department, certificate));
        for name in &plan.apps {
            minted.issue_app(&authority, &department.id, name)?;
        }
        minted.issue_officers(&authority, &department.id)?;
        minted.issue_issuer(&authority, &department.id)?;
        if index == 0 {
            let uri = new_uri(&department.id, Kind::Gateway, "node-1")?;
            minted.issue_gateway(&authority, &uri, &plan.host)?;
            let second = &plan.departments[1].id;
            revoked = specimen::mint_all(out, &authority, &department.id, second, minted.now)?;
        }
        authority.write_revocation_list(&paths, if index == 0 { &revoked } else { &[] }, 1, minted.now)?;
    }
    minted.write_bundles(plan, departments)?;
    Ok(minted)
}

fn bundle_department(plan: &DepartmentPlan, certificate: Vec<u8>) -> Department {
    Department {
        id: plan.id.clone(),
        name: plan.name.clone(),
        authorities: vec![certificate],
        witness_keys: Vec::new(),
        issuer_keys: Vec::new(),
    }
}

impl Minted {
    fn write_roots(&self) -> anyhow::Result<()> {
        let mut keys = Vec::new();
        for (index, name) in ROOTS.into_iter().enumerate() {
            let key = new_signing_key(&self.root_key_file(index + 1))?;
            keys.push(RootKey { name: name.to_owned(), key: key.verifying_key().to_bytes() });
        }
        write(&self.roots_file(), RootKeys { threshold: THRESHOLD, keys }.to_json().as_bytes())
    }

    pub(crate) fn issue_app(
        &self,
        authority: &Authority,
        department: &DepartmentId,
        name: &str,
    ) -> anyhow::Result<AppPaths> {
        let uri = new_uri(department, Kind::App, "node-1")?;
        let app = AppPaths::new(self.department(department.as_str()).app(name), uri);
        let leaf = |usage| self.leaf(&app.uri, usage);
        authority.issue(&leaf(Usage::TlsClient), KeyKind::P256, &app.tls_certificate, &app.tls_key)?;
        authority.issue(&leaf(Usage::Mls), KeyKind::Ed25519, &app.mls_certificate, &app.mls_key)?;
        write(&app.uri_file, app.uri.as_str().as_bytes())?;
        Ok(app)
    }

    /// Another MLS certificate with another key, for an identity that has one.
    pub(crate) fn issue_mls_again(&self, authority: &Authority, app: &AppPaths) -> anyhow::Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (app.folder.join("mls-again.pem"), app.folder.join("mls-again.key"));
        authority.issue(&self.leaf(&app.uri, Usage::Mls), KeyKind::Ed25519, &certificate, &key)?;
        Ok((certificate, key))
    }

    fn issue_officers(&self, authority: &Authority, department: &DepartmentId) -> anyhow::Result<()> {
        for role in OFFICER_ROLES {
            let uri = new_uri(department, Kind::Officer, role)?;
            let (certificate, key) = self.department(department.as_str()).officer(role);
            authority.issue(&self.leaf(&uri, Usage::Officer), KeyKind::Ed25519, &certificate, &key)?;
        }
        Ok(())
    }

    /// What the department's issuer shows to the gateway. It is no authority: that one's key is a file of its own.
    fn issue_issuer(&self, authority: &Authority, department: &DepartmentId) -> anyhow::Result<()> {
        let (uri, paths) = (new_uri(department, Kind::Issuer, "node-1")?, self.department(department.as_str()));
        let leaf = self.leaf(&uri, Usage::Issuer);
        authority.issue(&leaf, KeyKind::P256, &paths.issuer_certificate, &paths.issuer_key)?;
        Ok(())
    }

    pub(crate) fn issue_gateway(&self, authority: &Authority, uri: &DeviceUri, host: &str) -> anyhow::Result<()> {
        let paths = self.gateway();
        let leaf = Leaf { host: Some(host), ..self.leaf(uri, Usage::TlsGateway) };
        authority.issue(&leaf, KeyKind::P256, &paths.tls_certificate, &paths.tls_key)?;
        Ok(())
    }

    pub(crate) fn leaf<'a>(&self, uri: &'a DeviceUri, usage: Usage) -> Leaf<'a> {
        let (not_before, not_after) = (valid_from(self.now), self.now.plus(LEAF_LIFETIME));
        Leaf { uri, usage, host: None, not_before, not_after }
    }

    /// The bundle, and the ones that must be refused.
    fn write_bundles(&self, plan: &FederationPlan, departments: Vec<Department>) -> anyhow::Result<()> {
        let paths = self.gateway();
        let zone_key = |file: &Path| anyhow::Ok(new_signing_key(file)?.verifying_key().to_bytes());
        let zone = Zone {
            id: plan.zone.clone(),
            department: plan.departments[0].id.clone(),
            endpoints: vec![Endpoint { host: plan.host.clone(), port: plan.port }],
            removal_key: zone_key(&paths.removal_key)?,
            removal_keys_before: Vec::new(),
            promise_key: zone_key(&paths.promise_key)?,
            log_key: zone_key(&paths.log_key)?,
        };
        let bundle = |version, issued: Timestamp, predecessor: Option<Digest>| TrustBundle {
            version,
            issued,
            expires: issued.plus(BUNDLE_LIFETIME),
            predecessor,
            departments: departments.clone(),
            zones: vec![zone.clone()],
        };
        let day = Duration::from_secs(24 * 3600);
        let current = bundle(1, self.now, None);
        self.write_bundle(&self.bundle_file(), &current, THRESHOLD)?;
        self.write_bundle(&self.specimen_bundle_file("under-threshold"), &current, THRESHOLD - 1)?;
        self.write_bundle(
            &self.specimen_bundle_file("older-bundle"),
            &bundle(0, self.now.minus(day), None),
            THRESHOLD,
        )?;
        let over = bundle(1, self.now.minus(BUNDLE_LIFETIME + day), None);
        self.write_bundle(&self.specimen_bundle_file("expired-bundle"), &over, THRESHOLD)
    }

    /// Signs with the first `signers` root keys.
    pub(crate) fn write_bundle(&self, file: &Path, bundle: &TrustBundle, signers: usize) -> anyhow::Result<()> {
        let keys = (1..=signers).map(|number| read_signing_key(&self.root_key_file(number)));
        let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
        let signers: Vec<_> = ROOTS.into_iter().zip(&keys).collect();
        write(file, &sign_bundle(bundle, &signers))
    }
}

/// A new identity: the opaque id is random, it says nothing about whose it is.
pub(crate) fn new_uri(department: &DepartmentId, kind: Kind, device: &str) -> anyhow::Result<DeviceUri> {
    let id = hex::encode(random::<8>());
    Ok(format!("lianxin://{department}/{}/{id}/{device}", kind.as_str()).parse()?)
}

/// The start of a validity that is good at `now`.
pub(crate) fn valid_from(now: Timestamp) -> Timestamp {
    now.minus(BACKDATED)
}
