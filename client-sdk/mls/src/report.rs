//! Reports of commits that cannot be processed: made by whom they broke the channel for, verified by everybody else.

use lianxin_keystore::Transaction;
use lianxin_profile::{Report, ReportReason, SignedReport};
use lianxin_tlog::EventKind;
use lianxin_types::{Digest, Epoch};

use crate::channel::OpenChannel;
use crate::process::Stop;
use crate::record::{Records, Standing};
use crate::{LogEvent, Mls, MlsError, Processed, Violation};

impl Mls {
    /// The signed report of a commit by which the channel broke, for the gateway's `Report`; `None` if it did not, or if that is
    /// not the commit's fault.
    ///
    /// # Errors
    /// [`MlsError::NotMember`], [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn report(
        &self,
        tx: &Transaction<'_>,
        event: &LogEvent,
        violation: &Violation,
    ) -> Result<Option<Vec<u8>>, MlsError> {
        let records = Records::new(tx, event.channel);
        let record = records.load()?.ok_or(MlsError::NotMember)?;
        let is_commits_fault = event.kind == EventKind::Commit && violation.is_the_commits_fault();
        if record.standing != Standing::Broken || !is_commits_fault {
            return Ok(None);
        }
        let open = self.open(tx, records, record)?;
        let report = Report {
            group: open.record.group,
            epoch: Epoch(open.group.epoch().as_u64()),
            sequence: event.sequence,
            commit: Digest::sha256(&event.mls),
            reason: reason(violation),
        };
        Ok(Some(report.signed(|signed| self.signer.sign_raw(signed))))
    }

    /// Another member's report: of this group, and signed by the leaf of whom the log names.
    pub(crate) fn reported(&self, open: &OpenChannel<'_>, event: &LogEvent) -> Result<Processed, Stop> {
        let signed = SignedReport::from_bytes(&event.mls).map_err(|_| Violation::Malformed)?;
        let reporter = event.sender.clone();
        let seat = open.roster.of(&reporter).ok_or(Violation::UnsignedReport)?;
        let report = signed.verify(&self.crypto, &seat.signature_key).map_err(|_| Violation::UnsignedReport)?;
        if report.group != open.record.group || report.sequence >= event.sequence {
            return Err(Violation::UnsignedReport.into());
        }
        if open.records.last_commit_hash(report.sequence)?.is_some_and(|hash| hash != report.commit) {
            return Err(Violation::OtherCommitReported { sequence: report.sequence }.into());
        }
        Ok(Processed::CommitReported { reporter, commit: report.sequence, reason: report.reason })
    }
}

fn reason(violation: &Violation) -> ReportReason {
    match violation {
        Violation::InvalidCommit(_) => ReportReason::BreaksProfile,
        Violation::HeadMismatch { .. } => ReportReason::WrongHead,
        Violation::SenderMismatch { .. } | Violation::NotSent => ReportReason::WrongSender,
        Violation::Malformed => ReportReason::Malformed,
        _ => ReportReason::CannotProcess,
    }
}
