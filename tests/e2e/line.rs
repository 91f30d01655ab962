//! A call whose answer is lost: made over a wire to the gateway that swallows answers, and cut once the call has had its effect.

use lianxin_certs_dev::AppPaths;
use lianxin_connection::Connection;
use lianxin_harness::Line;
use lianxin_trust::Endpoint;
use lianxin_types::{Clock as _, SystemClock};

use crate::talk::soon;
use crate::zone::{Zone, connect_to};

/// Asks as this application over a line that swallows the answer, waits until the call has had its effect, and cuts the line.
pub(crate) async fn in_vain<T: std::fmt::Debug>(
    zone: &Zone,
    app: &AppPaths,
    ask: impl AsyncFnOnce(Connection) -> T,
    has_effect: impl AsyncFn() -> bool,
) {
    let line = Line::to(zone.address()).await.expect("a free port");
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: line.address().port() };
    let connection = connect_to(&zone.minted, &app.tls_certificate, &app.tls_key, endpoint).await.expect("connects");
    line.hold();
    let accepted = async {
        while !has_effect().await {
            SystemClock.sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = ask(connection) => panic!("the line lets no answer through: {answer:?}"),
        () = soon("the effect", accepted) => drop(line.cut()),
    }
}
