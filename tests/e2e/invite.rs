//! Invitations that meet something new: an authority that the inviter has not heard of, a key package that counts no more.

use std::time::Duration;

use lianxin_proto::key_packages::v1::ClaimResponse;
use lianxin_sdk::ClientError;
use lianxin_types::{Clock as _, DeviceUri, Digest, SystemClock};
use prost::Message as _;

use crate::forge::Forger;
use crate::impostor::Impostor;
use crate::rotation::rewrite_lists;
use crate::talk::{accept, create, join, receive, send, soon, texts};
use crate::zone::Zone;

/// Streams end so many 65,536ths of five seconds after a new bundle, and then the bundle is fetched.
fn moment(device: &DeviceUri) -> u16 {
    let Digest(hash) = Digest::sha256(device.as_str().as_bytes());
    u16::from_be_bytes([hash[0], hash[1]])
}

#[tokio::test(flavor = "multi_thread")]
async fn who_invites_at_once_after_an_authority_was_rotated_fetches_the_bundle_first() {
    let zone = Zone::start().await;
    // Of several devices the one that would hear of it last.
    let apps = [("jiwei", "app-1"), ("jiwei", "app-2"), ("weijian", "app-1"), ("weijian", "app-2")];
    let last = apps.into_iter().max_by_key(|(department, name)| moment(&zone.app(department, name).uri));
    let (department, name) = last.expect("one of four");
    let inviter = zone.client(department, name).await;
    let channel = create(&inviter, &[department, "shenji"]).await;

    let minted = zone.minted.at(SystemClock.now());
    minted.rotate_authority("shenji").expect("rotated");
    minted.renew_app("shenji", "app-1").expect("renewed");
    rewrite_lists(&zone);
    zone.reload().await.expect("taken over");
    let shenji = zone.client("shenji", "app-1").await;
    soon("an invite", channel.invite(&[shenji.device().clone()])).await.expect("invited");
    let at_shenji = accept(&shenji).await;
    send(&channel, "新机构").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["新机构"]);
    for client in [inviter, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_package_that_counts_no_more_is_claimed_anew() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let shenji = zone.client("shenji", "app-1").await;
    let jiwei = impostor.client(&zone, "jiwei").await;
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    // Its owner's own and well formed, and one that the gateway does not know, like a last resort that was replaced.
    let app = zone.app("shenji", "app-1");
    let mut stale = Some(Forger::new(&app.mls_certificate, &app.mls_key).key_package(24 * 3_600));
    impostor.lie(move |passing| {
        let is_claim = passing.method.ends_with("/Claim");
        let Some(stale) = stale.take_if(|_| is_claim) else { return vec![passing.message] };
        let mut answer = ClaimResponse::decode(passing.message).expect("the gateway's own");
        answer.key_packages = vec![stale.into()];
        vec![answer.encode_to_vec().into()]
    });
    soon("an invite", channel.invite(&[shenji.device().clone()])).await.expect("invited with the second one");
    let at_shenji = accept(&shenji).await;
    send(&channel, "来了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["来了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_an_invitation_is_not_asked_again_until_it_is_invited_anew() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let own = shenji.device().clone();
    soon("an invite", at_jiwei.invite(std::slice::from_ref(&own))).await.expect("invited");
    let invitation = soon("an invitation", shenji.invitations().next()).await.expect("open").expect("readable");
    shenji.decline(invitation.clone()).await.expect("declined");
    let again = shenji.decline(invitation.clone()).await;
    assert!(matches!(again, Err(ClientError::InvitationGone)), "{again:?}");
    let taken = soon("an answer", shenji.accept(invitation)).await.map(drop);
    assert!(matches!(taken, Err(ClientError::InvitationGone)), "{taken:?}");
    shenji.close().await.expect("closes");

    let shenji = zone.client("shenji", "app-1").await;
    let mut offered = shenji.invitations();
    tokio::select! {
        invitation = offered.next() => panic!("asked again: {invitation:?}"),
        () = SystemClock.sleep(Duration::from_secs(2)) => {}
    }
    drop(offered);
    assert!(shenji.channels().await.expect("readable").is_empty());
    // For the others it has a seat until one of them takes it out.
    soon("a removal", at_jiwei.remove(std::slice::from_ref(&own))).await.expect("removed");
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_jiwei, "还是来了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["还是来了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}
