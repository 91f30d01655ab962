//! A federation in its folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use lianxin_trust::{Department, Federation, RootKeys, Usage, VerifiedBundle, verify_bundle};
use lianxin_types::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::authority::Authority;
use crate::paths::{AppPaths, DepartmentPaths, GatewayPaths, SpecimenPaths};
use crate::plan::check_file_name;
use crate::specimen::Specimen;

/// A minted federation: every path in its folder, and what can still be done to it.
///
/// Times are counted from the moment of minting; [`Minted::at`] moves that moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minted {
    pub(crate) folder: PathBuf,
    pub(crate) now: Timestamp,
}

impl Minted {
    /// The federation that was minted into `out` before, e.g. by another process. Times are counted from its bundle's issue.
    ///
    /// # Errors
    /// If there is none, or its bundle is not signed by its roots.
    pub fn open(out: &Path) -> anyhow::Result<Self> {
        let mut minted = Self { folder: out.to_owned(), now: Timestamp::default() };
        minted.now = minted.bundle()?.bundle.issued;
        Ok(minted)
    }

    /// The same folder with times counted from `now`: for a test that has moved its clock by days.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        Self { folder: self.folder.clone(), now }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of pinned root keys.
    pub fn roots_file(&self) -> PathBuf {
        self.folder.join("roots.json")
    }

    /// The private key (Ed25519, PKCS#8 PEM) of root key `number`, 1 to 3.
    pub fn root_key_file(&self, number: usize) -> PathBuf {
        self.folder.join("roots").join(format!("root-{number}.key"))
    }

    /// The signed trust bundle.
    pub fn bundle_file(&self) -> PathBuf {
        self.folder.join("trust-bundle.note")
    }

    /// Earlier bundles, a file `<version>.note` each; not there before the first successor.
    pub fn bundle_history_folder(&self) -> PathBuf {
        self.folder.join("bundles")
    }

    /// A department's files.
    pub fn department(&self, id: &str) -> DepartmentPaths {
        DepartmentPaths::new(&self.folder, id)
    }

    /// The gateway's files.
    pub fn gateway(&self) -> GatewayPaths {
        GatewayPaths::new(&self.folder)
    }

    /// A specimen's files.
    pub fn specimen(&self, specimen: Specimen) -> SpecimenPaths {
        SpecimenPaths::new(&self.folder, specimen.name())
    }

    /// A bundle among the specimens: `older-bundle`, `expired-bundle` or `under-threshold`.
    pub fn specimen_bundle_file(&self, name: &str) -> PathBuf {
        self.folder.join("specimens").join(format!("{name}.note"))
    }

    /// The files of an application that has been minted.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn app(&self, department: &str, name: &str) -> anyhow::Result<AppPaths> {
        let folder = self.department(department).app(name);
        let context = || format!("{department} has no application {name}");
        let uri = fs::read_to_string(folder.join("uri.txt")).with_context(context)?;
        Ok(AppPaths::new(folder, uri.parse().with_context(context)?))
    }

    /// The pinned root keys.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn roots(&self) -> anyhow::Result<RootKeys> {
        let file = self.roots_file();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(RootKeys::from_json(&text)?)
    }

    /// The trust bundle, verified.
    ///
    /// # Errors
    /// If the file cannot be read or verified.
    pub fn bundle(&self) -> anyhow::Result<VerifiedBundle> {
        let file = self.bundle_file();
        let note = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(verify_bundle(&self.roots()?, &note)?)
    }

    /// The files of all revocation lists (DER), in the order of the bundle's departments; those of authorities of before
    /// included.
    ///
    /// # Errors
    /// As [`Minted::bundle`].
    pub fn revocation_list_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let bundle = self.bundle()?.bundle;
        let of = |department: &Department| {
            let paths = self.department(department.id.as_str());
            [paths.before.join("revoked.crl"), paths.revocation_list].into_iter().filter(|file| file.exists())
        };
        Ok(bundle.departments.iter().flat_map(of).collect())
    }

    /// The federation as either end sees it: bundle and all revocation lists.
    ///
    /// # Errors
    /// If a file cannot be read or verified.
    pub fn federation(&self) -> anyhow::Result<Federation> {
        let read = |file: PathBuf| fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
        let lists = self.revocation_list_files()?.into_iter().map(read).collect::<anyhow::Result<_>>()?;
        Ok(Federation::new(self.bundle()?, lists)?)
    }

    /// Issues one more application to a department.
    ///
    /// # Errors
    /// If the department has one of that name, or is not there.
    pub fn mint_app(&self, department: &str, name: &str) -> anyhow::Result<AppPaths> {
        check_file_name(name)?;
        let paths = self.department(department);
        ensure!(!paths.app(name).exists(), "{department} has an application {name} already");
        let id = department.parse()?;
        self.issue_app(&Authority::open(&id, &paths)?, &id, name)
    }

    /// Issues a second MLS certificate, with a new key, to an application: what a device gets that has lost its key. Gives the
    /// files of certificate and key.
    ///
    /// # Errors
    /// If there is no such application, or a file cannot be read or written.
    pub fn mint_mls_again(&self, department: &str, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let app = self.app(department, name)?;
        let id = department.parse()?;
        self.issue_mls_again(&Authority::open(&id, &self.department(department))?, &app)
    }

    /// Revokes a certificate by its serial number and writes the department's list anew.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn revoke(&self, department: &str, serial: &[u8]) -> anyhow::Result<()> {
        self.extend_revocation_list(department, &[serial.to_vec()])
    }

    /// Revokes an application's TLS and MLS certificates and writes the department's list anew.
    ///
    /// # Errors
    /// If there is no such application, or a file cannot be read or written.
    pub fn revoke_app(&self, department: &str, name: &str) -> anyhow::Result<()> {
        let app = self.app(department, name)?;
        let federation = Federation::new(self.bundle()?, Vec::new())?;
        let serial = |file: &Path, usage| -> anyhow::Result<Vec<u8>> {
            let certificate = CertificateDer::from_pem_file(file)?;
            Ok(federation.identify_ignoring_expiry(&[&certificate], usage, self.now)?.serial)
        };
        let tls = serial(&app.tls_certificate, Usage::TlsClient)?;
        let mls = serial(&app.mls_certificate, Usage::Mls)?;
        self.extend_revocation_list(department, &[tls, mls])
    }
}
