//! Asks the federation whether the other end is a gateway of the zone's operator. Names in the certificate other than the
//! identity do not count: who operates a zone stands in the trust bundle, not in the DNS.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_trust::{Federation, Usage};
use lianxin_types::{Clock, DepartmentId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use crate::GatewayFault;

/// For one handshake; remembers why it said no.
pub(crate) struct GatewayVerifier {
    federation: Arc<Federation>,
    operator: DepartmentId,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
    fault: Mutex<Option<GatewayFault>>,
}

impl GatewayVerifier {
    pub(crate) fn new(
        federation: Arc<Federation>,
        operator: DepartmentId,
        clock: Arc<dyn Clock>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { federation, operator, clock, algorithms, fault: Mutex::new(None) }
    }

    /// Why the certificate was refused, if it was.
    pub(crate) fn take_fault(&self) -> Option<GatewayFault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn check(&self, chain: &[&[u8]]) -> Result<(), GatewayFault> {
        let identity = self.federation.identify(chain, Usage::TlsGateway, self.clock.now())?;
        let found = identity.uri.department();
        if *found == self.operator {
            return Ok(());
        }
        Err(GatewayFault::OtherOperator { expected: self.operator.clone(), found: found.clone() })
    }
}

impl fmt::Debug for GatewayVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayVerifier(..)")
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<&[u8]> = std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref).collect();
        self.check(&chain).map(|()| ServerCertVerified::assertion()).map_err(|fault| {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)
        })
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
