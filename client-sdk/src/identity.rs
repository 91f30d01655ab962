//! The device's certificates in its state: those that its department renewed, and the request for the next ones. What is
//! configured counts until a renewal, and again once the operator configures something newer.

use ed25519_dalek::SigningKey;
use lianxin_connection::{ConnectError, TlsIdentity};
use lianxin_keystore::Transaction;
use lianxin_trust::{Federation, Identity, RenewalRequest, Usage};
use lianxin_types::{DecodeError, DeviceUri, Digest, IdempotencyId, Reader, Timestamp, Writer};
use zeroize::Zeroizing;

use crate::ClientError;
use crate::config::Loaded;
use crate::error::chain;

/// Rows: the certificates and keys of the device, and how far its application was told about their end.
const IDENTITY: &str = "identity";
const PRESENT: &[u8] = b"present";
const NEXT: &[u8] = b"next";
const TOLD: &[u8] = b"told";
const VERSION: u8 = 1;
/// Longest certificate, certification request or key that is stored (`RENEWAL_PART_BYTES_MAX` of a renewal).
const PART_BYTES_MAX: usize = lianxin_trust::RENEWAL_PART_BYTES_MAX;

/// Certificates that were renewed, and the new TLS key. The MLS key stays where it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) tls_certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub(crate) tls_key: Zeroizing<Vec<u8>>,
    pub(crate) mls_certificate: Vec<u8>,
}

impl Present {
    /// version u8, TLS certificate, TLS key, MLS certificate.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        writer.u8(VERSION).bytes(&self.tls_certificate).bytes(&self.tls_key).bytes(&self.mls_certificate);
        Zeroizing::new(writer.finish())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let tls_certificate = reader.bytes("tls certificate", PART_BYTES_MAX)?.to_vec();
        let tls_key = Zeroizing::new(reader.bytes("tls key", PART_BYTES_MAX)?.to_vec());
        let mls_certificate = reader.bytes("mls certificate", PART_BYTES_MAX)?.to_vec();
        reader.finish()?;
        Ok(Self { tls_certificate, tls_key, mls_certificate })
    }

    pub(crate) fn tls(&self) -> Result<TlsIdentity, ConnectError> {
        TlsIdentity::from_der(&self.tls_certificate, &self.tls_key)
    }
}

/// A request for the next certificates, and the key that it is for. It is asked again until it is answered.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) request: RenewalRequest,
    /// PKCS #8, DER.
    pub(crate) tls_key: Zeroizing<Vec<u8>>,
}

impl Next {
    /// version u8, id, TLS key, certification request, MLS certificate, signature.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let (mut writer, request) = (Writer::new(), &self.request);
        writer.u8(VERSION).raw(&request.id.0).bytes(&self.tls_key).bytes(&request.tls_request);
        Zeroizing::new(writer.bytes(&request.mls_certificate).raw(&request.signature).finish())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let id = IdempotencyId(reader.array("id")?);
        let tls_key = Zeroizing::new(reader.bytes("tls key", PART_BYTES_MAX)?.to_vec());
        let tls_request = reader.bytes("tls request", PART_BYTES_MAX)?.to_vec();
        let mls_certificate = reader.bytes("mls certificate", PART_BYTES_MAX)?.to_vec();
        let signature = reader.array("signature")?;
        reader.finish()?;
        Ok(Self { request: RenewalRequest { id, tls_request, mls_certificate, signature }, tls_key })
    }
}

fn open(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("record version")? {
        VERSION => Ok(reader),
        version => Err(DecodeError::UnknownVersion { version }),
    }
}

/// The request in flight, if it is for the certificate that the device has now.
pub(crate) fn next(tx: &Transaction<'_>, mls_certificate: &[u8]) -> Result<Option<Next>, ClientError> {
    let Some(bytes) = tx.get(IDENTITY, NEXT)?.map(Zeroizing::new) else { return Ok(None) };
    Ok(Some(Next::from_bytes(&bytes)?).filter(|next| next.request.mls_certificate == mls_certificate))
}

pub(crate) fn put_next(tx: &Transaction<'_>, next: &Next) -> Result<(), ClientError> {
    Ok(tx.put(IDENTITY, NEXT, &next.to_bytes())?)
}

/// The request in flight will not be answered any more.
pub(crate) fn drop_next(tx: &Transaction<'_>) -> Result<(), ClientError> {
    Ok(tx.delete(IDENTITY, NEXT)?)
}

/// The next certificates are the present ones, and nothing is in flight.
pub(crate) fn put_present(tx: &Transaction<'_>, present: &Present) -> Result<(), ClientError> {
    tx.put(IDENTITY, PRESENT, &present.to_bytes())?;
    drop_next(tx)
}

/// How often the application was told of the end of this TLS certificate.
pub(crate) fn told(tx: &Transaction<'_>, tls_certificate: &[u8]) -> Result<u8, ClientError> {
    let told = tx.get(IDENTITY, TOLD)?.unwrap_or_default();
    let digest = Digest::sha256(tls_certificate).0;
    Ok(told.strip_prefix(&digest[..]).and_then(|times| times.first().copied()).unwrap_or(0))
}

pub(crate) fn put_told(tx: &Transaction<'_>, tls_certificate: &[u8], times: u8) -> Result<(), ClientError> {
    Ok(tx.put(IDENTITY, TOLD, &[&Digest::sha256(tls_certificate).0[..], &[times]].concat())?)
}

/// For how long a device's certificates are good, as far as both are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub(crate) begins: Timestamp,
    pub(crate) ends: Timestamp,
}

impl Life {
    /// Of two certificates of this device; `None` if either is not one that the federation knows as its own.
    pub(crate) fn of(
        federation: &Federation,
        device: &DeviceUri,
        tls_certificate: &[u8],
        mls_certificate: &[u8],
        now: Timestamp,
    ) -> Option<Self> {
        let identity = |certificate, usage| {
            let identity = federation.identify_ignoring_expiry(&[certificate], usage, now).ok();
            identity.filter(|identity: &Identity| identity.uri == *device)
        };
        let (tls, mls) = (identity(tls_certificate, Usage::TlsClient)?, identity(mls_certificate, Usage::Mls)?);
        Some(Self { begins: tls.not_before.max(mls.not_before), ends: tls.not_after.min(mls.not_after) })
    }

    /// By the clock of whoever asks, without tolerance.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        now > self.ends
    }
}

/// Puts renewed certificates in the place of the configured ones if they begin later and are good, or the configured ones are
/// not. They must be this device's and for the configured MLS key: whoever configures another key has begun anew.
///
/// # Errors
/// [`ClientError::State`], [`ClientError::Record`].
pub(crate) fn at_start(
    tx: &Transaction<'_>,
    loaded: &mut Loaded,
    federation: &Federation,
    device: &DeviceUri,
    now: Timestamp,
) -> Result<(), ClientError> {
    let Some(bytes) = tx.get(IDENTITY, PRESENT)?.map(Zeroizing::new) else { return Ok(()) };
    let present = Present::from_bytes(&bytes)?;
    let life = |tls: &[u8], mls: &[u8]| Life::of(federation, device, tls, mls, now).filter(|life| !life.is_over(now));
    let configured_mls = loaded.mls.chain.first().map_or(&[][..], Vec::as_slice);
    let is_same_key = key_of(federation, &present.mls_certificate, now)
        .is_some_and(|key| key == SigningKey::from_bytes(&loaded.mls.key).verifying_key().to_bytes());
    let configured = life(loaded.tls.certificate(), configured_mls);
    let Some(stored) = life(&present.tls_certificate, &present.mls_certificate).filter(|_| is_same_key) else {
        tracing::info!("the configured certificates are used, and not the renewed ones");
        return Ok(());
    };
    if configured.is_some_and(|configured| configured.begins >= stored.begins) {
        tracing::info!("the configured certificates are newer than the renewed ones");
        return Ok(());
    }
    match present.tls() {
        Ok(tls) => {
            loaded.tls = tls;
            loaded.mls.chain = vec![present.mls_certificate];
        }
        Err(error) => tracing::warn!(error = %chain(&error), "the renewed TLS certificate cannot be used"),
    }
    Ok(())
}

fn key_of(federation: &Federation, mls_certificate: &[u8], now: Timestamp) -> Option<Vec<u8>> {
    let identity = federation.identify_ignoring_expiry(&[mls_certificate], Usage::Mls, now).ok()?;
    Some(identity.public_key)
}

#[cfg(test)]
mod tests;
