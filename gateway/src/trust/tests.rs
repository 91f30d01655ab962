//! A gateway that could not serve is told so before it opens anything.

use lianxin_certs_dev::{FederationPlan, Minted, Specimen, mint, read_signing_key};
use lianxin_trust::sign_bundle;

use super::*;

struct Site {
    _folder: tempfile::TempDir,
    minted: Minted,
    config: Config,
}

fn site() -> Site {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minted = mint(&FederationPlan::default(), folder.path(), &SystemClock).expect("mints");
    let mut config = Config::parse(include_str!("../../config.sample.toml"), &folder.path().join("gateway.toml"))
        .expect("the sample parses");
    config.revocation_lists = minted.revocation_list_files().expect("minted");
    Site { _folder: folder, minted, config }
}

/// What the operator reads, causes included.
fn refused(config: &Config) -> String {
    let refused = check_trust(config).expect_err("cannot serve");
    format!("{:#}", anyhow::Error::from(refused))
}

#[test]
fn a_certificate_that_is_not_a_gateway_of_the_operator_is_refused() {
    let Site { _folder, minted, mut config } = site();
    let app = minted.app("jiwei", "app-1").expect("minted");
    (config.certificate, config.key) = (app.tls_certificate.clone(), app.tls_key);
    assert!(refused(&config).starts_with("verify "), "{}", refused(&config));
    assert!(refused(&config).contains(&app.tls_certificate.display().to_string()), "{}", refused(&config));

    let stranger = minted.specimen(Specimen::WrongCa);
    (config.certificate, config.key) = (stranger.tls_certificate, stranger.tls_key);
    assert!(refused(&config).contains("not issued by an authority of the federation"), "{}", refused(&config));
}

#[test]
fn a_gateway_of_a_department_that_does_not_operate_the_zone_is_refused() {
    let Site { _folder, minted, config } = site();
    let mut bundle = minted.bundle().expect("verifies").bundle;
    bundle.zones[0].department = "shenji".parse().expect("well formed");
    let keys = [1, 2].map(|number| read_signing_key(&minted.root_key_file(number)).expect("minted"));
    let note = sign_bundle(&bundle, &[("root-1", &keys[0]), ("root-2", &keys[1])]);
    std::fs::write(&config.bundle, note).expect("written");
    let text = refused(&config);
    assert!(text.ends_with("it is of jiwei, and shenji operates zone cn-zj-1"), "{text}");
}

#[test]
fn a_missing_file_and_a_key_of_another_certificate_are_refused() {
    let Site { _folder, minted, config } = site();
    let without = Config { key: config.key.with_extension("lost"), ..config.clone() };
    assert!(refused(&without).contains("tls.lost"), "{}", refused(&without));

    let other_key = minted.app("jiwei", "app-1").expect("minted").tls_key;
    let text = refused(&Config { key: other_key, ..config.clone() });
    assert!(text.contains("do not fit together"), "{text}");

    let no_key = Config { key: config.certificate.clone(), ..config };
    assert!(refused(&no_key).contains("private key of the gateway is not readable PEM"), "{}", refused(&no_key));
}

#[test]
fn the_minted_gateway_may_serve() {
    let Site { _folder, config, .. } = site();
    check_trust(&config).expect("a good site");
}

#[tokio::test]
async fn a_gateway_that_cannot_serve_opens_no_zone_and_makes_no_key() {
    let Site { _folder, minted, mut config } = site();
    let app = minted.app("jiwei", "app-1").expect("minted");
    (config.certificate, config.key) = (app.tls_certificate, app.tls_key);
    let refused = crate::Gateway::open(&config).await.err().expect("cannot serve");
    assert!(matches!(refused, ServeError::Trust { path, .. } if path == config.certificate));
    assert!(!config.store.exists() && !config.pseudonym_key.exists());
}
