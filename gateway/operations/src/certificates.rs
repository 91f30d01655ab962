//! A device's next certificates, from its own department's issuer. The gateway passes on what is sound, both ways, and issues
//! nothing: whoever has the gateway still has no authority's key, and gets no certificate for a key of its own, since the
//! device's MLS key signs what is asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_identity::Caller;
use lianxin_trust::{CertificateError, RenewalError, RenewalRequest, Renewing};
use lianxin_types::{Digest, Monotonic};

use crate::gate::{Operations, Receipt};
use crate::guard::plain;
use crate::refusal::Refusal;

/// How long a device waits for its issuer; the contract says so.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long it waits for one to connect, e.g. when the gateway has just started.
const ISSUER_WAIT: Duration = Duration::from_secs(5);
/// How long an issuer waits for something to do; the contract says so.
const WORK_WAIT: Duration = Duration::from_secs(20);
const RENEW: &str = "renew-certificates";
const READ: &str = "read-renewals";
const ANSWER: &str = "answer-renewal";

/// What was issued, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// TLS, for the new key.
    pub tls: Bytes,
    /// MLS, for the key of before.
    pub mls: Bytes,
}

/// What an issuer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalAnswer {
    /// Here they are.
    Issued(Certificates),
    /// Nothing is issued, for this reason, in a word.
    Refused(&'static str),
}

impl Operations {
    /// The caller's next certificates. Waits until its department's issuer has answered, or long enough.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Certificates.Renew` in the contract.
    pub async fn renew_certificates(&self, caller: &Caller, request: RenewalRequest) -> Result<Certificates, Refusal> {
        match self.renew(caller, request).await {
            Ok(certificates) => Ok(certificates),
            Err(refusal) => Err(self.guard.refuse(&caller.uri, RENEW, None, refusal).await),
        }
    }

    async fn renew(&self, caller: &Caller, request: RenewalRequest) -> Result<Certificates, Refusal> {
        let permit = self.guard.engine.renew_certificates(&self.request(caller, None))?;
        self.guard.renewal_rates.take(&caller.uri, 1, self.guard.clock.monotonic())?;
        let (federation, now) = (self.guard.federation(), self.guard.now());
        let check = move || request.check(&federation, now).map(|renewing| (request, renewing));
        let (request, renewing) = self.guard.validate(&caller.uri, check).await?.map_err(of_request)?;
        if renewing.device != *permit.caller() {
            return Err(Refusal::SenderMismatch);
        }
        // Recorded before an issuer sees it.
        let event = AuditEvent::CertificateRequested;
        let audit = self.guard.record(&event, Some(&caller.uri), None, None, permit.policy_version())?;
        self.guard.commit_for(&caller.uri, plain(audit)).await?;
        self.answer_of_issuer(caller, request, renewing).await
    }

    async fn answer_of_issuer(
        &self,
        caller: &Caller,
        request: RenewalRequest,
        renewing: Renewing,
    ) -> Result<Certificates, Refusal> {
        let start = self.guard.clock.monotonic();
        let mut deadline = start.plus(ISSUER_WAIT);
        let mut answered = self.guard.renewals.enter(request, renewing)?;
        let mut vigil = self.guard.callers.watch_over(caller);
        loop {
            tokio::select! {
                biased;
                // Who has been revoked meanwhile gets no certificate that the list does not name.
                judged = vigil.judged() => drop(judged?),
                answer = answered.wait_for(Option::is_some) => {
                    return match answer.as_deref() {
                        Ok(Some(RenewalAnswer::Issued(certificates))) => Ok(certificates.clone()),
                        Ok(Some(RenewalAnswer::Refused(_))) => Err(Refusal::RenewalRefused),
                        Ok(None) | Err(_) => Err(Refusal::IssuerAway),
                    };
                }
                () = self.guard.clock.sleep_until(deadline) => {
                    let (last, now) = (start.plus(ANSWER_WAIT), self.guard.clock.monotonic());
                    if deadline == last || !self.guard.renewals.has_issuer(caller.uri.department(), now) {
                        return Err(Refusal::IssuerAway);
                    }
                    deadline = last;
                }
            }
        }
    }

    /// What devices of the caller's department ask for; the caller is its issuer. Waits for the first of it, and gives nothing
    /// if nothing comes; then there is nothing to record either.
    ///
    /// # Errors
    /// [`Refusal::WrongKind`], [`Refusal::ZoneUnavailable`], or what became of the caller's certificate meanwhile.
    pub async fn pending_renewals(&self, caller: &Caller) -> Result<Vec<(Digest, RenewalRequest)>, Refusal> {
        let permit = self.guard.engine.issue_certificates(&self.request(caller, None));
        let permit = self.permitted(caller, READ, None, permit).await?;
        let deadline = self.guard.clock.monotonic().plus(WORK_WAIT);
        let renewals = match self.work_for(caller, deadline).await {
            Ok(renewals) => renewals,
            Err(refusal) => return Err(self.guard.refuse(&caller.uri, READ, None, refusal).await),
        };
        if !renewals.is_empty() {
            let event = AuditEvent::RenewalsRead { renewals: renewals.len() };
            self.guard.record_read(event, &caller.uri, None, permit.policy_version()).await?;
        }
        Ok(renewals)
    }

    async fn work_for(&self, caller: &Caller, deadline: Monotonic) -> Result<Vec<(Digest, RenewalRequest)>, Refusal> {
        let mut vigil = self.guard.callers.watch_over(caller);
        let _idle = self.guard.renewals.idle(caller.uri.department());
        loop {
            let mut entered = std::pin::pin!(self.guard.renewals.entered.notified());
            // From here on nothing is missed: what enters after the look wakes.
            entered.as_mut().enable();
            let now = self.guard.clock.monotonic();
            let work = self.guard.renewals.give_out(caller.uri.department(), now);
            if !work.is_empty() || now >= deadline {
                return Ok(work);
            }
            tokio::select! {
                biased;
                judged = vigil.judged() => drop(judged?),
                () = entered => {}
                () = self.guard.clock.sleep_until(deadline) => {}
            }
        }
    }

    /// Passes an issuer's answer on to the device that waits for it, if it is sound.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Certificates.Answer` in the contract.
    pub async fn answer_renewal(
        &self,
        caller: &Caller,
        name: Digest,
        answer: RenewalAnswer,
    ) -> Result<Receipt, Refusal> {
        let (this, who) = (self.clone(), caller.clone());
        // To the end: what is recorded as issued must also reach the device when the issuer's call is lost.
        match self.guard.to_the_end(async move { this.pass_on(&who, name, answer).await }).await {
            Ok(receipt) => Ok(receipt),
            Err(refusal) => Err(self.guard.refuse(&caller.uri, ANSWER, None, refusal).await),
        }
    }

    async fn pass_on(&self, caller: &Caller, name: Digest, answer: RenewalAnswer) -> Result<Receipt, Refusal> {
        let permit = self.guard.engine.issue_certificates(&self.request(caller, None))?;
        let department = permit.caller().department();
        let renewing = self.guard.renewals.renewing(department, &name).ok_or(Refusal::UnknownRenewal)?;
        let device = renewing.device.clone();
        let event = match answer.clone() {
            RenewalAnswer::Refused(reason) => AuditEvent::CertificateRefused { reason, device },
            RenewalAnswer::Issued(Certificates { tls, mls }) => {
                let (guard, now) = (Arc::clone(&self.guard), self.guard.now());
                let check = move || renewing.check(&tls, &mls, &guard.federation(), now);
                let ends = self.guard.validate(&caller.uri, check).await?.map_err(|_| Refusal::InvalidCredential)?;
                AuditEvent::CertificateIssued { ends, device }
            }
        };
        let version = permit.policy_version();
        let audit = self.guard.record(&event, Some(&caller.uri), None, None, version)?;
        let accepted = self.guard.commit_for(&caller.uri, plain(audit)).await?;
        // Recorded first; a device that has left meanwhile asks again.
        let has_gone = self.guard.renewals.answer(department, &name, answer);
        if has_gone { Ok(Receipt::of(&accepted, version)) } else { Err(Refusal::UnknownRenewal) }
    }
}

fn of_request(error: RenewalError) -> Refusal {
    match error {
        RenewalError::Malformed | RenewalError::NotTheKeysHolder => Refusal::Malformed { field: "tls_request" },
        RenewalError::Present(CertificateError::Expired | CertificateError::NotYetValid) => Refusal::CredentialExpired,
        RenewalError::Present(CertificateError::Revoked) => Refusal::CredentialRevoked,
        RenewalError::NotTheDevice => Refusal::SenderMismatch,
        RenewalError::Present(_)
        | RenewalError::Issued(_)
        | RenewalError::OtherDevice { .. }
        | RenewalError::OtherKey => Refusal::InvalidCredential,
    }
}
