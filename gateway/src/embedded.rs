//! A gateway without sockets, for a simulation: the same rooms over a store, a clock and a random source that are handed in.

use std::sync::Arc;

use http::{Request, Response};
use lianxin_rpc::Peer;
use lianxin_store::ZoneStore;
use lianxin_types::{Clock, Random};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use crate::config::Config;
use crate::error::ServeError;
use crate::rooms::{Rooms, Secrets, patience, services};

/// A gateway that is reached by [`InnerLine`]s. Dropping it is a crash: nothing is finished, recorded or closed in order.
/// What holds for a process holds only for [`crate::Gateway`]: it refuses a store that does not sync, listens, reloads.
pub struct Embedded {
    routes: Routes,
    _tasks: JoinSet<()>,
    /// Never sent to: it does not stop in order.
    _stopping: watch::Sender<bool>,
}

/// The calls of one client, who is whom the certificate names. Cheap to clone.
#[derive(Clone)]
pub struct InnerLine {
    routes: Routes,
    peer: Peer,
}

impl Embedded {
    /// Opens the rooms over `store`, and records the start. The configuration's trust files count; its listeners and its store's folder do
    /// not.
    ///
    /// # Errors
    /// [`ServeError`]: the configuration's files, or the record of the start.
    pub async fn open(
        config: &Config,
        store: Arc<dyn ZoneStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ServeError> {
        let (trust, mut contents) = crate::trust::load(config, &*clock)?;
        let secrets = Secrets::load(config, &trust, &mut contents, &*clock, &*random)?;
        let trusted = (trust.federation, trust.predecessors);
        let Rooms { operations, tasks, .. } = Rooms::open(config, trusted, secrets, store, (clock, random)).await?;
        let (stopping, stopped) = watch::channel(false);
        let routes = services(operations, patience(&config.strength), stopped);
        Ok(Self { routes, _tasks: tasks, _stopping: stopping })
    }

    /// A line for the holder of a client certificate chain in DER, leaf first. Every call asks the federation for it anew.
    pub fn line(&self, chain: Arc<Vec<Vec<u8>>>) -> InnerLine {
        InnerLine { routes: self.routes.clone(), peer: Peer { chain, closing: Default::default() } }
    }
}

impl InnerLine {
    /// Makes a call. The answer's body must be read for a stream to go on.
    pub async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(self.peer.clone());
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Ready once the gateway ends the line.
    pub async fn closed(&self) {
        self.peer.closing.cancelled().await;
    }
}
