//! What our leaves can do, and what every member must be able to do (PROTOCOL 3).

use std::ops::RangeInclusive;

use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, ExtensionType, ProtocolVersion, RequiredCapabilitiesExtension,
    VerifiableCiphersuite,
};

use crate::{CHANNEL_CONTEXT_EXTENSION, HEAD_EXTENSION, ProfileError};

/// Suite 0x0001: X25519, AES-128-GCM, SHA-256, Ed25519.
pub const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Extension types that every client has (RFC 9420 section 7.2).
const DEFAULT_EXTENSIONS: RangeInclusive<u16> = 1..=5;
/// Proposal types that every client has.
const DEFAULT_PROPOSALS: RangeInclusive<u16> = 1..=7;

/// Capabilities of our own leaves, spelt out: openmls' defaults advertise suites that the provider may not have and lack
/// X.509. `last_resort` is listed because RFC 9420 section 7.2 wants every extension in a key package listed, and `basic`
/// because the external sender's credential is one: mls-rs refuses a leaf that does not list the types of all credentials in
/// the group context. No leaf may have a basic credential all the same.
pub fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[CIPHERSUITE]),
        Some(&[
            ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION),
            ExtensionType::Unknown(HEAD_EXTENSION),
            ExtensionType::LastResort,
        ]),
        Some(&[]),
        Some(&[CredentialType::X509, CredentialType::Basic]),
    )
}

/// What the group context requires of every member: 0xF0A1 and X.509.
pub fn required_capabilities() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(
        &[ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION)],
        &[],
        &[CredentialType::X509],
    )
}

/// Whether a leaf with these capabilities may sit in our groups. It may list more than we do.
///
/// # Errors
/// [`ProfileError::InvalidKeyPackage`] if the version, the suite, 0xF0A1, X.509 or basic is missing, or a type is listed that
/// RFC 9420 section 7.2 forbids to list because everybody has it: openmls lets it pass, others refuse the leaf.
pub fn check_capabilities(capabilities: &Capabilities) -> Result<(), ProfileError> {
    let fault = if !capabilities.versions().contains(&ProtocolVersion::Mls10) {
        "leaf does not list MLS 1.0"
    } else if !capabilities.ciphersuites().contains(&VerifiableCiphersuite::from(CIPHERSUITE)) {
        "leaf does not list the suite"
    } else if !capabilities.extensions().contains(&ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION)) {
        "leaf does not list the channel context"
    } else if !capabilities.credentials().contains(&CredentialType::X509) {
        "leaf does not list X.509"
    } else if !capabilities.credentials().contains(&CredentialType::Basic) {
        "leaf does not list the external sender's type of credential"
    } else if capabilities.extensions().iter().any(|kind| DEFAULT_EXTENSIONS.contains(&u16::from(*kind)))
        || capabilities.proposals().iter().any(|kind| DEFAULT_PROPOSALS.contains(&u16::from(*kind)))
    {
        "leaf lists what is not to be listed"
    } else {
        return Ok(());
    };
    Err(ProfileError::InvalidKeyPackage { fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_suffice_and_the_librarys_defaults_do_not() {
        assert_eq!(check_capabilities(&capabilities()), Ok(()));
        assert!(check_capabilities(&Capabilities::default()).is_err());
        assert_eq!(capabilities().ciphersuites().len(), 1);
        let ours = capabilities();
        let x509_alone = Capabilities::new(
            Some(ours.versions()),
            Some(&[CIPHERSUITE]),
            Some(ours.extensions()),
            Some(&[]),
            Some(&[CredentialType::X509]),
        );
        let fault = "leaf does not list the external sender's type of credential";
        assert_eq!(check_capabilities(&x509_alone), Err(ProfileError::InvalidKeyPackage { fault }));
        let with_default = Capabilities::new(
            Some(ours.versions()),
            Some(&[CIPHERSUITE]),
            Some(&[ours.extensions(), &[ExtensionType::RatchetTree]].concat()),
            Some(&[]),
            Some(ours.credentials()),
        );
        let fault = "leaf lists what is not to be listed";
        assert_eq!(check_capabilities(&with_default), Err(ProfileError::InvalidKeyPackage { fault }));
    }
}
