//! What our leaves can do, and what every member must be able to do (PROTOCOL 3).

use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, ExtensionType, ProtocolVersion, RequiredCapabilitiesExtension,
    VerifiableCiphersuite,
};

use crate::{CHANNEL_CONTEXT_EXTENSION, HEAD_EXTENSION, ProfileError};

/// Suite 0x0001: X25519, AES-128-GCM, SHA-256, Ed25519.
pub const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Capabilities of our own leaves, spelt out: openmls' defaults advertise suites that the provider may not have and lack
/// X.509. `last_resort` is listed because RFC 9420 section 7.2 wants every extension in a key package listed.
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
        Some(&[CredentialType::X509]),
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
/// [`ProfileError::InvalidKeyPackage`] if the version, the suite, 0xF0A1 or X.509 is missing.
pub fn check_capabilities(capabilities: &Capabilities) -> Result<(), ProfileError> {
    let fault = if !capabilities.versions().contains(&ProtocolVersion::Mls10) {
        "leaf does not list MLS 1.0"
    } else if !capabilities.ciphersuites().contains(&VerifiableCiphersuite::from(CIPHERSUITE)) {
        "leaf does not list the suite"
    } else if !capabilities.extensions().contains(&ExtensionType::Unknown(CHANNEL_CONTEXT_EXTENSION)) {
        "leaf does not list the channel context"
    } else if !capabilities.credentials().contains(&CredentialType::X509) {
        "leaf does not list X.509"
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
    }
}
