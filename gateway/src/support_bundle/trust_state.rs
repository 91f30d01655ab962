//! Versions and expiry of what the gateway trusts, from its files. Departments are named, since
//! organisations are public; the certificate's holder is not.

use lianxin_trust::{Federation, RootKeys, Usage, verify_bundle};
use lianxin_types::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::whole;
use crate::config::Config;
use crate::error::ServeError;

/// A line for the bundle, for each list in use, and for the certificate, or why one cannot be used.
pub(super) fn shown(config: &Config, now: Timestamp) -> String {
    let federation = match federation(config) {
        Ok(federation) => federation,
        Err(error) => return format!("bundle and lists make no federation: {}\n", fault(&error)),
    };
    let bundle = &federation.bundle().bundle;
    let lists = federation.revocation_list_views().map(|list| {
        let number = list.number.iter().fold(0u128, |number, byte| (number << 8) | u128::from(*byte));
        // Longer ones are allowed and would not say more.
        let number = if list.number.len() <= 7 { number.to_string() } else { "of more than 7 bytes".to_owned() };
        format!("revocation list of {}: number {number}, next due {}\n", list.department, moment(list.next_update, now))
    });
    let lists: String = lists.collect();
    format!(
        "bundle: version {}, issued {}, expires {}\ndepartments {}, zones {}\n{lists}certificate: {}\n",
        bundle.version,
        moment(bundle.issued, now),
        moment(bundle.expires, now),
        bundle.departments.len(),
        bundle.zones.len(),
        certificate(config, &federation, now),
    )
}

fn federation(config: &Config) -> Result<Federation, ServeError> {
    let roots = String::from_utf8(crate::trust::read(&config.roots)?);
    let roots = roots.map_err(|_| ServeError::trust(&config.roots, "not UTF-8"))?;
    let roots = RootKeys::from_json(&roots).map_err(|fault| ServeError::trust(&config.roots, fault))?;
    let bundle = verify_bundle(&roots, &crate::trust::read(&config.bundle)?);
    let bundle = bundle.map_err(|fault| ServeError::trust(&config.bundle, fault))?;
    let lists = config.revocation_lists.iter().map(|path| crate::trust::read(path)).collect::<Result<_, _>>()?;
    Federation::new(bundle, lists).map_err(|fault| ServeError::trust(&config.bundle, fault))
}

fn certificate(config: &Config, federation: &Federation, now: Timestamp) -> String {
    let chain = match crate::trust::read(&config.certificate) {
        Ok(chain) => chain,
        Err(error) => return fault(&error),
    };
    let Ok(chain) = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>() else {
        return "not PEM".to_owned();
    };
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    match federation.identify_ignoring_expiry(&chain, Usage::TlsGateway, now) {
        Ok(identity) => format!("expires {}", moment(identity.not_after, now)),
        Err(error) => error.to_string(),
    }
}

/// The cause without the file's path, which may name somebody.
fn fault(error: &ServeError) -> String {
    match error {
        ServeError::File { source, .. } => format!("a file cannot be read: {}", source.kind()),
        ServeError::Trust { fault, .. } => fault.clone(),
        other => whole(other),
    }
}

fn moment(at: Timestamp, now: Timestamp) -> String {
    let hours = (at.seconds() as i128 - now.seconds() as i128) / 3_600;
    let (days, rest) = (hours.abs() / 24, hours.abs() % 24);
    let way = if hours < 0 { "ago" } else { "from now" };
    format!("{} ({days} d {rest} h {way})", at.seconds())
}
