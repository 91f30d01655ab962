//! The program as somebody types it.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lianxin-certs-dev")).args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_folder_that_is_not_empty_is_refused_until_forced() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("federation");
    let out = out.to_str().expect("a path in unicode");
    let first = run(&["mint", "--out", out, "--department", "gongan=公安局", "--department", "minzheng=民政局"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("公安局 (gongan), 民政局 (minzheng)"), "{}", text(&first.stdout));
    let second = run(&["mint", "--out", out]);
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains("--force"), "{}", text(&second.stderr));
    let forced = run(&["mint", "--out", out, "--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert!(!folder.path().join("federation/departments/gongan").exists(), "the old federation is gone");
}

#[test]
fn a_federation_is_renewed_and_revokes() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("federation");
    let path = out.to_str().expect("a path in unicode");
    for (arguments, wanted) in [
        (&["renew", "--out", path][..], "holds no minted federation"),
        (&["mint", "--out", path], "minted"),
        (&["renew", "--out", path], "trust bundle 2"),
        (&["revoke", "--out", path, "--department", "shenji", "--app", "app-9"], "shenji has no application app-9"),
        (&["revoke", "--out", path, "--department", "shenji", "--app", "app-1"], "app-1 of shenji is revoked"),
        (&["renew-gateway", "--out", path], "the gateway has a new certificate"),
        (&["rotate-removal-key", "--out", path], "trust bundle 3"),
        (&["drop-removal-keys", "--out", path], "trust bundle 4"),
        (&["retire-authority", "--out", path, "--department", "weijian"], "weijian has no authority of before"),
        (&["rotate-authority", "--out", path, "--department", "weijian"], "trust bundle 5"),
        (&["revoke", "--out", path, "--department", "weijian", "--app", "app-1"], "weijian has two authorities"),
        (&["renew-app", "--out", path, "--department", "weijian", "--app", "app-1"], "app-1 of weijian has new"),
        (&["retire-authority", "--out", path, "--department", "weijian"], "trust bundle 6"),
    ] {
        let done = run(arguments);
        let said = text(&done.stdout) + &text(&done.stderr);
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    let minted = lianxin_certs_dev::Minted::open(&out).expect("the same federation");
    let app = minted.app("shenji", "app-1").expect("minted");
    let certificate = std::fs::read(app.tls_certificate).expect("a certificate");
    let certificate =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(&certificate);
    let federation = minted.federation().expect("a federation");
    let now = lianxin_types::Clock::now(&lianxin_types::SystemClock);
    let found = federation.identify(&[&certificate.expect("PEM")], lianxin_trust::Usage::TlsClient, now);
    assert_eq!(found.map(|_| ()), Err(lianxin_trust::CertificateError::Revoked));
}

#[test]
fn help_shows_examples_and_wrong_words_are_explained() {
    let help = run(&["mint", "--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("Examples:"));
    let wrong = run(&["mint", "--out", "/nowhere", "--department", "jiwei"]);
    assert!(!wrong.status.success());
    assert!(text(&wrong.stderr).contains("id=名称"), "{}", text(&wrong.stderr));
}
