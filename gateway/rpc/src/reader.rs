//! A client on the reading end of a stream, and how much patience there is with one that does not read.

use std::time::Duration;

use lianxin_operations::{Caller, Refusal};
use tokio_util::sync::CancellationToken;

use crate::Face;
use crate::outbox::{Gone, Outbox, Outgoing, Room};
use crate::status::to_status;

/// How long the gateway waits for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A stream is ended when something has waited so long for its client and nothing was taken.
    pub stall_duration_max: Duration,
    /// A message that a client has begun to send must be there after so long.
    pub message_duration_max: Duration,
}

/// The outbox of one stream and what ends its connection.
pub(crate) struct Reader<T> {
    face: Face,
    closing: CancellationToken,
    outbox: Outbox<T>,
}

/// Nothing can be given to the client any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It went away.
    Gone,
    /// It is there and takes nothing.
    Stalled,
}

/// A client that did not read has so long to take the last word, or as long as for anything else where that is less, then
/// its connection ends: what HTTP/2 holds for it goes with the connection alone.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(10);

impl<T> Reader<T> {
    pub(crate) fn new(face: &Face, closing: CancellationToken, room: Room) -> (Self, Outgoing<T>) {
        let (outbox, outgoing) = Outbox::new(room);
        (Self { face: face.clone(), closing, outbox }, outgoing)
    }

    /// Gives a piece to the client, once there is room. A dropped call has given nothing.
    pub(crate) async fn give(&self, piece: T, bytes: usize) -> Result<(), Lost> {
        let mut put = std::pin::pin!(self.outbox.put(piece, bytes));
        loop {
            let taken = self.outbox.taken();
            tokio::select! {
                biased;
                done = &mut put => return done.map_err(|Gone| Lost::Gone),
                () = self.face.operations().pause(self.face.patience.stall_duration_max) => {
                    if self.outbox.taken() == taken {
                        return Err(Lost::Stalled);
                    }
                }
            }
        }
    }

    /// Ready when the client has gone.
    pub(crate) async fn gone(&self) {
        self.outbox.gone().await;
    }

    /// Ends the stream behind what waits. A caller that is none any more gets nothing of what waits.
    pub(crate) fn end(&self, last_piece: Option<T>, refusal: &Refusal) {
        let last_word = to_status(refusal);
        match refusal {
            Refusal::CertificateRevoked | Refusal::CertificateExpired | Refusal::WrongKind => {
                self.outbox.cut(last_piece, last_word);
            }
            _ => self.outbox.end(last_piece, last_word),
        }
    }

    /// Ends a stream whose client does not read, and records it: what waits is given up, and the connection goes unless the
    /// client takes the last word.
    pub(crate) async fn cut_off(&self, caller: &Caller, action: &'static str, last_piece: Option<T>) {
        self.face.operations().stream_cut_off();
        self.outbox.cut(last_piece, to_status(&Refusal::TooSlow));
        // It is said whether it can be recorded or not: the stream is over either way.
        let _recorded = self.face.operations().refused(caller, action, Refusal::TooSlow).await;
        let within = self.face.patience.stall_duration_max.min(LAST_WORD_WITHIN);
        tokio::select! {
            biased;
            () = self.outbox.gone() => {}
            () = self.face.operations().pause(within) => self.closing.cancel(),
        }
    }
}
