//! What a stream has for its client and the client has not taken yet: bounded in pieces and bytes, and closed with a last
//! word that waits for no room.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) pieces_max: usize,
    /// A piece goes in while fewer bytes than this wait, whatever its own size.
    pub(crate) bytes_max: usize,
}

/// The stream's end. Dropping it ends the stream behind what waits.
pub(crate) struct Outbox<T>(Arc<Shared<T>>);

/// The client's end, as tonic takes it.
pub struct Outgoing<T>(Arc<Shared<T>>);

/// The client has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

struct Shared<T> {
    state: Mutex<State<T>>,
    room: Room,
    /// Something was taken, or the client has gone. Wakes the one task that fills the outbox.
    changed: Notify,
}

struct State<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
    taken: u64,
    last_word: Option<Status>,
    is_over: bool,
    is_gone: bool,
    reader: Option<Waker>,
}

impl<T> Outbox<T> {
    /// An empty outbox and the stream that it feeds.
    pub(crate) fn new(room: Room) -> (Self, Outgoing<T>) {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            taken: 0,
            last_word: None,
            is_over: false,
            is_gone: false,
            reader: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), room, changed: Notify::new() });
        (Self(Arc::clone(&shared)), Outgoing(shared))
    }

    /// Puts a piece in, once there is room. A dropped call has put nothing in.
    pub(crate) async fn put(&self, piece: T, bytes: usize) -> Result<(), Gone> {
        let mut piece = Some(piece);
        loop {
            {
                let mut state = self.0.state();
                if state.is_gone {
                    return Err(Gone);
                }
                if state.has_room(self.0.room)
                    && let Some(piece) = piece.take()
                {
                    state.waiting.push_back((piece, bytes));
                    state.bytes += bytes;
                    state.wake();
                    return Ok(());
                }
            }
            // A permit is kept if something changes in between.
            self.0.changed.notified().await;
        }
    }

    /// Pieces that the client has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.0.state().taken
    }

    /// Ready when the client has gone.
    pub(crate) async fn gone(&self) {
        while !self.0.state().is_gone {
            self.0.changed.notified().await;
        }
    }

    /// Ends the stream behind what waits, with a last piece and a last word.
    pub(crate) fn end(&self, last_piece: Option<T>, last_word: Status) {
        let mut state = self.0.state();
        state.waiting.extend(last_piece.map(|piece| (piece, 0)));
        state.end(Some(last_word));
    }

    /// Ends the stream with a last piece and a last word in place of what waits, which is given up.
    pub(crate) fn cut(&self, last_piece: Option<T>, last_word: Status) {
        let mut state = self.0.state();
        let given_up = std::mem::take(&mut state.waiting);
        state.bytes = 0;
        state.waiting.extend(last_piece.map(|piece| (piece, 0)));
        state.end(Some(last_word));
        drop(state);
        drop(given_up);
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn has_room(&self, room: Room) -> bool {
        self.waiting.len() < room.pieces_max && self.bytes < room.bytes_max
    }

    fn end(&mut self, last_word: Option<Status>) {
        if !self.is_over {
            self.is_over = true;
            self.last_word = last_word;
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        self.0.state().end(None);
    }
}

impl<T> Stream for Outgoing<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state();
        if let Some((piece, bytes)) = state.waiting.pop_front() {
            state.bytes -= bytes;
            state.taken += 1;
            self.0.changed.notify_one();
            return Poll::Ready(Some(Ok(piece)));
        }
        if state.is_over {
            return Poll::Ready(state.last_word.take().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_gone = true;
        let given_up = std::mem::take(&mut state.waiting);
        drop(state);
        drop(given_up);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    fn room(pieces_max: usize, bytes_max: usize) -> Room {
        Room { pieces_max, bytes_max }
    }

    fn is_pending(future: impl Future) -> bool {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn pieces_wait_up_to_their_bound_in_number_and_in_bytes() {
        let (outbox, mut outgoing) = Outbox::new(room(2, 100));
        outbox.put("a", 1).await.expect("there is room");
        outbox.put("b", 1).await.expect("there is room");
        assert!(is_pending(outbox.put("c", 1)), "a third piece");
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "a");
        outbox.put("d", 200).await.expect("one is never too large for an outbox with room");
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "b");
        assert!(is_pending(outbox.put("e", 1)), "its bytes are full");
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "d");
        assert_eq!(outbox.taken(), 3);
        outbox.put("f", 1).await.expect("there is room again");
    }

    #[tokio::test]
    async fn the_last_word_comes_behind_what_waits_or_in_its_place() {
        let (outbox, mut outgoing) = Outbox::new(room(1, 100));
        outbox.put("a", 1).await.expect("there is room");
        outbox.end(Some("b"), Status::unavailable("end"));
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "a");
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "b");
        assert_eq!(outgoing.next().await.expect("one").expect_err("the last word").message(), "end");
        assert!(outgoing.next().await.is_none());

        let (outbox, mut outgoing) = Outbox::new(room(1, 100));
        outbox.put("a", 1).await.expect("there is room");
        outbox.cut(Some("b"), Status::unavailable("cut"));
        outbox.end(None, Status::unavailable("too late"));
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "b");
        assert_eq!(outgoing.next().await.expect("one").expect_err("the last word").message(), "cut");
        assert!(outgoing.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_room_learns_that_the_client_has_gone() {
        let (outbox, outgoing) = Outbox::new(room(1, 100));
        outbox.put("a", 1).await.expect("there is room");
        let waits = outbox.put("b", 1);
        let goes = async { drop(outgoing) };
        assert_eq!(tokio::join!(waits, goes).0, Err(Gone));
        outbox.gone().await;
    }

    #[tokio::test]
    async fn a_dropped_outbox_ends_the_stream_without_a_word() {
        let (outbox, mut outgoing) = Outbox::new(room(1, 100));
        outbox.put("a", 1).await.expect("there is room");
        drop(outbox);
        assert_eq!(outgoing.next().await.expect("one").expect("a piece"), "a");
        assert!(outgoing.next().await.is_none());
    }
}
