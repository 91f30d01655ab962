//! Renewals that wait for an issuer of their department. In memory: a device that gets no answer asks again, and the issuer
//! answers the same request alike.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lianxin_trust::{RenewalRequest, Renewing};
use lianxin_types::{DepartmentId, Digest, LIMITS, Monotonic};
use tokio::sync::{Notify, watch};

use crate::certificates::RenewalAnswer;
use crate::refusal::Refusal;

/// How long an issuer counts as there that was given something to do, or nothing: it works on it, or asks again.
const ISSUER_THERE: Duration = Duration::from_secs(5);
/// What was given out and has no answer is given out again: the issuer may have lost it, or there is another one.
const GIVEN_OUT_AGAIN: Duration = Duration::from_secs(10);
/// Most renewals that an issuer gets at once; the contract says so.
const GIVEN_OUT_MAX: usize = 16;

/// An answer that comes, once.
pub(crate) type Answered = watch::Receiver<Option<RenewalAnswer>>;

/// What waits, department by department.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    offices: Mutex<HashMap<DepartmentId, Office>>,
    /// Wakes the issuers that wait.
    pub(crate) entered: Notify,
}

/// One department.
#[derive(Debug, Default)]
struct Office {
    /// Issuers that wait for something to do.
    idle: usize,
    issuer_asked: Option<Monotonic>,
    /// Oldest first.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    name: Digest,
    request: RenewalRequest,
    renewing: Renewing,
    given_out: Option<Monotonic>,
    /// Without receivers once the device waits no longer.
    answer: watch::Sender<Option<RenewalAnswer>>,
}

impl Office {
    fn forget_who_left(&mut self) {
        self.waiting.retain(|one| !one.answer.is_closed());
    }
}

impl Renewals {
    /// Whether an issuer of the department waits for something to do, or did so a short while ago.
    pub(crate) fn has_issuer(&self, department: &DepartmentId, now: Monotonic) -> bool {
        let offices = self.lock();
        let Some(office) = offices.get(department) else { return false };
        office.idle > 0 || office.issuer_asked.is_some_and(|asked| now < asked.plus(ISSUER_THERE))
    }

    /// An issuer of the department waits, until this is dropped.
    pub(crate) fn idle<'a>(&'a self, department: &'a DepartmentId) -> Idle<'a> {
        self.lock().entry(department.clone()).or_default().idle += 1;
        Idle { renewals: self, department }
    }

    /// Lets a sound request wait; copies of one wait together.
    ///
    /// # Errors
    /// [`Refusal::IdReused`] if the device waits for another request under this id; [`Refusal::ResourceExhausted`] if too much of
    /// the department's waits.
    pub(crate) fn enter(&self, request: RenewalRequest, renewing: Renewing) -> Result<Answered, Refusal> {
        let mut offices = self.lock();
        let office = offices.entry(renewing.device.department().clone()).or_default();
        office.forget_who_left();
        let name = request.digest();
        let is_same_id = |one: &&Waiting| one.renewing.device == renewing.device && one.request.id == request.id;
        match office.waiting.iter().find(is_same_id) {
            Some(copy) if copy.name == name => return Ok(copy.answer.subscribe()),
            Some(_) => return Err(Refusal::IdReused),
            None => {}
        }
        if office.waiting.len() >= LIMITS.department_renewals_max {
            return Err(Refusal::ResourceExhausted);
        }
        let (answer, answered) = watch::channel(None);
        office.waiting.push(Waiting { name, request, renewing, given_out: None, answer });
        drop(offices);
        self.entered.notify_waiters();
        Ok(answered)
    }

    /// What an issuer of this department is to answer now, oldest first; none if it must wait. It counts as there from now on.
    pub(crate) fn give_out(&self, department: &DepartmentId, now: Monotonic) -> Vec<(Digest, RenewalRequest)> {
        let mut offices = self.lock();
        let office = offices.entry(department.clone()).or_default();
        office.issuer_asked = Some(now);
        office.forget_who_left();
        let is_due = |one: &&mut Waiting| one.given_out.is_none_or(|given| now >= given.plus(GIVEN_OUT_AGAIN));
        let due = office.waiting.iter_mut().filter(is_due).take(GIVEN_OUT_MAX);
        due.map(|one| {
            one.given_out = Some(now);
            (one.name, one.request.clone())
        })
        .collect()
    }

    /// What may be issued for a request of this department's that waits.
    pub(crate) fn renewing(&self, department: &DepartmentId, name: &Digest) -> Option<Renewing> {
        let offices = self.lock();
        let waiting = &offices.get(department)?.waiting;
        let found = waiting.iter().find(|one| one.name == *name && !one.answer.is_closed());
        found.map(|one| one.renewing.clone())
    }

    /// Whether the answer went to a device of this department that waited for it. It waits no longer.
    pub(crate) fn answer(&self, department: &DepartmentId, name: &Digest, answer: RenewalAnswer) -> bool {
        let mut offices = self.lock();
        let Some(office) = offices.get_mut(department) else { return false };
        let Some(at) = office.waiting.iter().position(|one| one.name == *name) else { return false };
        office.waiting.remove(at).answer.send(Some(answer)).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DepartmentId, Office>> {
        self.offices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An issuer that waits for something to do; also one whose connection has ended goes by dropping this.
#[derive(Debug)]
pub(crate) struct Idle<'a> {
    renewals: &'a Renewals,
    department: &'a DepartmentId,
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if let Some(office) = self.renewals.lock().get_mut(self.department) {
            office.idle = office.idle.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use lianxin_certs_dev::{AppPaths, FederationPlan, Minted, mint, renewal_request};
    use lianxin_types::{Clock as _, SystemClock};

    use super::*;

    struct Office {
        minted: Minted,
        renewals: Renewals,
        _folder: tempfile::TempDir,
    }

    impl Office {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let minted = mint(&FederationPlan::default(), &folder.path().join("f"), &SystemClock).expect("mints");
            Self { minted, renewals: Renewals::default(), _folder: folder }
        }

        fn app(&self) -> AppPaths {
            self.minted.app("jiwei", "app-1").expect("minted")
        }

        fn request(&self) -> (RenewalRequest, Renewing) {
            let request = renewal_request(&self.app()).expect("signed").0;
            let federation = self.minted.federation().expect("verifies");
            let renewing = request.check(&federation, SystemClock.now()).expect("sound");
            (request, renewing)
        }
    }

    fn jiwei() -> DepartmentId {
        "jiwei".parse().expect("a name")
    }

    #[test]
    fn copies_wait_together_and_what_has_no_answer_is_given_out_again() {
        let (office, start) = (Office::new(), Monotonic::default());
        let (request, renewing) = office.request();
        let first = office.renewals.enter(request.clone(), renewing.clone()).expect("waits");
        let copy = office.renewals.enter(request.clone(), renewing.clone()).expect("waits");
        let mut other = request.clone();
        other.tls_request.push(0);
        assert_eq!(office.renewals.enter(other, renewing).map(|_| ()), Err(Refusal::IdReused));
        let name = request.digest();
        let given = |at| office.renewals.give_out(&jiwei(), at).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(given(start), [name]);
        assert_eq!(given(start.plus(GIVEN_OUT_AGAIN - Duration::from_millis(1))), []);
        assert_eq!(given(start.plus(GIVEN_OUT_AGAIN)), [name]);
        let refused = RenewalAnswer::Refused("revoked");
        let shenji = "shenji".parse().expect("a name");
        assert!(!office.renewals.answer(&shenji, &name, refused.clone()), "another department's");
        assert!(office.renewals.answer(&jiwei(), &name, refused.clone()));
        assert_eq!((first.borrow().clone(), copy.borrow().clone()), (Some(refused.clone()), Some(refused.clone())));
        assert!(!office.renewals.answer(&jiwei(), &name, refused), "answered before");
    }

    #[test]
    fn who_waits_no_longer_is_given_to_no_issuer_and_takes_no_place() {
        let (office, start) = (Office::new(), Monotonic::default());
        let (request, renewing) = office.request();
        drop(office.renewals.enter(request.clone(), renewing).expect("waits"));
        assert!(office.renewals.renewing(&jiwei(), &request.digest()).is_none());
        assert_eq!(office.renewals.give_out(&jiwei(), start).len(), 0);
    }

    #[test]
    fn a_department_has_so_much_waiting_and_not_one_more_and_gets_sixteen_at_once() {
        let (office, start) = (Office::new(), Monotonic::default());
        let (request, renewing) = office.request();
        let enter = |number: usize| {
            let mut request = request.clone();
            request.id.0[..8].copy_from_slice(&number.to_be_bytes());
            office.renewals.enter(request, renewing.clone())
        };
        let waiting: Vec<_> = (0..LIMITS.department_renewals_max).map(|number| enter(number).expect("waits")).collect();
        let over = LIMITS.department_renewals_max;
        assert_eq!(enter(over).map(|_| ()), Err(Refusal::ResourceExhausted));
        assert_eq!(office.renewals.give_out(&jiwei(), start).len(), GIVEN_OUT_MAX);
        drop(waiting);
        enter(over).expect("there is room again");
    }

    #[test]
    fn an_issuer_is_there_for_a_while_after_it_asked() {
        let (office, start) = (Office::new(), Monotonic::default());
        assert!(!office.renewals.has_issuer(&jiwei(), start));
        office.renewals.give_out(&jiwei(), start);
        assert!(office.renewals.has_issuer(&jiwei(), start.plus(ISSUER_THERE - Duration::from_millis(1))));
        assert!(!office.renewals.has_issuer(&jiwei(), start.plus(ISSUER_THERE)));
        let shenji = "shenji".parse().expect("a name");
        assert!(!office.renewals.has_issuer(&shenji, start));
        let (late, own) = (start.plus(10 * ISSUER_THERE), jiwei());
        let (first, second) = (office.renewals.idle(&own), office.renewals.idle(&own));
        assert!(office.renewals.has_issuer(&own, late), "it waits, however long");
        drop(first);
        assert!(office.renewals.has_issuer(&own, late));
        drop(second);
        assert!(!office.renewals.has_issuer(&own, late), "the last one has gone");
    }
}
