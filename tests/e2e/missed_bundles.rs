//! A client that was away while several trust bundles came goes through them one by one (PROTOCOL 9).

use lianxin_proto::directory::{GetTrust, Trust};
use lianxin_types::{Clock as _, SystemClock};

use crate::rotation::rewrite_lists;
use crate::talk::{accept, create, join, receive, send, soon, texts};
use crate::zone::Zone;

async fn trust(zone: &Zone, known_version: u64) -> Trust {
    let connection = zone.connect(&zone.app("jiwei", "app-2")).await.expect("connects");
    soon("the trust bundle", connection.trust(GetTrust { known_version })).await.expect("served")
}

/// Versions of the earlier bundles, then of the newest.
async fn versions(zone: &Zone, known_version: u64) -> (Vec<u64>, u64) {
    let (roots, trust) = (zone.minted.roots().expect("minted"), trust(zone, known_version).await);
    let version = |note: &[u8]| lianxin_trust::verify_bundle(&roots, note).expect("signed").bundle.version;
    (trust.earlier_bundles.iter().map(|note| version(note)).collect(), version(&trust.trust_bundle))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_over_three_bundles_takes_part_again() {
    let zone = Zone::start().await;
    let (jiwei, shenji) = (zone.client("jiwei", "app-1").await, zone.client("shenji", "app-1").await);
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let channel = at_shenji.id();
    shenji.close().await.expect("closes");

    // While it is away a department gets another authority, in three bundles, and lets somebody in who is the new one's.
    let minted = zone.minted.at(SystemClock.now());
    minted.rotate_authority("weijian").expect("rotated");
    rewrite_lists(&zone);
    zone.reload().await.expect("taken over");
    minted.succeed(|_| ()).expect("signed");
    zone.reload().await.expect("taken over");
    minted.renew_app("weijian", "app-1").expect("renewed");
    minted.retire_authority("weijian").expect("retired");
    rewrite_lists(&zone);
    assert_eq!(zone.reload().await.expect("taken over").bundle_version, 4);
    let weijian = zone.client("weijian", "app-1").await;
    soon("an invite", async {
        // The inviter is sent for the new bundle in its own moment of the next five seconds, and knows nobody of it before.
        while at_jiwei.invite(&[weijian.device().clone()]).await.is_err() {
            SystemClock.sleep(std::time::Duration::from_millis(500)).await;
        }
    })
    .await;
    let at_weijian = accept(&weijian).await;
    send(&at_weijian, "新机构的第一句").await;

    // It can judge the newcomer only by the fourth bundle, of which it has the first.
    let shenji = zone.client("shenji", "app-1").await;
    assert_eq!(texts(&receive(&shenji.channel(channel), 1).await), ["新机构的第一句"]);
    send(&shenji.channel(channel), "回来了").await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["回来了"]);
    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }

    // Who knows nothing, or all, is given the newest alone; and a restart forgets none of them.
    let zone = zone.restart().await;
    assert_eq!(versions(&zone, 1).await, (vec![2, 3], 4));
    assert_eq!(versions(&zone, 3).await, (vec![], 4));
    for known in [0, 4, 9] {
        assert_eq!(versions(&zone, known).await, (vec![], 4), "{known}");
    }
    assert_eq!(versions(&zone, 2).await, (vec![3], 4));
}
