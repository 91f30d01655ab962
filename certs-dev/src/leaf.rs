//! Leaf certificates: one shape for all kinds, with the usage as the difference.

use lianxin_trust::Usage;
use lianxin_types::{DeviceUri, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::key::random;

/// A certificate to issue.
pub(crate) struct Leaf<'a> {
    pub(crate) uri: &'a DeviceUri,
    pub(crate) usage: Usage,
    /// DNS name or IP address besides the URI: for a gateway.
    pub(crate) host: Option<&'a str>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Leaf<'_> {
    /// The certificate's content under a new random serial number, and that number.
    pub(crate) fn params(&self) -> anyhow::Result<(CertificateParams, Vec<u8>)> {
        let mut serial = random::<16>();
        // Positive, and of full length: the bytes are then also the content of the DER integer.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // No subject: the URI says everything, and no name belongs into a certificate (PROTOCOL 1).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.uri.as_str().try_into()?)];
        if let Some(host) = self.host {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.try_into()?),
            });
        }
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(self.usage.oid().to_vec())];
        // The general usages besides our own, so that ordinary TLS tools can be pointed at a gateway.
        match self.usage {
            Usage::TlsClient => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            Usage::TlsGateway => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            Usage::Mls | Usage::Officer | Usage::Witness | Usage::Issuer => {}
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(self.not_before)?;
        params.not_after = date(self.not_after)?;
        Ok((params, serial.to_vec()))
    }
}

/// The whole second in which `timestamp` lies.
pub(crate) fn date(timestamp: Timestamp) -> anyhow::Result<OffsetDateTime> {
    Ok(OffsetDateTime::from_unix_timestamp(i64::try_from(timestamp.seconds())?)?)
}
