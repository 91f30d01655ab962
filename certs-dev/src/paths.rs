//! Where everything lies in the folder.

use std::path::{Path, PathBuf};

use lianxin_types::DeviceUri;

/// An application's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppPaths {
    /// Its identity; one for TLS and MLS.
    pub uri: DeviceUri,
    /// Its folder.
    pub folder: PathBuf,
    /// TLS certificate, PEM.
    pub tls_certificate: PathBuf,
    /// TLS key, P-256, PKCS#8 PEM.
    pub tls_key: PathBuf,
    /// MLS certificate, PEM.
    pub mls_certificate: PathBuf,
    /// MLS key, Ed25519, PKCS#8 PEM.
    pub mls_key: PathBuf,
    /// The identity as text, without a newline.
    pub uri_file: PathBuf,
}

impl AppPaths {
    pub(crate) fn new(folder: PathBuf, uri: DeviceUri) -> Self {
        Self {
            uri,
            tls_certificate: folder.join("tls.pem"),
            tls_key: folder.join("tls.key"),
            mls_certificate: folder.join("mls.pem"),
            mls_key: folder.join("mls.key"),
            uri_file: folder.join("uri.txt"),
            folder,
        }
    }
}

/// A department's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DepartmentPaths {
    /// Its folder.
    pub folder: PathBuf,
    /// The authority's certificate, PEM.
    pub ca_certificate: PathBuf,
    /// The authority's key, P-256, PKCS#8 PEM.
    pub ca_key: PathBuf,
    /// The revocation list, DER.
    pub revocation_list: PathBuf,
    /// The same, PEM.
    pub revocation_list_pem: PathBuf,
    /// The authority of before and its revocation list, under the same names, while there are two.
    pub before: PathBuf,
    /// The issuer's certificate, PEM.
    pub issuer_certificate: PathBuf,
    /// The issuer's TLS key, P-256, PKCS#8 PEM.
    pub issuer_key: PathBuf,
    /// The revoked serial numbers, one in hexadecimal per line, oldest first: what the list is made from.
    pub revoked_serials: PathBuf,
}

impl DepartmentPaths {
    pub(crate) fn new(out: &Path, department: &str) -> Self {
        let folder = out.join("departments").join(department);
        Self {
            ca_certificate: folder.join("ca.pem"),
            ca_key: folder.join("ca.key"),
            revocation_list: folder.join("revoked.crl"),
            revocation_list_pem: folder.join("revoked.crl.pem"),
            revoked_serials: folder.join("revoked-serials.txt"),
            before: folder.join("before"),
            issuer_certificate: folder.join("issuer").join("tls.pem"),
            issuer_key: folder.join("issuer").join("tls.key"),
            folder,
        }
    }

    pub(crate) fn app(&self, name: &str) -> PathBuf {
        self.folder.join("apps").join(name)
    }

    /// Certificate (PEM) and key (Ed25519, PKCS#8 PEM) of the officer with this role, one of [`crate::OFFICER_ROLES`].
    pub fn officer(&self, role: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.join("officers");
        (folder.join(format!("{role}.pem")), folder.join(format!("{role}.key")))
    }
}

/// The gateway's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayPaths {
    /// Its folder.
    pub folder: PathBuf,
    /// TLS certificate, PEM.
    pub tls_certificate: PathBuf,
    /// TLS key, P-256, PKCS#8 PEM.
    pub tls_key: PathBuf,
    /// Key of the zone's external sender, Ed25519, PKCS#8 PEM.
    pub removal_key: PathBuf,
    /// Key that signs promises, Ed25519, PKCS#8 PEM.
    pub promise_key: PathBuf,
    /// Key that signs checkpoints, Ed25519, PKCS#8 PEM.
    pub log_key: PathBuf,
}

impl GatewayPaths {
    pub(crate) fn new(out: &Path) -> Self {
        let folder = out.join("gateway");
        Self {
            tls_certificate: folder.join("tls.pem"),
            tls_key: folder.join("tls.key"),
            removal_key: folder.join("removal.key"),
            promise_key: folder.join("promise.key"),
            log_key: folder.join("log.key"),
            folder,
        }
    }
}

/// A specimen's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpecimenPaths {
    /// TLS certificate, PEM.
    pub tls_certificate: PathBuf,
    /// TLS key, PKCS#8 PEM.
    pub tls_key: PathBuf,
    /// MLS certificate, PEM; not every specimen has one ([`crate::Specimen::has_mls`]).
    pub mls_certificate: PathBuf,
    /// MLS key, Ed25519, PKCS#8 PEM.
    pub mls_key: PathBuf,
}

impl SpecimenPaths {
    pub(crate) fn new(out: &Path, name: &str) -> Self {
        let folder = out.join("specimens").join(name);
        Self {
            tls_certificate: folder.join("tls.pem"),
            tls_key: folder.join("tls.key"),
            mls_certificate: folder.join("mls.pem"),
            mls_key: folder.join("mls.key"),
        }
    }
}
