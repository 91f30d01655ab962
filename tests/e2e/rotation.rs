//! Keys are rotated on a running gateway while departments go on talking: its certificate, a department's authority, the
//! zone's removal key.

use lianxin_sdk::{Channel, Client, Event};
use lianxin_types::{Clock as _, SystemClock};

use crate::handshakes::shown_certificate;
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

/// Two departments that talk, in both directions.
struct Pair {
    jiwei: Client,
    shenji: Client,
    at_jiwei: Channel,
    at_shenji: Channel,
}

impl Pair {
    async fn start(zone: &Zone) -> Self {
        let (jiwei, shenji) = (zone.client("jiwei", "app-1").await, zone.client("shenji", "app-1").await);
        let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
        let at_shenji = join(&at_jiwei, &shenji).await;
        Self { jiwei, shenji, at_jiwei, at_shenji }
    }

    async fn talk(&self, body: &str) {
        send(&self.at_jiwei, body).await;
        assert_eq!(texts(&receive(&self.at_shenji, 1).await), [body]);
        send(&self.at_shenji, body).await;
        assert_eq!(texts(&receive(&self.at_jiwei, 1).await), [body]);
    }

    /// Waits until the channel is in a later epoch than `epoch` at both.
    async fn moves_on(&self, epoch: u64) {
        for channel in [&self.at_jiwei, &self.at_shenji] {
            soon("a later epoch", async {
                while channel.info().await.expect("readable").epoch.0 <= epoch {
                    SystemClock.sleep(std::time::Duration::from_millis(50)).await;
                }
            })
            .await;
        }
    }

    async fn epoch(&self) -> u64 {
        self.at_jiwei.info().await.expect("readable").epoch.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_certificate_is_renewed_under_open_connections() {
    let zone = Zone::start().await;
    let pair = Pair::start(&zone).await;
    pair.talk("换证前").await;
    let before = shown_certificate(zone.address()).await;
    zone.minted.at(SystemClock.now()).renew_gateway_certificate().expect("renewed");
    assert_eq!(zone.reload().await.expect("taken over").changed, ["tls.certificate", "tls.key"]);
    assert_ne!(shown_certificate(zone.address()).await, before);
    pair.talk("换证后").await;
    let later = zone.client("jiwei", "app-2").await;
    soon("a list", later.channels()).await.expect("a new connection verifies the new certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_key_is_rotated_and_the_channel_moves_by_itself_and_then_the_old_one_is_dropped() {
    let zone = Zone::start().await;
    let pair = Pair::start(&zone).await;
    let minted = zone.minted.at(SystemClock.now());
    let epoch = pair.epoch().await;
    minted.rotate_removal_key().expect("rotated");
    assert_eq!(zone.reload().await.expect("taken over").changed, ["trust.bundle", "trust.removal_key"]);
    pair.talk("轮换之后照常").await;
    pair.moves_on(epoch).await;
    minted.drop_removal_keys().expect("signed");
    zone.reload().await.expect("taken over");
    pair.talk("旧钥作废之后").await;

    // Only a channel that names the new key lets somebody in now, and only the new key is heard when somebody must go.
    let weijian = zone.client("weijian", "app-1").await;
    join(&pair.at_jiwei, &weijian).await;
    minted.revoke_app("weijian", "app-1").expect("revoked");
    let gone = weijian.device().clone();
    zone.reload().await.expect("taken over");
    event(&pair.jiwei, "the removal", |event| match event {
        Event::MemberLeft { device, .. } if device == gone => Some(()),
        _ => None,
    })
    .await;
    pair.talk("吊销之后").await;
    for client in [pair.jiwei, pair.shenji] {
        client.close().await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_rotated_members_renew_their_leaves_and_newcomers_accept_them() {
    let zone = Zone::start().await;
    let pair = Pair::start(&zone).await;
    let minted = zone.minted.at(SystemClock.now());
    minted.rotate_authority("shenji").expect("rotated");
    rewrite_lists(&zone);
    zone.reload().await.expect("taken over");
    pair.talk("两个机构并存").await;

    // The department gives its application new certificates; it starts with them and renews its leaf by itself.
    let Pair { jiwei, shenji, at_jiwei, .. } = pair;
    shenji.close().await.expect("closes");
    minted.renew_app("shenji", "app-1").expect("renewed");
    let epoch = at_jiwei.info().await.expect("readable").epoch.0;
    let shenji = zone.client("shenji", "app-1").await;
    let at_shenji = shenji.channel(at_jiwei.id());
    let pair = Pair { jiwei, shenji, at_jiwei, at_shenji };
    pair.moves_on(epoch).await;
    pair.talk("新证书").await;

    minted.retire_authority("shenji").expect("retired");
    rewrite_lists(&zone);
    zone.reload().await.expect("taken over");
    pair.talk("旧机构已撤").await;
    let weijian = zone.client("weijian", "app-1").await;
    soon("an invite", pair.at_jiwei.invite(&[weijian.device().clone()])).await.expect("invited");
    let at_weijian = accept(&weijian).await;
    send(&pair.at_jiwei, "欢迎").await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["欢迎"]);
}

/// The configuration names the revocation lists of the authorities that the bundle names.
pub(crate) fn rewrite_lists(zone: &Zone) {
    let text = std::fs::read_to_string(zone.config_file()).expect("written");
    let lists = zone.minted.revocation_list_files().expect("minted");
    let lists: Vec<_> = lists.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let line = format!("revocation_lists = [{}]", lists.join(", "));
    let lines: Vec<_> = text
        .lines()
        .map(|old| if old.trim_start().starts_with("revocation_lists") { line.as_str() } else { old })
        .collect();
    std::fs::write(zone.config_file(), lines.join("\n")).expect("written");
}
