use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::Waker;

use lianxin_types::{SystemClock, Timestamp};

use super::*;

/// Monotonic time that the test moves. Its sleeps look at it whenever they are polled.
#[derive(Clone, Default)]
struct HandClock(Arc<Mutex<Monotonic>>);

impl HandClock {
    fn pass(&self, duration: Duration) {
        let mut now = self.0.lock().expect("not poisoned");
        *now = now.plus(duration);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Monotonic {
        *self.0.lock().expect("not poisoned")
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(
            move |_| {
                if clock.monotonic() >= deadline { Poll::Ready(()) } else { Poll::Pending }
            },
        ))
    }
}

/// What has come by now.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<VecDeque<Bytes>>>);

impl HttpBody for Line {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.0.lock().expect("not poisoned").pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

const WITHIN: Duration = Duration::from_secs(20);

struct Client {
    clock: HandClock,
    line: Line,
    body: TimelyBody,
}

impl Client {
    fn new() -> Self {
        let (clock, line) = (HandClock::default(), Line::default());
        let body = TimelyBody::new(Body::new(line.clone()), Arc::new(clock.clone()), WITHIN);
        Self { clock, line, body }
    }

    fn sends(&self, bytes: &[u8]) {
        self.line.0.lock().expect("not poisoned").push_back(Bytes::copy_from_slice(bytes));
    }

    fn passes(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
    }

    /// The gateway reads all there is; the error with which the body broke off.
    fn is_read(&mut self) -> Option<Unfinished> {
        loop {
            match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return None,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Some(*error.downcast().expect("of ours")),
                Poll::Ready(None) => panic!("the body has no end"),
            }
        }
    }
}

const LATE: Option<Unfinished> = Some(Unfinished { within: WITHIN });

#[test]
fn half_a_message_has_a_deadline_and_silence_between_two_has_none() {
    let mut client = Client::new();
    assert_eq!(client.is_read(), None);
    client.passes(1_000);
    assert_eq!(client.is_read(), None, "nothing was begun");
    client.sends(&[0, 0, 0, 0, 2, 7, 7]);
    assert_eq!(client.is_read(), None);
    client.passes(1_000);
    assert_eq!(client.is_read(), None, "the message is whole");
    client.sends(&[0]);
    assert_eq!(client.is_read(), None);
    client.passes(19);
    assert_eq!(client.is_read(), None);
    client.passes(1);
    assert_eq!(client.is_read(), LATE, "a single byte is a beginning");
}

#[test]
fn a_byte_now_and_then_moves_no_deadline_and_the_next_message_has_its_own() {
    let mut client = Client::new();
    client.sends(&[0, 0, 0, 0, 200]);
    assert_eq!(client.is_read(), None);
    for _ in 0..19 {
        client.passes(1);
        client.sends(&[7]);
        assert_eq!(client.is_read(), None);
    }
    client.passes(1);
    client.sends(&[7]);
    assert_eq!(client.is_read(), LATE, "although something has just come");

    let mut client = Client::new();
    client.sends(&[0, 0, 0, 0, 2, 7]);
    assert_eq!(client.is_read(), None);
    client.passes(19);
    client.sends(&[7, 0, 0, 0]);
    assert_eq!(client.is_read(), None);
    client.passes(19);
    assert_eq!(client.is_read(), None, "the second has its own time");
    client.passes(1);
    assert_eq!(client.is_read(), LATE);
}

#[test]
fn who_was_not_read_is_not_late() {
    let mut client = Client::new();
    client.sends(&[0, 0, 0, 0, 3, 7]);
    assert_eq!(client.is_read(), None);
    client.sends(&[7]);
    client.passes(100);
    assert_eq!(client.is_read(), None, "it came while the gateway had other things to do");
    client.passes(19);
    client.sends(&[7]);
    assert_eq!(client.is_read(), None, "it had its time once more");

    let mut client = Client::new();
    client.sends(&[0, 0, 0, 0, 3, 7]);
    assert_eq!(client.is_read(), None);
    client.passes(100);
    assert_eq!(client.is_read(), LATE, "nothing had come");
}

#[test]
fn messages_are_told_apart_however_they_are_cut() {
    let messages: [&[u8]; 4] = [&[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1, 9], &[0, 0, 0, 1, 0], &[5; 256]];
    let whole = messages.concat();
    for cut in 1..whole.len() {
        let mut framing = Framing::default();
        let mut position = 0;
        for piece in whole.chunks(cut) {
            framing.take(piece);
            position += piece.len();
            let is_between = [5, 11, whole.len()].contains(&position);
            assert_eq!(framing.is_inside(), !is_between, "pieces of {cut}, behind {position}");
        }
    }
    assert_eq!(Framing::default().take(&[0, 0, 0, 0]), Seen::NoEnd);
    assert_eq!(Framing::default().take(&[0, 0, 0, 0, 0, 1]), Seen::AnEnd);
}
