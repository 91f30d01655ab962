//! X.509 credentials of MLS leaves (RFC 9420 section 5.3, PROTOCOL 1).

use lianxin_trust::{CertificateError, Federation, Identity, Usage};
use lianxin_types::Timestamp;
use openmls::prelude::tls_codec::{Deserialize, Serialize, VLByteSlice, VLBytes};
use openmls::prelude::{Credential, CredentialType};

use crate::ProfileError;

/// Certificates in one credential, without the CA. Authorities issue leaves directly, so a second certificate would be
/// bytes that nobody looks at.
const CHAIN_CERTIFICATES_MAX: usize = 1;
/// Longest certificate in bytes of DER.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// What is asked of a certificate's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// For a leaf that enters or changes: valid now.
    MustBeValid,
    /// For a leaf that entered or changed with an event of the log, at the event's time: valid then, by the authorities of
    /// then, and the revocation lists that the gateway is known to have had. A leaf that turns out revoked is one that must go.
    WasValid,
    /// For the same in the log's own keeper, who judged it when it came in: the certificate is taken as it stands.
    WasJudged,
    /// For a leaf that sits in the tree already: it may have expired or been revoked since it entered. A joiner takes such a
    /// tree; it sends nothing while a revoked leaf is there (PROTOCOL 1).
    MayHaveEnded,
}

/// The credential for `chain`: DER certificates, leaf first, without the CA that is in the trust bundle, each with a
/// variable-size length in front (RFC 9420 section 2.1.2).
///
/// # Errors
/// [`ProfileError::InvalidCredential`] if the chain is empty, too long, or a certificate is too large.
pub fn x509_credential(chain: &[impl AsRef<[u8]>]) -> Result<Credential, ProfileError> {
    check_bounds(chain)?;
    let mut content = Vec::new();
    for certificate in chain {
        VLByteSlice(certificate.as_ref())
            .tls_serialize(&mut content)
            .map_err(|_| fault("certificate cannot be encoded"))?;
    }
    Ok(Credential::new(CredentialType::X509, content))
}

/// The DER certificates in `credential`, leaf first.
///
/// # Errors
/// [`ProfileError::InvalidCredential`] for another type of credential, other bytes, or a chain over the bounds.
pub fn parse_chain(credential: &Credential) -> Result<Vec<Vec<u8>>, ProfileError> {
    if credential.credential_type() != CredentialType::X509 {
        return Err(fault("not an X.509 credential"));
    }
    let mut rest = credential.serialized_content();
    let mut chain: Vec<Vec<u8>> = Vec::new();
    while !rest.is_empty() && chain.len() <= CHAIN_CERTIFICATES_MAX {
        let certificate = VLBytes::tls_deserialize(&mut rest).map_err(|_| fault("certificates are malformed"))?;
        chain.push(certificate.into());
    }
    check_bounds(&chain)?;
    Ok(chain)
}

fn check_bounds(chain: &[impl AsRef<[u8]>]) -> Result<(), ProfileError> {
    if chain.is_empty() || chain.len() > CHAIN_CERTIFICATES_MAX {
        return Err(fault("a chain has one certificate, the leaf's"));
    }
    match chain.iter().all(|one| (1..=CERTIFICATE_BYTES_MAX).contains(&one.as_ref().len())) {
        true => Ok(()),
        false => Err(fault("a certificate has 1 to 8192 bytes")),
    }
}

/// Who owns a leaf: the chain ends in the CA of the department that it names, the certificate is one for MLS of an `app`
/// or a `person`, its key is the leaf's, and its time is as `validity` asks. openmls checks none of this.
///
/// # Errors
/// [`ProfileError::InvalidCredential`], [`ProfileError::Certificate`], [`ProfileError::CredentialExpired`],
/// [`ProfileError::CredentialRevoked`].
pub fn check_leaf(
    federation: &Federation,
    credential: &Credential,
    signature_key: &[u8],
    now: Timestamp,
    validity: Validity,
) -> Result<Identity, ProfileError> {
    let chain = parse_chain(credential)?;
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let identity = match validity {
        Validity::MustBeValid => federation.identify(&chain, Usage::Mls, now),
        Validity::WasValid => federation.identify_then(&chain, Usage::Mls, now),
        Validity::WasJudged => Federation::identity_as_stated(&chain),
        Validity::MayHaveEnded => federation.identify_seated(&chain, Usage::Mls, now),
    };
    let identity = identity.map_err(certificate_error)?;
    if !identity.uri.kind().is_member() {
        return Err(fault("only apps and persons are members"));
    }
    if &identity.public_key[..] != signature_key {
        return Err(fault("the certificate's key is not the leaf's"));
    }
    Ok(identity)
}

fn certificate_error(error: CertificateError) -> ProfileError {
    match error {
        CertificateError::Expired | CertificateError::NotYetValid => ProfileError::CredentialExpired,
        CertificateError::Revoked => ProfileError::CredentialRevoked,
        other => ProfileError::Certificate(other),
    }
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidCredential { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let chain = [vec![0xBB; 70]];
        let credential = x509_credential(&chain).expect("within the bounds");
        // RFC 9420 section 2.1.2: one byte of length below 64, two from there on (0x4000 + 70).
        let expect = format!("4046{}", "bb".repeat(70));
        assert_eq!(hex::encode(credential.serialized_content()), expect);
        assert_eq!(credential.credential_type(), CredentialType::X509);
        assert_eq!(parse_chain(&credential), Ok(chain.to_vec()));
    }

    #[test]
    fn other_bytes_are_refused() {
        let parse = |kind, content: &[u8]| parse_chain(&Credential::new(kind, content.to_vec()));
        let refused = |text| Err(ProfileError::InvalidCredential { fault: text });
        assert_eq!(parse(CredentialType::Basic, b"\x01a"), refused("not an X.509 credential"));
        assert_eq!(parse(CredentialType::X509, b""), refused("a chain has one certificate, the leaf's"));
        assert_eq!(parse(CredentialType::X509, b"\x01a\x01a"), refused("a chain has one certificate, the leaf's"));
        assert_eq!(parse(CredentialType::X509, b"\x00"), refused("a certificate has 1 to 8192 bytes"));
        assert_eq!(parse(CredentialType::X509, b"\x05abc"), refused("certificates are malformed"));
        assert!(x509_credential(&[vec![0; 8193]]).is_err());
        assert!(x509_credential(&[] as &[Vec<u8>]).is_err());
    }
}
