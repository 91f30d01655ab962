//! How streams learn that the gateway stops.

/// Ready once the gateway stops.
pub(crate) async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the composition is gone, which is a stop too.
    drop(stopping.wait_for(|stopping| *stopping).await);
}
