//! A channel that is broken for good and goes on, under faults: its commit is reported, another group started, others seated there.

use std::time::Duration;

use lianxin_harness::{Application, Call, ChannelInfo, Joined, Opened, Refusal, SentInfo};
use lianxin_types::{Clock as _, SystemClock};
use serde_json::Value;

use super::{Action, Story};
use crate::talk::{create, soon};

impl Story {
    /// A new channel of the two, with a member that means no good.
    async fn with_culprit(&mut self) {
        self.number += 1;
        let name = format!("culprit-{}", self.number);
        self.stage.minted.mint_app("weijian", &name).expect("minted");
        let culprit = self.stage.culprit("culprit").expect("starts");
        let open = Call::open(self.stage.minted.folder(), "weijian", &name, self.stage.folder().join(&name));
        culprit.call::<Opened>(open).await.expect("opens");
        self.channel = create(&self.other, &["jiwei", "shenji", "weijian"]).await;
        self.mark = 0;
        for (department, name, application) in [("jiwei", "app-1", &self.victim), ("weijian", &name, &culprit)] {
            let device = self.stage.device(department, name).expect("minted");
            soon("an invite", self.channel.invite(&[device])).await.expect("invited");
            application.call::<Joined>(Call::Accept).await.expect("accepted");
        }
        self.talk().await;
        self.culprit = Some(culprit);
    }

    fn culprit(&self) -> &Application {
        self.culprit.as_ref().expect("there is one")
    }

    async fn breaks(&self) {
        self.culprit().call::<SentInfo>(Call::Break { channel: self.id() }).await.expect("the gateway cannot see it");
    }

    /// Makes everything ready for the action; but for `Seat` the victim is the only one who is there.
    pub(super) async fn prepare_to_heal(&mut self, action: Action) {
        self.with_culprit().await;
        match action {
            Action::Seat => {
                self.close().await;
                self.breaks().await;
                let victim = self.stage.device("jiwei", "app-1").expect("minted");
                soon("the victim's seat", async {
                    loop {
                        let info = self.channel.info().await.expect("a member");
                        if !info.is_broken && info.members.len() == 2 && info.members.contains(&victim) {
                            return;
                        }
                        SystemClock.sleep(Duration::from_millis(20)).await;
                    }
                })
                .await;
            }
            _ => {
                self.other.clone().close().await.expect("closes");
                if action == Action::Start {
                    self.breaks().await;
                    self.is_broken().await.expect("told");
                }
            }
        }
    }

    /// The victim has found out, and its report is on its way.
    async fn is_broken(&self) -> anyhow::Result<Value> {
        self.victim.call(Call::event("Violation")).await
    }

    pub(super) async fn heal(&self, action: Action) -> anyhow::Result<Value> {
        if action == Action::Report {
            self.breaks().await;
            return self.is_broken().await;
        }
        self.healed().await
    }

    /// Waits until the two sit in a group without the culprit, as the victim sees it.
    async fn healed(&self) -> anyhow::Result<Value> {
        let mut expect = vec![self.victim_uri(), self.other.device().as_str().to_owned()];
        expect.sort();
        soon("another group", async {
            loop {
                match self.victim.call::<ChannelInfo>(Call::Info { channel: self.id() }).await {
                    Ok(mut info) => {
                        info.members.sort();
                        if info.members == expect {
                            return Ok(Value::Null);
                        }
                    }
                    // The disk has failed under it, and it goes on.
                    Err(error) if error.is::<Refusal>() => {}
                    Err(error) => return Err(error),
                }
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    fn victim_uri(&self) -> String {
        self.stage.device("jiwei", "app-1").expect("minted").as_str().to_owned()
    }

    /// Whatever became of it, the two go on without the culprit.
    pub(super) async fn settle_healed(&mut self, action: Action) {
        if action != Action::Seat {
            self.other = self.stage.client("shenji", "app-1").await.expect("opens");
            soon("a connection", self.other.connected()).await.expect("connects");
            self.channel = self.other.channel(self.channel.id());
        }
        self.healed().await.expect("it lives");
        soon("the other's seat", async {
            loop {
                let info = self.channel.info().await.expect("a member");
                if !info.is_broken && info.members.len() == 2 {
                    return;
                }
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        self.culprit = None;
    }
}
