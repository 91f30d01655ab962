//! What takes the place of what was minted: the next bundle, the next revocation list, a renewed certificate.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use lianxin_trust::{BUNDLE_LIFETIME, Endpoint, Federation, TrustBundle, Usage, VerifiedBundle};
use lianxin_types::DeviceUri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::authority::{Authority, KeyKind};
use crate::folder::write;
use crate::issuance::{LEAF_LIFETIME, THRESHOLD};
use crate::minted::Minted;

impl Minted {
    /// Signs the successor of the bundle, with `change` made to it, and writes it in its place. The bundle of before goes
    /// into [`Minted::bundle_history_folder`].
    ///
    /// # Errors
    /// If a file cannot be read or written, or the changed bundle is none.
    pub fn succeed(&self, change: impl FnOnce(&mut TrustBundle)) -> anyhow::Result<VerifiedBundle> {
        let current = self.bundle()?;
        let mut bundle = current.bundle;
        let earlier = self.bundle_history_folder().join(format!("{}.note", bundle.version));
        write(&earlier, &current.note)?;
        bundle.version += 1;
        bundle.predecessor = Some(current.digest);
        bundle.issued = self.now;
        bundle.expires = self.now.plus(BUNDLE_LIFETIME);
        change(&mut bundle);
        self.write_bundle(&self.bundle_file(), &bundle, THRESHOLD)?;
        self.bundle()
    }

    /// Signs the successor of the bundle in which the zone has this one endpoint, and writes it in its place. If the host
    /// is a new one the gateway gets a new certificate, too.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn set_endpoint(&self, host: &str, port: u16) -> anyhow::Result<VerifiedBundle> {
        let zone = self.bundle()?.bundle.zones.into_iter().next().context("the bundle has no zone")?;
        if zone.endpoints.iter().all(|endpoint| endpoint.host != host) {
            self.issue_gateway(&self.authority(zone.department.as_str())?, &self.gateway_uri()?, host)?;
        }
        self.succeed(|bundle| bundle.zones[0].endpoints = vec![Endpoint { host: host.to_owned(), port }])
    }

    /// Gives the gateway a new certificate and a new key under its identity, in the place of the old ones.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn renew_gateway_certificate(&self) -> anyhow::Result<()> {
        let zone = self.bundle()?.bundle.zones.into_iter().next().context("the bundle has no zone")?;
        let endpoint = zone.endpoints.first().context("the zone has no endpoint")?;
        self.issue_gateway(&self.authority(zone.department.as_str())?, &self.gateway_uri()?, &endpoint.host)
    }

    /// Issues a department's certificate for a key of which only the public half is here, as an issuer does; DER.
    ///
    /// # Errors
    /// If the authority's key cannot be read, or the public key is none.
    pub fn certify(
        &self,
        department: &str,
        uri: &DeviceUri,
        usage: Usage,
        public_key: &[u8],
    ) -> anyhow::Result<Vec<u8>> {
        let kind = if usage == Usage::Mls { KeyKind::Ed25519 } else { KeyKind::P256 };
        self.authority(department)?.issue_for(&self.leaf(uri, usage), kind, public_key)
    }

    /// Signs a department's revocation list anew, with a higher number and for another seven days.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn renew_revocation_list(&self, department: &str) -> anyhow::Result<()> {
        self.extend_revocation_list(department, &[])
    }

    /// The identity in the gateway's certificate.
    fn gateway_uri(&self) -> anyhow::Result<DeviceUri> {
        let certificate = CertificateDer::from_pem_file(self.gateway().tls_certificate)?;
        let federation = Federation::new(self.bundle()?, Vec::new())?;
        // Who counts from an earlier time, to issue what is nearly over, finds a certificate that has not begun by it.
        let begun = self.now.plus(2 * LEAF_LIFETIME);
        Ok(federation.identify_ignoring_expiry(&[&certificate], Usage::TlsGateway, begun)?.uri)
    }

    pub(crate) fn authority(&self, department: &str) -> anyhow::Result<Authority> {
        Authority::open(&department.parse()?, &self.department(department))
    }

    pub(crate) fn extend_revocation_list(&self, department: &str, serials: &[Vec<u8>]) -> anyhow::Result<()> {
        let paths = self.department(department);
        ensure!(!paths.before.exists(), "{department} has two authorities; retire the one of before first");
        let file = &paths.revoked_serials;
        let lines = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut revoked = lines.lines().map(hex::decode).collect::<Result<Vec<_>, _>>()?;
        for serial in serials {
            if !revoked.contains(serial) {
                revoked.push(serial.clone());
            }
        }
        let number = self.revocation_list_number(&paths.revocation_list)? + 1;
        self.authority(department)?.write_revocation_list(&paths, &revoked, number, self.now)
    }

    fn revocation_list_number(&self, file: &Path) -> anyhow::Result<u64> {
        let list = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let federation = Federation::new(self.bundle()?, vec![list])?;
        let list = federation.revocation_list_views().next().context("the list is nobody's")?;
        let mut number = [0; 8];
        let start = number.len().checked_sub(list.number.len()).context("the list's number is none of ours")?;
        number[start..].copy_from_slice(list.number);
        Ok(u64::from_be_bytes(number))
    }
}
