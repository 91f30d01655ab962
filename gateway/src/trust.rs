//! The federation from its files, and the gateway's own place in it.

use std::path::Path;

use lianxin_transport::ServerIdentity;
use lianxin_trust::{Federation, RootKeys, Usage, verify_bundle};
use lianxin_types::{Clock, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::Config;
use crate::error::ServeError;

/// Verifies bundle and revocation lists of a configuration, and that the gateway's own certificate may serve its zone.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify.
pub(crate) fn load(config: &Config) -> Result<Federation, ServeError> {
    let roots = String::from_utf8(read(&config.roots)?).map_err(|_| ServeError::trust(&config.roots, "not UTF-8"))?;
    let roots = RootKeys::from_json(&roots).map_err(|fault| ServeError::trust(&config.roots, fault))?;
    let bundle =
        verify_bundle(&roots, &read(&config.bundle)?).map_err(|fault| ServeError::trust(&config.bundle, fault))?;
    let lists = config.revocation_lists.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let federation = Federation::new(bundle, lists).map_err(|fault| ServeError::trust(&config.bundle, fault))?;
    check_identity(config, &federation, &SystemClock)?;
    Ok(federation)
}

/// Every client asks this of the gateway that it meets: better the operator learns it first.
fn check_identity(config: &Config, federation: &Federation, clock: &dyn Clock) -> Result<(), ServeError> {
    let zone = federation
        .bundle()
        .bundle
        .zone(&config.zone)
        .ok_or_else(|| ServeError::trust(&config.bundle, format!("zone {} is not in the bundle", config.zone)))?;
    let chain = read(&config.certificate)?;
    ServerIdentity::from_pem(&chain, &read(&config.key)?).map_err(|source| ServeError::Identity {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        source,
    })?;
    let wrong = |fault: String| ServeError::trust(&config.certificate, fault);
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|fault| wrong(fault.to_string()))?;
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let identity =
        federation.identify(&chain, Usage::TlsGateway, clock.now()).map_err(|fault| wrong(fault.to_string()))?;
    if *identity.uri.department() != zone.department {
        let (found, operator) = (identity.uri.department(), &zone.department);
        return Err(wrong(format!("it is of {found}, and {operator} operates zone {}", config.zone)));
    }
    Ok(())
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| ServeError::File { path: path.to_owned(), source })
}

/// Checks what a gateway needs of its files before it opens the zone: that they make a federation, and that certificate and
/// key are those of a gateway of the department that operates the zone.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify.
pub fn check_trust(config: &Config) -> Result<(), ServeError> {
    load(config).map(|_| ())
}

#[cfg(test)]
mod tests;
