//! How streams learn that the gateway stops.

use std::time::Duration;

use crate::Face;

/// Longest wait for a client that does not take its answers, once the gateway stops.
const PATIENCE: Duration = Duration::from_secs(2);

impl Face {
    /// Ready a little after the gateway stops: what is being answered may still be heard.
    pub(crate) async fn gave_up(&self, stopping: &mut tokio::sync::watch::Receiver<bool>) {
        stopped(stopping).await;
        self.operations().pause(PATIENCE).await;
    }
}

/// Ready once the gateway stops.
pub(crate) async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the composition is gone, which is a stop too.
    drop(stopping.wait_for(|stopping| *stopping).await);
}
