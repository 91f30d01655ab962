//! Waiting with an end, on the project's one clock.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use lianxin_types::{Clock as _, SystemClock};

/// What `work` gives, if it is done within `duration`.
///
/// # Errors
/// If it is not; `what` is what was waited for.
pub async fn before<T>(duration: Duration, what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = SystemClock.sleep(duration) => bail!("{what}: not within {} s", duration.as_secs()),
    }
}

/// Asks `probe` again and again until it says yes: for things in other processes, which send no event.
///
/// # Errors
/// If it has not said yes within `duration`; `what` is what was waited for.
pub async fn eventually<F>(duration: Duration, what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = bool>,
{
    before(duration, what, async {
        while !probe().await {
            SystemClock.sleep(PROBE_EVERY).await;
        }
    })
    .await
}

const PROBE_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_happens_ends_with_its_name() {
        let never = eventually(Duration::from_millis(30), "the sun rises in the west", || async { false }).await;
        assert!(never.expect_err("never").to_string().starts_with("the sun rises in the west"));
        let mut asked = 0;
        let soon = eventually(Duration::from_secs(30), "the third time", || {
            asked += 1;
            std::future::ready(asked == 3)
        });
        soon.await.expect("the third time it is so");
    }
}
