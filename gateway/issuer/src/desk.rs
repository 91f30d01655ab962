//! What is decided about one request.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use lianxin_connection::{Issued, RenewalOutcome, RenewalRefusal};
use lianxin_trust::{CertificateError, Federation, RenewalError, RenewalRequest};
use lianxin_types::{DepartmentId, DeviceUri, Digest, Timestamp};
use thiserror::Error;

use crate::authority::{AuthorityError, CertificateAuthority, Wanted};

/// The devices that the department renews; whoever is not on the list is not its device any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(BTreeSet<DeviceUri>);

/// Why a list of devices cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line} is not the uri of a device of this department that may be a member")]
pub struct DevicesError {
    /// Counted from 1.
    pub line: NonZeroUsize,
}

impl Devices {
    /// Reads a list: a URI in each line; empty lines and lines that begin with `#` count for nothing.
    ///
    /// # Errors
    /// [`DevicesError`] at the first line that is no device of this department's.
    pub fn parse(text: &str, department: &DepartmentId) -> Result<Self, DevicesError> {
        let mut devices = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let device = line.parse::<DeviceUri>().ok();
            let own = device.filter(|device| device.department() == department && device.kind().is_member());
            let wrong = || DevicesError { line: NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN) };
            devices.insert(own.ok_or_else(wrong)?);
        }
        Ok(Self(devices))
    }
}

/// Decides, and lets the authority sign.
pub struct Desk<A> {
    department: DepartmentId,
    devices: Devices,
    authority: A,
    lifetime: Duration,
    /// What was given out last, so that the same request gets the same certificates.
    given: Vec<(Digest, Issued)>,
}

/// So many answers are remembered. Who asks again after that gets other certificates, which are as good.
const GIVEN_MAX: usize = 1_024;

impl<A: CertificateAuthority> Desk<A> {
    /// A desk of this department's, whose certificates are good for `lifetime`.
    pub fn new(department: DepartmentId, devices: Devices, authority: A, lifetime: Duration) -> Self {
        Self { department, devices, authority, lifetime, given: Vec::new() }
    }

    /// From now on these are the department's devices.
    pub fn set_devices(&mut self, devices: Devices) {
        self.devices = devices;
    }

    /// What this request is answered: certificates that were verified as the device will verify them, or why there are none.
    ///
    /// # Errors
    /// [`AuthorityError`] if the authority does not sign, or signs what nobody accepts: that is no fault of the device, and
    /// it gets no answer.
    pub fn decide(
        &mut self,
        request: &RenewalRequest,
        federation: &Federation,
        now: Timestamp,
    ) -> Result<RenewalOutcome, AuthorityError> {
        let refused = |reason| Ok(RenewalOutcome::Refused(reason));
        let renewing = match request.check(federation, now) {
            Ok(renewing) => renewing,
            Err(RenewalError::Present(CertificateError::Revoked)) => return refused(RenewalRefusal::Revoked),
            Err(_) => return refused(RenewalRefusal::Unsound),
        };
        if *renewing.device.department() != self.department {
            return refused(RenewalRefusal::OtherDepartment);
        }
        if !self.devices.0.contains(&renewing.device) {
            return refused(RenewalRefusal::UnknownDevice);
        }
        let name = request.digest();
        if let Some((_, issued)) = self.given.iter().find(|(given, _)| *given == name) {
            return Ok(RenewalOutcome::Issued(issued.clone()));
        }
        let certify = |usage, public_key: &[u8]| {
            let lifetime = self.lifetime;
            self.authority.certify(&Wanted { device: &renewing.device, usage, public_key, now, lifetime })
        };
        let tls = certify(lianxin_trust::Usage::TlsClient, &renewing.tls_key)?;
        let mls = certify(lianxin_trust::Usage::Mls, &renewing.mls_key)?;
        renewing.check(&tls, &mls, federation, now).map_err(|error| AuthorityError(Box::new(error)))?;
        let issued = Issued { tls_certificate: tls.into(), mls_certificate: mls.into() };
        if self.given.len() >= GIVEN_MAX {
            self.given.remove(0);
        }
        self.given.push((name, issued.clone()));
        Ok(RenewalOutcome::Issued(issued))
    }
}

#[cfg(test)]
mod tests;
