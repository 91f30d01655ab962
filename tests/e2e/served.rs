//! A member signs a GroupInfo by which whoever comes back breaks the group: the gateway cannot see it, the others look and put a
//! right one in its place.

use lianxin_sdk::{Event, ViolationKind};
use lianxin_types::{Clock as _, SystemClock};

use crate::heal::Villain;
use crate::raw::RawDevice;
use crate::talk::{create, event, join, soon};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_group_info_is_told_and_replaced_before_anybody_comes_back_by_it() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let third = zone.client("jiwei", "app-2").await;
    // Two members whose seats lie side by side look, so one of each two is an SDK.
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    join(&at_jiwei, &shenji).await;
    let channel = at_jiwei.id();
    let lost = RawDevice::open(&zone, "shenji", "app-2").await;
    lost.publish(lost.key_packages(1).await).await.expect("published");
    soon("an invite", at_jiwei.invite(std::slice::from_ref(&lost.uri))).await.expect("invited");
    lost.join_and_read(channel).await;
    join(&at_jiwei, &third).await;

    let epoch = villain.signs_a_wrong_group_info(channel).await;
    let clients = [&jiwei, &shenji, &third];
    let told = clients.map(|client| {
        Box::pin(event(client, "the wrong group info", |event| match event {
            Event::WrongGroupInfo { epoch, sequence, signer, detail, .. } => Some((epoch, sequence, signer, detail)),
            _ => None,
        }))
    });
    let (found, witness, others) = futures_util::future::select_all(told).await;
    drop(others);
    assert_eq!((found.0, found.2), (epoch, Some(villain.uri().clone())));
    assert!(found.3.contains("its external_pub is another"), "{}", found.3);
    let found = clients[witness].evidence(channel, found.1).await.expect("readable").expect("kept");
    let signed = (found.kind, &found.sender, &found.mls[..4]);
    assert_eq!(
        signed,
        (ViolationKind::WrongGroupInfo, villain.uri(), &[0, 1, 0, 4][..]),
        "an MLSMessage with a GroupInfo"
    );

    // Who comes back now breaks nothing, and nobody is accused.
    soon("a right one", async {
        while lost.served(channel).await.0[..] == found.mls[..] {
            SystemClock.sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    lost.lose(channel).await;
    lost.rejoin(channel).await;
    for client in clients {
        event(client, "that it is back", |event| match event {
            Event::MemberRejoined { device, .. } => (device == lost.uri).then_some(()),
            Event::Violation { .. } | Event::CommitReported { .. } => panic!("nobody has done wrong"),
            _ => None,
        })
        .await;
    }
}
