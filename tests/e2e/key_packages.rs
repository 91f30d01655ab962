//! Key packages: whose they are, how long they live, for which channel, and how many may be taken.

use lianxin_proto::key_packages::Claim;
use lianxin_proto::{Problem, ReasonCode};
use lianxin_types::{ChannelId, DeviceUri, LIMITS, Sequence};
use serde_json::Value;

use crate::forge::Forger;
use crate::raw::{Answer, RawDevice, fresh_id};
use crate::talk::soon;
use crate::zone::Zone;

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(what: &str, answer: &Result<T, Problem>, expect: ReasonCode) {
    let found = answer.as_ref().err().map(|problem| problem.code);
    assert_eq!(found, Some(expect), "{what}: {answer:?}");
}

const TEN_YEARS: u64 = 10 * 365 * 24 * 3_600;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_package_is_its_owners_own_and_lives_84_days_at_most_wherever_it_turns_up() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    let (own, other) = (zone.app("shenji", "app-1"), zone.app("weijian", "app-1"));
    let honest = Forger::new(&own.mls_certificate, &own.mls_key);
    let days_84 = LIMITS.leaf_lifetime_max.as_secs();
    let ten_years = honest.key_package(TEN_YEARS);
    // Somebody else's certificate, and the own key.
    let masked = Forger::new(&other.mls_certificate, &own.mls_key).key_package(days_84);
    let others = Forger::new(&other.mls_certificate, &other.mls_key).key_package(days_84);

    for (what, package, expect) in [
        ("ten years", ten_years.clone(), ReasonCode::InvalidKeyPackage),
        ("a second more than 84 days", honest.key_package(days_84 + 1), ReasonCode::InvalidKeyPackage),
        ("somebody else's certificate", masked.clone(), ReasonCode::InvalidCredential),
        ("somebody else's package", others, ReasonCode::SenderMismatch),
    ] {
        assert_refused(what, &shenji.publish(vec![package.into()]).await, expect);
    }
    assert_eq!(soon("a count", shenji.connection.count()).await.expect("counted").one_time, 0);
    shenji.publish(vec![honest.key_package(days_84).into()]).await.expect("84 days are allowed");

    // A gateway that handed it out would not be believed, and a member that added it all the same is refused.
    for (what, package, expect) in [
        ("ten years", ten_years, ReasonCode::InvalidKeyPackage),
        ("somebody else's certificate", masked, ReasonCode::InvalidCredential),
    ] {
        let claimed = vec![package.clone()];
        let believed = jiwei.work(move |tx, mls, federation| Ok(mls.invite(tx, federation, channel, &claimed).is_ok()));
        assert!(!believed.await, "{what}");
        let head = jiwei.view(channel).await.head;
        let app = zone.app("jiwei", "app-1");
        let hostile = Forger::new(&app.mls_certificate, &app.mls_key);
        let bundle = jiwei.without_trace(move |tx| hostile.commit(tx, channel, head, &[package.into()])).await;
        assert_refused(what, &jiwei.commit(channel, &bundle, fresh_id()).await, expect);
    }
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 1, "nothing of it is in the log");
    let package = jiwei.claim(channel, &shenji.uri).await.expect("the good one is there").remove(0);
    let bundle = jiwei.invite_bundle(channel, &package).await;
    jiwei.commit(channel, &bundle, fresh_id()).await.expect("and is taken");
    drop((jiwei, shenji));
    assert_recorded(
        zone,
        &[
            ("publish-key-packages", "INVALID_KEY_PACKAGE"),
            ("publish-key-packages", "INVALID_CREDENTIAL"),
            ("publish-key-packages", "SENDER_MISMATCH"),
            ("commit", "INVALID_KEY_PACKAGE"),
            ("commit", "INVALID_CREDENTIAL"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_for_one_channel_and_a_department_hoards_none() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    let elsewhere = jiwei.channel(&["jiwei", "weijian"]).await;
    let limit = LIMITS.department_unused_claims_max;
    weijian.publish(weijian.key_packages(limit + 4).await).await.expect("published");

    let package = jiwei.claim(channel, &weijian.uri).await.expect("claimed").remove(0);
    let bundle = jiwei.invite_bundle(elsewhere, &package).await;
    let answer: Answer = jiwei.commit(elsewhere, &bundle, fresh_id()).await;
    assert_refused("claimed for another channel", &answer, ReasonCode::KeyPackageNotClaimed);
    jiwei.discard(elsewhere).await;

    for number in 1..limit {
        jiwei.claim(channel, &weijian.uri).await.unwrap_or_else(|problem| panic!("claim {number}: {problem}"));
    }
    for to in [channel, elsewhere] {
        let refused = jiwei.claim(to, &weijian.uri).await;
        assert_refused("one more than the limit", &refused, ReasonCode::LimitReached);
        assert_eq!(refused.expect_err("refused").limit, limit as u64);
    }
    shenji.claim(channel, &weijian.uri).await.expect("another department may");
    let bundle = jiwei.invite_bundle(channel, &package).await;
    jiwei.commit(channel, &bundle, fresh_id()).await.expect("used");
    jiwei.read(channel).await;
    jiwei.claim(elsewhere, &weijian.uri).await.expect("the one that was used made room");
    assert_refused("full again", &jiwei.claim(elsewhere, &weijian.uri).await, ReasonCode::LimitReached);

    // Asking counts, also for what is not there.
    let per_minute = LIMITS.device_claims_per_minute_max;
    let invented = |count: usize| -> Vec<DeviceUri> {
        (0..count)
            .map(|number| format!("lianxin://jiwei/app/nobody-{number}/1").parse().expect("well formed"))
            .collect()
    };
    let mut asked = 1;
    while asked < per_minute {
        let count = LIMITS.invites_per_commit_max.min(per_minute - asked);
        let refused = claim_all(&shenji, channel, invented(count)).await;
        assert_eq!(refused.code, ReasonCode::NoKeyPackage, "{asked} asked for before");
        asked += count;
    }
    let refused = claim_all(&shenji, channel, invented(1)).await;
    assert_eq!((refused.code, refused.try_again), (ReasonCode::ResourceExhausted, true));
    drop((jiwei, shenji, weijian));
    let bodies = zone.close().await.shared_bodies();
    assert_in(&bodies, &[("commit", "KEY_PACKAGE_NOT_CLAIMED"), ("claim-key-packages", "LIMIT_REACHED")]);
    // By rate: counted per device and minute, the first at once (PROTOCOL 8).
    let is_counted = |body: &Value| body["event"] == "calls-counted" && body["caller_department"] == "shenji";
    assert!(bodies.iter().any(is_counted), "{bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_resort_serves_every_channel_until_its_owner_replaces_it() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channels = [jiwei.channel(&["jiwei", "shenji"]).await, jiwei.channel(&["jiwei", "shenji"]).await];
    // It was never given to anybody.
    let kept_back = shenji.work(|tx, mls, federation| mls.key_packages(tx, federation, 0, true)).await;
    let bundle = jiwei.invite_bundle(channels[0], &kept_back.last_resort.expect("asked for").into()).await;
    let answer = jiwei.commit(channels[0], &bundle, fresh_id()).await;
    assert_refused("never published", &answer, ReasonCode::KeyPackageNotClaimed);
    jiwei.discard(channels[0]).await;

    let first = shenji.publish_last_resort().await;
    for channel in channels {
        let claimed = jiwei.claim(channel, &shenji.uri).await.expect("claimed").remove(0);
        assert_eq!(claimed, first);
        let bundle = jiwei.invite_bundle(channel, &claimed).await;
        jiwei.commit(channel, &bundle, fresh_id()).await.expect("added");
        jiwei.read(channel).await;
    }
    let third = jiwei.channel(&["jiwei", "shenji"]).await;
    let stale = jiwei.claim(third, &shenji.uri).await.expect("claimed").remove(0);
    let second = shenji.publish_last_resort().await;
    let bundle = jiwei.invite_bundle(third, &stale).await;
    let answer = jiwei.commit(third, &bundle, fresh_id()).await;
    assert_refused("replaced meanwhile", &answer, ReasonCode::KeyPackageNotClaimed);
    jiwei.discard(third).await;
    let bundle = jiwei.invite_bundle(third, &second).await;
    jiwei.commit(third, &bundle, fresh_id()).await.expect("the newest is taken");
    drop((jiwei, shenji));
    assert_recorded(zone, &[("commit", "KEY_PACKAGE_NOT_CLAIMED")]).await;
}

async fn claim_all(device: &RawDevice, channel: ChannelId, owners: Vec<DeviceUri>) -> Problem {
    let claim = Claim { id: fresh_id(), channel, owners };
    match soon("an answer", device.connection.claim(claim)).await {
        Err(lianxin_connection::CallError::Refused(problem)) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

async fn assert_recorded(zone: Zone, expected: &[(&str, &str)]) {
    assert_in(&zone.close().await.shared_bodies(), expected);
}

fn assert_in(bodies: &[Value], expected: &[(&str, &str)]) {
    for (action, reason) in expected {
        let found = bodies
            .iter()
            .any(|body| body["event"] == "refused" && body["action"] == *action && body["reason"] == *reason);
        assert!(found, "{action} {reason} has no audit record");
    }
}
