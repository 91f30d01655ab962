//! A device of a simulation: a real client on a state folder of its own, and an application around it that reads everything and
//! accepts every invitation.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lianxin_sdk::{ChannelId, Client, ClientError, Config, DeviceUri, Event, LeafCare};
use lianxin_types::Clock as _;
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::ledger::{Ledger, Sent};
use crate::network::{Dialler, Wire};
use crate::timeline::SimClock;
use crate::trace::Trace;

/// How long an application waits before it tries again what failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a device has that stays while it is down.
pub(crate) struct Device {
    pub(crate) number: usize,
    pub(crate) uri: DeviceUri,
    pub(crate) wire: Arc<Wire>,
    pub(crate) clock: SimClock,
    config: Config,
    ledger: Arc<Ledger>,
    trace: Trace,
    messages: usize,
    running: Option<Running>,
}

struct Running {
    client: Client,
    /// The application.
    tasks: JoinSet<()>,
}

/// Who a device is and where its state lies.
pub(crate) struct Place<'a> {
    pub(crate) federation: &'a Path,
    pub(crate) department: &'a str,
    pub(crate) app: &'a str,
    pub(crate) state: PathBuf,
}

impl Device {
    pub(crate) fn new(
        number: usize,
        place: Place<'_>,
        (wire, clock, random): (Arc<Wire>, SimClock, Chance),
        ledger: &Arc<Ledger>,
        trace: &Trace,
    ) -> Self {
        let config = Config::from_certs_dev(place.federation, place.department, place.app, place.state);
        let config = Config {
            clock: Arc::new(clock.clone()),
            leaf_care: LeafCare {
                after_joining: random.millis(30_000..400_000),
                every: random.millis(60_000..1_200_000),
            },
            random: Arc::new(random),
            dial: Some(Arc::new(Dialler(Arc::clone(&wire)))),
            ..config.expect("minted")
        };
        let uri = config.device.clone().expect("certs-dev names it");
        let (ledger, trace) = (Arc::clone(ledger), trace.clone());
        Self { number, uri, wire, clock, config, ledger, trace, messages: 0, running: None }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// The client.
    ///
    /// # Panics
    /// While the device is down.
    pub(crate) fn client(&self) -> &Client {
        &self.running.as_ref().expect("the device is up").client
    }

    /// Opens the client on the state as it is, and starts the application.
    pub(crate) async fn start(&mut self) {
        let client = Client::open(self.config.clone()).await.expect("the state opens");
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(client.clone(), self.number, Arc::clone(&self.ledger), self.trace.clone()));
        tasks.spawn(accept(client.clone(), self.number, self.clock.clone(), self.trace.clone()));
        self.running = Some(Running { client, tasks });
    }

    /// Has the application read a channel, from where it stopped.
    pub(crate) fn read(&mut self, channel: ChannelId) {
        let (number, ledger) = (self.number, Arc::clone(&self.ledger));
        let running = self.running.as_mut().expect("the device is up");
        let mut messages = running.client.channel(channel).receive();
        running.tasks.spawn(async move {
            let mut last = 0;
            while let Some(message) = messages.next().await {
                let message = message.expect("the own log is readable");
                ledger.book().given(number, last, &message);
                last = message.sequence.0;
            }
        });
    }

    /// Ends everything in the middle of whatever it does. The state stays as the last transaction left it.
    pub(crate) async fn crash(&mut self) {
        if let Some(Running { client, mut tasks }) = self.running.take() {
            drop(client);
            tasks.shutdown().await;
        }
    }

    /// Keeps a copy of the state, as a backup does. The device is down.
    pub(crate) fn keep_a_copy(&self) {
        copy(&self.config.state_dir, &self.copy());
    }

    /// Puts the copy back in the place of the state, if there is one. The device is down.
    pub(crate) fn go_back_to_the_copy(&self) {
        if self.copy().exists() {
            copy(&self.copy(), &self.config.state_dir);
            self.ledger.book().went_back.insert(self.number);
        }
    }

    fn copy(&self) -> PathBuf {
        self.config.state_dir.with_extension("copy")
    }

    /// Has the application send a message; it goes on with other things.
    pub(crate) fn send(&mut self, channel: ChannelId) {
        self.messages += 1;
        let text = text(self.number, self.messages);
        self.ledger.book().sends.insert(text.clone(), Sent::Unknown);
        let (ledger, channel) = (Arc::clone(&self.ledger), self.client().channel(channel));
        self.work(format!("sends {text}"), async move {
            let outcome = channel.send(text.clone()).await.map(|receipt| receipt.sequence.0);
            let said = told(&outcome);
            ledger.book().sent(text, outcome);
            said
        });
    }

    /// Has the application do something that has an outcome; it goes on with other things.
    pub(crate) fn work(&mut self, what: String, work: impl Future<Output = String> + Send + 'static) {
        let (number, ledger, trace) = (self.number, Arc::clone(&self.ledger), self.trace.clone());
        trace.note(format_args!("{number} {what}"));
        let open = Open::new(ledger, number);
        let running = self.running.as_mut().expect("the device is up");
        running.tasks.spawn(async move {
            let said = work.await;
            trace.note(format_args!("{number} {what}: {said}"));
            drop(open);
        });
    }
}

/// What a device's application says in its so-manieth message.
fn text(device: usize, number: usize) -> String {
    format!("{device} 第{number}条")
}

/// Which device's message a text is, and which of its messages.
pub(crate) fn numbers(text: &str) -> Option<(usize, usize)> {
    let (device, number) = text.split_once(" 第")?;
    Some((device.parse().ok()?, number.strip_suffix('条')?.parse().ok()?))
}

#[test]
fn a_text_says_whose_it_is() {
    assert_eq!(numbers(&text(3, 17)), Some((3, 17)));
    assert_eq!(numbers("第1条"), None);
}

/// Makes `to` a copy of the folder `from`; what was there goes.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).expect("ours");
    }
    std::fs::create_dir(to).expect("its parent is there");
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("readable");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

/// An outcome in a line.
pub(crate) fn told<T: std::fmt::Debug>(outcome: &Result<T, ClientError>) -> String {
    match outcome {
        Ok(done) => format!("done, {done:?}"),
        Err(error) => {
            let (mut said, mut cause) = (error.to_string(), error.source());
            while let Some(because) = cause {
                said = format!("{said}: {because}");
                cause = because.source();
            }
            said
        }
    }
}

/// Something without an outcome yet; dropped with it, or in a crash.
struct Open {
    ledger: Arc<Ledger>,
    device: usize,
}

impl Open {
    fn new(ledger: Arc<Ledger>, device: usize) -> Self {
        *ledger.book().open.entry(device).or_default() += 1;
        Self { ledger, device }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.book().open.entry(self.device).and_modify(|open| *open -= 1);
    }
}

async fn listen(client: Client, number: usize, ledger: Arc<Ledger>, trace: Trace) {
    let mut events = client.events();
    while let Some(event) = events.next().await {
        let event = event.expect("kept events are readable");
        if !matches!(event, Event::CaughtUp { .. }) {
            trace.note(format_args!("{number} is told: {event:?}"));
        }
        ledger.book().told(number, event);
    }
}

async fn accept(client: Client, number: usize, clock: SimClock, trace: Trace) {
    loop {
        let mut invitations = client.invitations();
        while let Some(invitation) = invitations.next().await {
            let invitation = invitation.expect("invitations are readable");
            let accepted = client.accept(invitation).await;
            trace.note(format_args!("{number} accepts an invitation: {}", told(&accepted)));
            match accepted {
                // It holds no more: the device was taken out again, or is in by another one.
                Ok(_) | Err(ClientError::Refused(_) | ClientError::Mls(_) | ClientError::InvitationGone) => {}
                Err(_) => break,
            }
        }
        clock.sleep(PAUSE).await;
    }
}
