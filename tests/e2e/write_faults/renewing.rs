//! Certificates that end soon are renewed, under faults.

use std::time::Duration;

use lianxin_harness::{Call, Issuer, ensure_built};
use lianxin_types::{Clock as _, SystemClock};
use serde_json::Value;

use super::Story;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// What `certs-dev` gives a device.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Story {
    /// Another application of jiwei's, whose certificates end soon, and its department's issuer at work.
    pub(super) async fn prepare_to_renew(&mut self) {
        self.another_application();
        self.rise(true).await;
        self.close().await;
        self.certificates_end_at(SystemClock.now().plus(6 * DAY));
        let device = self.stage.device("jiwei", &self.name).expect("minted");
        match &self.issuer {
            Some(issuer) => issuer.list_devices(&[&device]).expect("written"),
            None => {
                let folder = self.stage.folder().join("issuer");
                let binaries = ensure_built().expect("the programs");
                let mut issuer = Issuer::prepare(&binaries, &self.stage.minted, &folder, "jiwei", &[&device]);
                issuer.as_mut().expect("configured").start().await.expect("at work");
                self.issuer = issuer.ok();
            }
        }
        self.has_renewed = false;
    }

    /// The files of the application have certificates that end then.
    fn certificates_end_at(&self, end: lianxin_types::Timestamp) {
        let minted = self.stage.minted.at(end.minus(LIFE));
        minted.renew_app("jiwei", &self.name).expect("issued");
    }

    pub(super) async fn renew(&mut self) -> anyhow::Result<Value> {
        let told: Value = self.victim.call(Call::event("CertificateRenewed")).await?;
        self.has_renewed = true;
        Ok(told)
    }

    /// Whatever became of it, it has its new ones: with those of its files alone no gateway would let it in.
    pub(super) async fn settle_renewed(&mut self) {
        if !self.has_renewed {
            self.renew().await.expect("renewed");
        }
        self.close().await;
        self.certificates_end_at(SystemClock.now().minus(DAY));
        self.open().await;
    }
}
