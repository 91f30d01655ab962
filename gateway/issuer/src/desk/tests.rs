use lianxin_certs_dev::{FederationPlan, Minted, mint, renewal_request};
use lianxin_types::{Clock as _, SystemClock, SystemRandom};

use super::*;
use crate::authority::LocalAuthority;

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

struct World {
    minted: Minted,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("f"), &SystemClock).expect("mints");
        Self { minted, _folder: folder }
    }

    fn uri(&self, department: &str, name: &str) -> DeviceUri {
        self.minted.app(department, name).expect("minted").uri
    }

    fn request(&self, department: &str, name: &str) -> RenewalRequest {
        renewal_request(&self.minted.app(department, name).expect("minted")).expect("signed").0
    }

    /// Shenji's desk with the authority of this department, for shenji's first application.
    fn desk(&self, authority: &str) -> Desk<LocalAuthority> {
        let department: DepartmentId = "shenji".parse().expect("a name");
        let devices = Devices::parse(self.uri("shenji", "app-1").as_str(), &department).expect("a device");
        let paths = self.minted.department(authority);
        let read = |path| std::fs::read_to_string(path).expect("minted");
        let (certificate, key) = (read(paths.ca_certificate), read(paths.ca_key));
        let authority = LocalAuthority::from_pem(&certificate, &key, Box::new(SystemRandom)).expect("an authority");
        Desk::new(department, devices, authority, MONTH)
    }

    fn decide(&self, desk: &mut Desk<LocalAuthority>, request: &RenewalRequest) -> RenewalOutcome {
        let federation = self.minted.federation().expect("verifies");
        desk.decide(request, &federation, SystemClock.now()).expect("the authority signs")
    }
}

#[test]
fn a_device_of_the_list_gets_certificates_that_everybody_accepts_and_the_same_for_the_same_request() {
    let world = World::new();
    let (mut desk, request) = (world.desk("shenji"), world.request("shenji", "app-1"));
    let RenewalOutcome::Issued(issued) = world.decide(&mut desk, &request) else { panic!("refused") };
    let (federation, now) = (world.minted.federation().expect("verifies"), SystemClock.now());
    let renewing = request.check(&federation, now).expect("sound");
    let ends = renewing.check(&issued.tls_certificate, &issued.mls_certificate, &federation, now).expect("sound");
    assert!(ends > now.plus(MONTH - Duration::from_secs(60)) && ends <= now.plus(MONTH), "{ends:?}");
    assert_eq!(world.decide(&mut desk, &request), RenewalOutcome::Issued(issued.clone()));
    let again = world.request("shenji", "app-1");
    assert_ne!(world.decide(&mut desk, &again), RenewalOutcome::Issued(issued));
}

#[test]
fn nobody_else_gets_anything() {
    let world = World::new();
    let mut desk = world.desk("shenji");
    let mut refused = |request: &RenewalRequest| match world.decide(&mut desk, request) {
        RenewalOutcome::Refused(reason) => reason,
        RenewalOutcome::Issued(_) => panic!("issued"),
    };
    assert_eq!(refused(&world.request("jiwei", "app-1")), RenewalRefusal::OtherDepartment);
    assert_eq!(refused(&world.request("shenji", "app-2")), RenewalRefusal::UnknownDevice);
    let good = world.request("shenji", "app-1");
    let mut forged = good.clone();
    forged.tls_request = world.request("shenji", "app-1").tls_request;
    assert_eq!(refused(&forged), RenewalRefusal::Unsound);
    world.minted.revoke_app("shenji", "app-1").expect("revoked");
    assert_eq!(refused(&good), RenewalRefusal::Revoked);
}

#[test]
fn an_answer_of_before_is_not_given_to_who_was_revoked_since() {
    let world = World::new();
    let (mut desk, request) = (world.desk("shenji"), world.request("shenji", "app-1"));
    assert!(matches!(world.decide(&mut desk, &request), RenewalOutcome::Issued(_)));
    world.minted.revoke_app("shenji", "app-1").expect("revoked");
    assert_eq!(world.decide(&mut desk, &request), RenewalOutcome::Refused(RenewalRefusal::Revoked));
}

#[test]
fn an_authority_that_the_bundle_does_not_list_for_the_department_gives_nothing_out() {
    let world = World::new();
    let (mut desk, request) = (world.desk("jiwei"), world.request("shenji", "app-1"));
    let federation = world.minted.federation().expect("verifies");
    desk.decide(&request, &federation, SystemClock.now()).expect_err("jiwei's authority cannot name shenji's device");
}

#[test]
fn a_list_names_members_of_the_own_department_and_nothing_else() {
    let department: DepartmentId = "shenji".parse().expect("a name");
    let parse = |text: &str| Devices::parse(text, &department);
    let list = "# 审计局\n\n lianxin://shenji/app/a/1 \nlianxin://shenji/person/b/2\n";
    assert_eq!(parse(list).expect("two devices").0.len(), 2);
    assert_eq!(parse("").expect("none").0.len(), 0);
    let line = |number| Err(DevicesError { line: NonZeroUsize::new(number).expect("not zero") });
    assert_eq!(parse("lianxin://shenji/app/a/1\nlianxin://jiwei/app/a/1"), line(2));
    assert_eq!(parse("lianxin://shenji/officer/a/1"), line(1));
    assert_eq!(parse("#\nshenji"), line(2));
}
