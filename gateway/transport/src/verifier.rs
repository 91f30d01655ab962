//! Asks the federation who a client certificate belongs to, once per handshake.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_trust::{CertificateError, Federation, Identity};
use lianxin_types::Clock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// What the federation said about the certificate of one connection.
pub(crate) type Finding = Result<Identity, CertificateError>;

/// The verifier of one connection: it remembers what it found, so that a refusal is reported with its exact reason and an
/// accepted caller is not verified twice.
pub(crate) struct ClientVerifier {
    federation: Arc<Federation>,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
    finding: Mutex<Option<Finding>>,
}

impl ClientVerifier {
    pub(crate) fn new(
        federation: Arc<Federation>,
        clock: Arc<dyn Clock>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { federation, clock, algorithms, finding: Mutex::new(None) }
    }

    /// What was found, once; `None` if no certificate came.
    pub(crate) fn take_finding(&self) -> Option<Finding> {
        self.finding.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// No hints: a client has one certificate for us, and the list of departments is nobody's business before it is known.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<&[u8]> =
            std::iter::once(end_entity).chain(intermediates).map(|certificate| certificate.as_ref()).collect();
        let finding = self.federation.identify_caller(&chain, self.clock.now());
        let answer = match &finding {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(Error::InvalidCertificate(alert_for(error))),
        };
        *self.finding.lock().unwrap_or_else(PoisonError::into_inner) = Some(finding);
        answer
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The library turns its error into the alert that the client sees (RFC 8446 section 6.2): this picks the one that tells why.
const fn alert_for(error: &CertificateError) -> rustls::CertificateError {
    match error {
        CertificateError::Malformed | CertificateError::NoIdentity => rustls::CertificateError::BadEncoding,
        CertificateError::UnknownAuthority => rustls::CertificateError::UnknownIssuer,
        CertificateError::OtherDepartment { .. } => rustls::CertificateError::ApplicationVerificationFailure,
        CertificateError::WrongUsage | CertificateError::WrongKind => rustls::CertificateError::InvalidPurpose,
        CertificateError::Expired => rustls::CertificateError::Expired,
        CertificateError::NotYetValid => rustls::CertificateError::NotValidYet,
        CertificateError::Revoked => rustls::CertificateError::Revoked,
    }
}
