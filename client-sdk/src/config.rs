//! What a client must be given: where its state lies, who it is, whom it trusts, which zone it works in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use lianxin_connection::{Dial, Target, TlsIdentity};
use lianxin_keystore::StateKey;
use lianxin_mls::{LeafCare, MlsIdentity};
use lianxin_trust::{Endpoint, Federation, RootKeys, Usage, VerifiedBundle, verify_bundle};
use lianxin_types::{Clock, DeviceUri, Random, SystemClock, SystemRandom, ZoneId};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::{ConfigError, TrustError};

/// Where the key that seals the local state comes from.
#[derive(Clone, Debug)]
pub enum StateKeySource {
    /// A file with 32 bytes and mode 0600, made if it is not there. Lay it apart from the state where you can.
    File(PathBuf),
    /// The key itself, for example from a platform's key service.
    Key(StateKey),
}

/// Everything a client needs. All paths may be relative to the working directory.
///
/// Certificates are renewed over the connection, and the renewed ones are kept in the state and not written into these files. At
/// each start those count that begin later and are good: the renewed ones as a rule; the configured ones if an operator has put
/// newer ones there, if the renewed ones have ended or are revoked, or if they are for another MLS key than the configured one.
#[derive(Clone)]
pub struct Config {
    /// Folder of the local state; made if it is not there. One process at a time.
    pub state_dir: PathBuf,
    /// What seals it.
    pub state_key: StateKeySource,
    /// TLS certificate chain, PEM, leaf first.
    pub tls_certificate: PathBuf,
    /// Its key, PEM.
    pub tls_key: PathBuf,
    /// MLS certificate chain, PEM, leaf first.
    pub mls_certificate: PathBuf,
    /// Its Ed25519 key, PKCS #8 PEM.
    pub mls_key: PathBuf,
    /// The pinned root keys, JSON.
    pub roots: PathBuf,
    /// A signed trust bundle to start with. The newest one that the client has seen is kept in its state.
    pub trust_bundle: PathBuf,
    /// Revocation lists to start with, DER.
    pub revocation_lists: Vec<PathBuf>,
    /// The zone to work in; `None` if the bundle has exactly one.
    pub zone: Option<ZoneId>,
    /// The gateway's host and port, instead of those in the bundle.
    pub endpoint: Option<(String, u16)>,
    /// Who this device is; `None` to read it from the MLS certificate.
    pub device: Option<DeviceUri>,
    /// How the gateway is reached; `None` for mutual TLS. Replace it in tests only: what is reached so is not authenticated.
    pub dial: Option<Arc<dyn Dial>>,
    /// When this device makes new keys for its leaf in a channel by itself.
    pub leaf_care: LeafCare,
    /// Time. Replace it in tests only.
    pub clock: Arc<dyn Clock>,
    /// Randomness. Replace it in tests only.
    pub random: Arc<dyn Random>,
}

impl Config {
    /// The configuration of one application in a folder that `lianxin-certs-dev` has minted: for trying things out.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Device`] if the folder has no such department or application.
    pub fn from_certs_dev(
        federation: &Path,
        department: &str,
        app: &str,
        state_dir: impl Into<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let state_dir = state_dir.into();
        let mine = federation.join("departments").join(department).join("apps").join(app);
        let uri = mine.join("uri.txt");
        let device = text(&uri)?.trim().parse().map_err(|_| ConfigError::Device { path: uri })?;
        let departments = federation.join("departments");
        let unreadable = |source| ConfigError::Read { path: departments.clone(), source };
        let mut revocation_lists = Vec::new();
        for entry in std::fs::read_dir(&departments).map_err(unreadable)? {
            let list = entry.map_err(unreadable)?.path().join("revoked.crl");
            if list.exists() {
                revocation_lists.push(list);
            }
        }
        revocation_lists.sort();
        Ok(Self {
            state_key: StateKeySource::File(state_dir.with_extension("key")),
            state_dir,
            tls_certificate: mine.join("tls.pem"),
            tls_key: mine.join("tls.key"),
            mls_certificate: mine.join("mls.pem"),
            mls_key: mine.join("mls.key"),
            roots: federation.join("roots.json"),
            trust_bundle: federation.join("trust-bundle.note"),
            revocation_lists,
            zone: None,
            endpoint: None,
            device: Some(device),
            dial: None,
            leaf_care: LeafCare::default(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        })
    }

    /// The same with another gateway address.
    #[must_use]
    pub fn with_endpoint(self, host: impl Into<String>, port: u16) -> Self {
        Self { endpoint: Some((host.into(), port)), ..self }
    }

    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        let tls = TlsIdentity::from_pem(&bytes(&self.tls_certificate)?, &secret(&self.tls_key)?)
            .map_err(|source| ConfigError::Tls { path: self.tls_certificate.clone(), source: Box::new(source) })?;
        let roots = RootKeys::from_json(&text(&self.roots)?)
            .map_err(|source| ConfigError::Roots { path: self.roots.clone(), source })?;
        let bundle = verify_bundle(&roots, &bytes(&self.trust_bundle)?)
            .map_err(|error| ConfigError::Trust(TrustError::Bundle(error)))?;
        let lists = self.revocation_lists.iter().map(|path| bytes(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Loaded { tls, roots, bundle, lists, mls: self.mls_identity()? })
    }

    fn mls_identity(&self) -> Result<MlsIdentity, ConfigError> {
        let path = || self.mls_certificate.clone();
        let chain = CertificateDer::pem_slice_iter(&bytes(&self.mls_certificate)?)
            .map(|certificate| certificate.map(|der| der.to_vec()))
            .collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| ConfigError::MlsCertificate { path: path() })?;
        let unreadable = || ConfigError::MlsKey { path: self.mls_key.clone() };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&secret(&self.mls_key)?).map_err(|_| unreadable())?;
        let key = SigningKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| unreadable())?;
        Ok(MlsIdentity { chain, key: key.to_bytes().into() })
    }

    /// Who this device is.
    pub(crate) fn device(&self, loaded: &Loaded, federation: &Federation) -> Result<DeviceUri, ConfigError> {
        if let Some(device) = &self.device {
            return Ok(device.clone());
        }
        let chain: Vec<&[u8]> = loaded.mls.chain.iter().map(Vec::as_slice).collect();
        let identity = federation.identify_ignoring_expiry(&chain, Usage::Mls, self.clock.now());
        Ok(identity.map_err(ConfigError::WhoAmI)?.uri)
    }

    /// The zone and where its gateways are, by a bundle that may be newer than the configured one.
    pub(crate) fn targets(&self, bundle: &VerifiedBundle) -> Result<Vec<Target>, ConfigError> {
        let zones = &bundle.bundle.zones;
        let zone = match (&self.zone, zones.as_slice()) {
            (Some(id), _) => bundle.bundle.zone(id).ok_or(ConfigError::Zone)?,
            (None, [only]) => only,
            (None, _) => return Err(ConfigError::Zone),
        };
        let endpoints = match &self.endpoint {
            Some((host, port)) => vec![Endpoint { host: host.clone(), port: *port }],
            None => zone.endpoints.iter().filter(|endpoint| endpoint.port != 0).cloned().collect(),
        };
        if endpoints.is_empty() {
            return Err(ConfigError::Endpoint);
        }
        let target = |address| Target { zone: zone.id.clone(), operator: zone.department.clone(), address };
        Ok(endpoints.into_iter().map(target).collect())
    }
}

/// A configuration whose files have been read.
pub(crate) struct Loaded {
    pub(crate) tls: TlsIdentity,
    pub(crate) mls: MlsIdentity,
    pub(crate) roots: RootKeys,
    pub(crate) bundle: VerifiedBundle,
    pub(crate) lists: Vec<Vec<u8>>,
}

fn bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    bytes(path).map(Zeroizing::new)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}
