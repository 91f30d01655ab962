//! A Receive stream whose device asks to follow more than its share waits for its turn, and is not deaf meanwhile.

use lianxin_proto::ReasonCode;
use lianxin_proto::messages::{Frame, Receive};
use lianxin_trust::Usage;
use lianxin_types::{ChannelId, Sequence};

use crate::talk::soon;
use crate::zone::Zone;

const INVENTED: ChannelId = ChannelId([0xEE; 16]);
/// A device's burst, and what it then has to wait for longer than a stream lives on under replaced trust.
const BURST: usize = 2_000;
const ASKED: usize = BURST + 20 * 64;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_for_its_turns_to_follow_ends_before_they_have_come() {
    let zone = Zone::start().await;
    let connection = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let (control, mut frames) = connection.receive_stream();
    let asking = tokio::spawn(async move {
        for _ in 0..ASKED {
            if control.request(Receive::Follow { channel: INVENTED, after: Sequence(0) }).await.is_err() {
                break;
            }
        }
        control
    });
    let mut answered = 0;
    let ended = loop {
        match soon("the next frame", frames.next()).await.expect("open").expect("a frame") {
            Frame::Closed { channel: Some(_), reason } => {
                assert_eq!(reason.code, ReasonCode::ChannelNotAvailable);
                answered += 1;
                if answered == BURST {
                    zone.revoke(&zone.app("shenji", "app-1").tls_certificate, Usage::TlsClient);
                    zone.reload().await.expect("taken over");
                }
            }
            Frame::Closed { channel: None, reason } => break reason.code,
            _ => {}
        }
    };
    assert_eq!(ended, ReasonCode::TrustChanged);
    assert!((BURST..ASKED).contains(&answered), "{answered} of {ASKED} were answered");
    drop(soon("the end of asking", asking).await.expect("asks"));
}
