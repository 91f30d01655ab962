//! Who is at the other end, as the composition hands it in with every request.

use std::sync::Arc;

use lianxin_operations::{Caller, Operations, Refusal};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::Face;
use crate::status::to_status;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client certificate chain, leaf first, DER. Verified during the handshake and again for each call.
    pub chain: Arc<Vec<Vec<u8>>>,
    /// Ends the connection when cancelled.
    pub closing: CancellationToken,
}

impl Face {
    /// The caller of a request.
    ///
    /// # Errors
    /// The refusal of a certificate that does not hold any more; INTERNAL if the composition handed in no peer.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.caller_behind(request.extensions().get::<Peer>())
    }

    /// The caller at the other end of a connection.
    ///
    /// # Errors
    /// As [`Face::caller`].
    pub(crate) fn caller_behind(&self, peer: Option<&Peer>) -> Result<Caller, Status> {
        let identified = match peer {
            Some(peer) => self.operations.identify(&peer.chain),
            None => Err(Refusal::Internal),
        };
        identified.map_err(|refusal| to_status(&refusal))
    }

    /// What ends the connection of a request; a token of its own that ends nothing if the composition handed in no peer.
    pub(crate) fn closing<T>(&self, request: &Request<T>) -> CancellationToken {
        request.extensions().get::<Peer>().map(|peer| peer.closing.clone()).unwrap_or_default()
    }

    /// The typed value of a request, or its refusal, recorded.
    pub(crate) async fn parsed<W, T>(&self, caller: &Caller, action: &'static str, wire: W) -> Result<T, Status>
    where
        T: TryFrom<W, Error = lianxin_proto::ParseError>,
    {
        self.paced(caller).await?;
        match T::try_from(wire) {
            Ok(value) => Ok(value),
            Err(error) => {
                let refusal = crate::status::from_parse_error(&error);
                Err(to_status(&self.operations.refused(caller, action, refusal).await))
            }
        }
    }

    /// Lets the caller wait for its turn where it calls too often. Every call goes through here once.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the turn would be too long in coming.
    pub(crate) async fn paced(&self, caller: &Caller) -> Result<(), Status> {
        self.operations.paced(caller).await.map_err(|refusal| to_status(&refusal))
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }
}
