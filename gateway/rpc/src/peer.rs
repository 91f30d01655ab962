//! Who is at the other end, as the composition hands it in with every request.

use std::sync::Arc;

use lianxin_operations::{Caller, Operations, Refusal};
use tonic::{Request, Status};

use crate::Face;
use crate::status::to_status;

/// The client certificate chain of the connection, leaf first, DER. Verified during the handshake and again for each call.
#[derive(Debug, Clone)]
pub struct Peer(pub Arc<Vec<Vec<u8>>>);

impl Face {
    /// The caller of a request.
    ///
    /// # Errors
    /// The refusal of a certificate that does not hold any more; INTERNAL if the composition handed in no peer.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = request.extensions().get::<Peer>();
        let identified = match peer {
            Some(Peer(chain)) => self.operations.identify(chain),
            None => Err(Refusal::Internal),
        };
        identified.map_err(|refusal| to_status(&refusal))
    }

    /// The typed value of a request, or its refusal, recorded.
    pub(crate) async fn parsed<W, T>(&self, caller: &Caller, action: &'static str, wire: W) -> Result<T, Status>
    where
        T: TryFrom<W, Error = lianxin_proto::ParseError>,
    {
        match T::try_from(wire) {
            Ok(value) => Ok(value),
            Err(error) => {
                let refusal = crate::status::from_parse_error(&error);
                Err(to_status(&self.operations.refused(caller, action, refusal).await))
            }
        }
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }
}
