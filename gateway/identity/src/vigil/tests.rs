use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_types::{Clock, Monotonic, SystemClock, Timestamp};
use tokio::sync::watch;

use super::*;

/// A clock that stands still until it is set; both its times are the same.
struct SetClock(watch::Sender<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.borrow().0)
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut time = self.0.subscribe();
        Box::pin(async move {
            if time.wait_for(|now| now.0 >= deadline.0).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

struct World {
    minted: Minted,
    clock: Arc<SetClock>,
    callers: Arc<Callers>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("f"), &SystemClock).expect("mints");
        let clock = Arc::new(SetClock(watch::Sender::new(SystemClock.now())));
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let callers = Callers::new(minted.federation().expect("verifies"), Vec::new(), time);
        Self { minted, clock, callers: Arc::new(callers), _folder: folder }
    }

    fn caller(&self, name: &str) -> Caller {
        use rustls_pki_types::pem::PemObject as _;
        let file = self.minted.app("jiwei", name).expect("minted").tls_certificate;
        let leaf = rustls_pki_types::CertificateDer::from_pem_file(file).expect("PEM");
        self.callers.identify(&Arc::new(vec![leaf.to_vec()])).expect("a caller")
    }

    fn set_clock(&self, now: Timestamp) {
        self.clock.0.send_replace(now);
    }

    fn reload(&self) {
        self.callers.replace(self.minted.federation().expect("verifies"), Vec::new());
    }
}

/// What one look at the vigil says.
fn look(vigil: &mut Vigil) -> Poll<Result<Confirmed, CertificateError>> {
    std::pin::pin!(vigil.judged()).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_silent_caller_falls_as_soon_as_its_certificate_is_revoked_and_others_are_confirmed_once() {
    let world = World::new();
    let (first, second) = (world.caller("app-1"), world.caller("app-2"));
    let (mut revoked, mut other) = (world.callers.watch_over(&first), world.callers.watch_over(&second));
    assert!(look(&mut revoked).is_pending());
    assert!(look(&mut other).is_pending());
    world.minted.revoke_app("jiwei", "app-1").expect("revoked");
    world.reload();
    assert_eq!(look(&mut revoked), Poll::Ready(Err(CertificateError::Revoked)));
    assert_eq!(look(&mut other), Poll::Ready(Ok(Confirmed)));
    assert!(look(&mut other).is_pending(), "judged once for each federation");
    world.reload();
    assert_eq!(other.check(), Ok(()));
    assert_eq!(look(&mut other), Poll::Ready(Ok(Confirmed)), "a check in between does not hide that it was replaced");
}

#[test]
fn a_federation_that_came_between_identification_and_vigil_is_not_missed() {
    let world = World::new();
    let caller = world.caller("app-1");
    world.minted.revoke_app("jiwei", "app-1").expect("revoked");
    world.reload();
    let mut late = world.callers.watch_over(&caller);
    assert_eq!(look(&mut late), Poll::Ready(Err(CertificateError::Revoked)));
}

#[tokio::test]
async fn a_silent_caller_falls_when_its_certificate_ends() {
    let world = World::new();
    let caller = world.caller("app-1");
    let mut vigil = world.callers.watch_over(&caller);
    world.set_clock(caller.ends.minus(Duration::from_secs(5)));
    assert!(look(&mut vigil).is_pending());
    let waits = vigil.judged();
    let end = async { world.set_clock(caller.ends) };
    assert_eq!(tokio::join!(waits, end).0, Err(CertificateError::Expired));
}
