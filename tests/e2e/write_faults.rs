//! A fault behind each single write of every action: the disk fails, or the process is killed, between any two writes of its database.
//! Whatever it was doing, it goes on where it was, and nothing is lost or repeated.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lianxin_harness::{
    Application, Call, ChannelInfo, DiskFault, Fault, Issuer, Joined, Listed, Refusal, SentInfo, Stage,
};
use lianxin_sdk::{Channel, Client, ClientError, Event, ReasonCode, Sequence};
use lianxin_types::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::effort::{closing_line, seed, share};
use crate::quarantine::copy;
use crate::talk::{create, departments, soon};

mod healing;
mod renewing;

/// More writes than any action has.
const WRITES_MAX: usize = 400;
/// So many faults in one zone: the gateway bounds how many key packages of one owner a caller may claim in an hour.
const TURNS_MAX: usize = 30;
/// So many actions are swept by default, others with each seed.
const ACTIONS_BY_DEFAULT: usize = 6;
/// After so many faults in a row that did not come the action has no more writes: how many it has differs a little.
const MISSES: usize = 5;
/// What follows an action by itself, like the echo of what it sent, comes within this.
const AFTERMATH: Duration = Duration::from_millis(400);
const PURPOSE: (&str, &str) = ("联合核查", "审计法第三十七条");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Open,
    Create,
    Invite,
    Send,
    Receive,
    Remove,
    Accept,
    Leave,
    /// An older copy of the state finds own messages in the log: new keys, by an own commit.
    Update,
    /// An older copy of the state finds an own commit in the log: back by an external commit.
    ComeBack,
    /// A device's first opening: its state begins, and its key packages are published.
    Publish,
    /// A commit that nobody can process is reported.
    Report,
    /// The next incarnation of a broken channel is started, and the other is seated there.
    Start,
    /// Who was away while a channel was broken finds its seat in the next incarnation, and takes it.
    Seat,
    /// Certificates that end soon are renewed.
    Renew,
}

const ACTIONS: [Action; 15] = [
    Action::Open,
    Action::Create,
    Action::Invite,
    Action::Send,
    Action::Receive,
    Action::Remove,
    Action::Accept,
    Action::Leave,
    Action::Update,
    Action::ComeBack,
    Action::Publish,
    Action::Report,
    Action::Start,
    Action::Seat,
    Action::Renew,
];

impl Action {
    /// Whether it begins with opening the state, without which nothing runs that could go on.
    fn opens(self) -> bool {
        matches!(self, Self::Open | Self::Update | Self::ComeBack | Self::Publish | Self::Seat | Self::Renew)
    }

    /// Whether it is about a channel that is broken for good.
    fn heals(self) -> bool {
        matches!(self, Self::Report | Self::Start | Self::Seat)
    }
}

/// What became of an action.
#[derive(Debug)]
enum Outcome {
    Done(Value),
    /// The SDK said that it did not work.
    Refused(String),
    /// The process has ended.
    Died,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(_) => f.write_str("done"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Died => f.write_str("died"),
        }
    }
}

/// jiwei's application is the one under whose state the disk fails; shenji's is with it in a channel.
struct Story {
    stage: Stage,
    victim: Application,
    /// Which of jiwei's applications that is.
    name: String,
    other: Client,
    guest: Client,
    /// Whom the other lets in or takes out while the victim is down, so that it is overtaken.
    third: Client,
    channel: Channel,
    /// A channel that the action is about, if it is another one.
    aside: Option<Channel>,
    /// Who breaks the channel, where one does.
    culprit: Option<Application>,
    /// jiwei's, where certificates are renewed.
    issuer: Option<Issuer>,
    has_renewed: bool,
    number: usize,
    /// Behind this place of the log the two have read the same.
    mark: u64,
}

fn outcome(result: anyhow::Result<Value>) -> Outcome {
    match result {
        Ok(value) => Outcome::Done(value),
        Err(error) => match error.downcast::<Refusal>() {
            Ok(refusal) => Outcome::Refused(refusal.to_string()),
            Err(_) => Outcome::Died,
        },
    }
}

impl Story {
    async fn begin() -> Self {
        let stage = Stage::start().await.expect("a gateway process");
        let other = stage.client("shenji", "app-1").await.expect("opens");
        let guest = stage.client("weijian", "app-1").await.expect("opens");
        let third = stage.client("shenji", "app-2").await.expect("opens");
        for client in [&other, &guest, &third] {
            soon("a connection", client.connected()).await.expect("connects");
        }
        let victim = stage.application("jiwei-app-1").expect("starts");
        let channel = create(&other, &["jiwei", "shenji", "weijian"]).await;
        let mut story = Self {
            stage,
            victim,
            name: "app-1".to_owned(),
            other,
            guest,
            third,
            channel,
            aside: None,
            culprit: None,
            issuer: None,
            has_renewed: false,
            number: 0,
            mark: 0,
        };
        story.open().await;
        let victim = story.stage.device("jiwei", "app-1").expect("minted");
        soon("an invite", story.channel.invite(&[victim])).await.expect("invited");
        let Joined { .. } = story.victim.call(Call::Accept).await.expect("accepted");
        story.talk().await;
        story
    }

    async fn open(&self) {
        self.victim.call::<Value>(self.opening()).await.expect("opens where it was");
        self.victim.call::<Value>(Call::Connected).await.expect("connects");
    }

    fn opening(&self) -> Call {
        Call::open(self.stage.minted.folder(), "jiwei", &self.name, self.state())
    }

    /// The process has died, or is to: another one opens the same state.
    async fn rise(&mut self, open: bool) {
        self.victim = self.stage.application("jiwei-app-1").expect("starts");
        if open {
            self.open().await;
        }
    }

    fn id(&self) -> String {
        self.channel.id().to_hex()
    }

    fn text(&mut self) -> String {
        self.number += 1;
        format!("第{:06}条", self.number)
    }

    /// Each says something and the other hears it: then the two have the same group, and the same log since the mark.
    async fn talk(&mut self) {
        let (mine, theirs) = (self.text(), self.text());
        let SentInfo { sequence, .. } =
            self.victim.call(Call::send(&self.id(), mine.clone())).await.expect("the victim is heard");
        let last = soon("a receipt", self.channel.send(theirs)).await.expect("accepted").sequence.0.max(sequence);
        let Listed { messages } = soon("the same log", async {
            loop {
                let listed: Listed = self.victim.call(Call::history(&self.id(), 100_000)).await.expect("readable");
                let own = self.channel.history(Sequence(self.mark), 100_000).await.expect("readable");
                let has_all = listed.messages.last().is_some_and(|message| message.sequence >= last);
                if has_all && own.last().is_some_and(|message| message.sequence.0 >= last) {
                    return listed;
                }
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let theirs = self.channel.history(Sequence(self.mark), 100_000).await.expect("readable");
        let theirs: Vec<(u64, String)> =
            theirs.iter().map(|one| (one.sequence.0, one.text().expect("text").to_owned())).collect();
        let mine = messages.into_iter().filter(|message| message.sequence > self.mark);
        let mine: Vec<(u64, String)> = mine.map(|message| (message.sequence, message.text)).collect();
        assert_eq!(mine, theirs, "both have the same log");
        let mut texts: Vec<&String> = mine.iter().map(|(_, text)| text).collect();
        texts.sort();
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "repeated: {texts:?}");
        let info: ChannelInfo =
            self.victim.call(Call::Info { channel: self.id() }).await.expect("the victim is a member");
        let of_other = self.channel.info().await.expect("a member");
        assert!(!of_other.is_broken);
        assert_eq!((info.epoch, info.members.len()), (of_other.epoch.0, of_other.members.len()));
        self.mark = last;
    }

    async fn has_guest(&self) -> bool {
        self.channel.info().await.expect("a member").members.contains(self.guest.device())
    }

    /// Sees to it that the guest is, or is not, a member, by the other's hand.
    async fn guest_is(&self, member: bool) {
        if self.has_guest().await != member {
            let guest = [self.guest.device().clone()];
            let changed = match member {
                true => soon("an invite", self.channel.invite(&guest)).await,
                false => soon("a removal", self.channel.remove(&guest)).await,
            };
            changed.expect("changed");
        }
    }

    /// Another channel of the other's, into which the victim is invited.
    async fn invited_aside(&mut self) {
        let aside = create(&self.other, &["jiwei", "shenji"]).await;
        let victim = self.stage.device("jiwei", &self.name).expect("minted");
        soon("an invite", async {
            // It may have to publish its key packages first.
            while let Err(error) = aside.invite(std::slice::from_ref(&victim)).await {
                let ClientError::Refused(problem) = error else { panic!("{error}") };
                assert_eq!(problem.code, ReasonCode::NoKeyPackage);
                SystemClock.sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
        self.aside = Some(aside);
    }

    fn aside(&self) -> &Channel {
        self.aside.as_ref().expect("there is one")
    }

    /// Makes everything ready for the action.
    async fn prepare(&mut self, action: Action) {
        match action {
            Action::Create | Action::Send | Action::Receive => {}
            Action::Invite => self.guest_is(false).await,
            Action::Remove => self.guest_is(true).await,
            Action::Accept => self.invited_aside().await,
            Action::Leave => {
                self.invited_aside().await;
                self.victim.call::<Joined>(Call::Accept).await.expect("accepted");
            }
            Action::Open => self.close().await,
            Action::Publish => {
                self.close().await;
                self.another_application();
            }
            Action::Report | Action::Start | Action::Seat => self.prepare_to_heal(action).await,
            Action::Renew => {
                self.close().await;
                self.prepare_to_renew().await;
            }
            Action::Update | Action::ComeBack => {
                let (state, backup) = (self.state(), self.stage.folder().join("backup"));
                self.close().await;
                drop(std::fs::remove_dir_all(&backup));
                copy(&state, &backup);
                self.rise(true).await;
                if action == Action::ComeBack {
                    self.guest_is(false).await;
                    let invite = Call::invite(&self.id(), &[self.guest.device()]);
                    self.victim.call::<SentInfo>(invite).await.expect("an own commit");
                }
                self.talk().await;
                self.close().await;
                std::fs::remove_dir_all(&state).expect("ours");
                copy(&backup, &state);
            }
        }
        if action.opens() {
            self.rise(false).await;
        }
    }

    /// The victim's is the name of an application that never was opened.
    fn another_application(&mut self) {
        self.number += 1;
        self.name = format!("new-{}", self.number);
        self.stage.minted.mint_app("jiwei", &self.name).expect("minted");
    }

    async fn close(&mut self) {
        let next = self.stage.application("jiwei-app-1").expect("starts");
        std::mem::replace(&mut self.victim, next).close().await.expect("closes");
    }

    /// Does it, and waits for what follows by itself.
    async fn act(&mut self, action: Action) -> Outcome {
        let done = match action {
            Action::Open | Action::Update | Action::ComeBack | Action::Publish | Action::Seat | Action::Renew => {
                match outcome(self.victim.call(self.opening()).await) {
                    Outcome::Done(_) => match action {
                        Action::Update => self.victim.call(Call::event("StateRestored")).await,
                        Action::ComeBack => self.victim.call(Call::event("MemberRejoined")).await,
                        Action::Seat => self.heal(action).await,
                        Action::Renew => self.renew().await,
                        _ => self.victim.call(Call::Connected).await,
                    },
                    other => return other,
                }
            }
            Action::Create => {
                let call = Call::create(PURPOSE.0, PURPOSE.1, &departments(&["jiwei", "shenji"]));
                self.victim.call(call).await
            }
            Action::Invite => self.victim.call(Call::invite(&self.id(), &[self.guest.device()])).await,
            Action::Remove => self.victim.call(Call::remove(&self.id(), self.guest.device())).await,
            Action::Send => {
                let first = Call::send(&self.id(), self.text());
                let second = Call::send(&self.id(), self.text());
                let begun = self.victim.begin(first).await;
                let last = self.victim.call(second).await;
                match begun {
                    Ok(begun) => begun.answer::<Value>().await.and(last),
                    Err(error) => Err(error),
                }
            }
            Action::Receive => {
                for _ in 0..2 {
                    let text = self.text();
                    soon("a receipt", self.channel.send(text)).await.expect("accepted");
                }
                SystemClock.sleep(AFTERMATH).await;
                self.victim.call(Call::history(&self.id(), 1)).await
            }
            Action::Accept => self.victim.call(Call::Accept).await,
            Action::Report | Action::Start => self.heal(action).await,
            Action::Leave => self.victim.call(Call::Leave { channel: self.aside().id().to_hex() }).await,
        };
        SystemClock.sleep(AFTERMATH).await;
        match outcome(done) {
            // It may die in what follows.
            Outcome::Done(value) => match outcome(self.victim.call(Call::history(&self.id(), 1)).await) {
                Outcome::Died => Outcome::Died,
                _ => Outcome::Done(value),
            },
            other => other,
        }
    }

    /// Whatever became of it: it has happened or can be done now, and the two go on.
    async fn settle(&mut self, action: Action, found: &Outcome) {
        let mut is_stored = false;
        if matches!(found, Outcome::Died) {
            self.overtake(action).await;
            self.rise(false).await;
            self.victim.call::<Value>(self.opening()).await.expect("opens where it was");
            is_stored = self.is_stored(action).await;
            self.victim.call::<Value>(Call::Connected).await.expect("connects");
            self.nothing_waits().await;
        } else if action.opens() && matches!(found, Outcome::Refused(_)) {
            // Nothing runs that could go on.
            self.close().await;
            self.open().await;
        }
        match action {
            Action::Accept => self.is_in_aside().await,
            Action::Leave => self.is_out_of_aside(is_stored).await,
            Action::Report | Action::Start | Action::Seat => self.settle_healed(action).await,
            Action::Publish | Action::Renew => {
                if action == Action::Renew {
                    self.settle_renewed().await;
                }
                self.invited_aside().await;
                self.is_in_aside().await;
                self.close().await;
                self.name = "app-1".to_owned();
                self.open().await;
            }
            Action::Create => {
                let call = Call::create(PURPOSE.0, PURPOSE.1, &departments(&["jiwei", "shenji"]));
                let Joined { channel } = self.victim.call(call).await.expect("another channel");
                self.victim.call::<SentInfo>(Call::send(&channel, "新")).await.expect("accepted");
            }
            Action::ComeBack => {
                // What lies before the way back is not read.
                let SentInfo { sequence, .. } = soon("to be heard again", self.is_heard()).await;
                self.mark = sequence;
            }
            // What was stored goes by itself; what was not can be wished again.
            Action::Invite | Action::Remove if self.has_guest().await != (action == Action::Invite) => {
                assert!(!is_stored, "{action:?} was stored, and has not come true by itself");
                let call = match action {
                    Action::Invite => Call::invite(&self.id(), &[self.guest.device()]),
                    _ => Call::remove(&self.id(), self.guest.device()),
                };
                if let Outcome::Refused(_) | Outcome::Died = outcome(self.victim.call(call).await) {
                    // It came true in between.
                    assert_eq!(self.has_guest().await, action == Action::Invite, "{action:?} cannot be done any more");
                }
            }
            Action::Open | Action::Invite | Action::Send | Action::Receive | Action::Remove | Action::Update => {}
        }
        self.talk().await;
        if let Action::Invite | Action::Remove = action {
            assert_eq!(self.has_guest().await, action == Action::Invite, "{action:?} has not come true");
        }
    }

    /// The victim is down: the other changes the channel meanwhile.
    async fn overtake(&self, action: Action) {
        let channel = match action {
            Action::Invite | Action::Remove | Action::Update => &self.channel,
            Action::Leave => self.aside(),
            _ => return,
        };
        let third = [self.third.device().clone()];
        let changed = match channel.info().await.expect("a member").members.contains(&third[0]) {
            true => soon("a removal", channel.remove(&third)).await,
            false => soon("an invite", channel.invite(&third)).await,
        };
        changed.expect("changed");
    }

    /// Whether the victim's state knows of the wish, or it has come true already.
    async fn is_stored(&self, action: Action) -> bool {
        let (channel, guest) = match action {
            Action::Invite | Action::Remove => (self.id(), self.has_guest().await == (action == Action::Invite)),
            Action::Leave => (self.aside().id().to_hex(), false),
            _ => return false,
        };
        match self.victim.call::<ChannelInfo>(Call::Info { channel }).await {
            Ok(info) => guest || info.has_pending_change,
            Err(_) => action == Action::Leave,
        }
    }

    /// What was stored before it died goes by itself.
    async fn nothing_waits(&self) {
        soon("what was stored goes by itself", async {
            while let Ok(ChannelInfo { has_pending_change: true, .. }) =
                self.victim.call(Call::Info { channel: self.id() }).await
            {
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Nobody saw anything that would need an excuse.
    async fn nobody_complains(&self) {
        let mut events = self.other.events();
        loop {
            let event = tokio::select! {
                event = events.next() => event.expect("open").expect("readable"),
                () = SystemClock.sleep(Duration::from_millis(300)) => return,
            };
            let is_bad =
                matches!(event, Event::MemberRejoined { .. } | Event::CommitReported { .. } | Event::Violation { .. });
            assert!(!is_bad, "{event:?}");
        }
    }

    async fn is_heard(&mut self) -> SentInfo {
        let text = self.text();
        self.victim.call(Call::send(&self.id(), text)).await.expect("accepted")
    }

    async fn is_in_aside(&mut self) {
        let (aside, text) = (self.aside().clone(), self.text());
        let channel = aside.id().to_hex();
        if self.victim.call::<ChannelInfo>(Call::Info { channel: channel.clone() }).await.is_err() {
            self.victim.call::<Joined>(Call::Accept).await.expect("still open");
        }
        soon("a receipt", aside.send(text.clone())).await.expect("accepted");
        let Listed { messages } = self.victim.call(Call::receive(&channel, 1)).await.expect("received");
        assert_eq!(messages[0].text, text);
    }

    async fn is_out_of_aside(&mut self, is_stored: bool) {
        let aside = self.aside().clone();
        let victim = self.stage.device("jiwei", "app-1").expect("minted");
        soon("the victim has left", async {
            loop {
                if !is_stored {
                    // A second wish is refused once the first has come true.
                    drop(self.victim.call::<Value>(Call::Leave { channel: aside.id().to_hex() }).await);
                }
                if !aside.info().await.expect("a member").members.contains(&victim) {
                    return;
                }
                SystemClock.sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// One fault. Gives what became of the action and whether the fault came.
    async fn fault(&mut self, action: Action, fault: Fault, at: usize) -> (bool, usize, Outcome) {
        self.prepare(action).await;
        let process = self.victim.process_id().expect("it runs");
        let waiting = DiskFault::wait_for(process, &self.state(), fault, at).await.expect("strace attaches");
        let mut outcome = self.act(action).await;
        let (has_come, writes) = waiting.end().await.expect("strace ends");
        if action.heals() && has_come && fault != Fault::Fail {
            // What it began goes on, and it died in that.
            outcome = Outcome::Died;
        }
        assert_eq!(matches!(outcome, Outcome::Died), has_come && fault != Fault::Fail, "{action:?} {at}: {outcome}");
        self.settle(action, &outcome).await;
        (has_come, writes, outcome)
    }

    fn state(&self) -> PathBuf {
        self.stage.state_folder("jiwei", &self.name)
    }

    async fn end(self, action: Action) {
        if action != Action::ComeBack && !action.heals() {
            self.nobody_complains().await;
        }
        self.victim.close().await.expect("closes");
        for client in [self.other, self.guest, self.third] {
            client.close().await.expect("closes");
        }
    }
}

/// Every write of every action, or by default a few of some. `LIANXIN_WRITE_FAULTS` names one action, e.g. `Send`, or one and the
/// write at which to begin, e.g. `Send:17`.
async fn sweep(fault: Fault) {
    let mut random = StdRng::seed_from_u64(seed());
    let every = share(0, 1) == 1;
    let only = std::env::var("LIANXIN_WRITE_FAULTS").unwrap_or_default();
    let (only, first) = only.split_once(':').unwrap_or((&only, "1"));
    let before: usize = first.parse::<usize>().expect("a number") - 1;
    let mut actions = ACTIONS.to_vec();
    actions.retain(|action| only.is_empty() || format!("{action:?}") == only);
    if !every && only.is_empty() {
        actions.shuffle(&mut random);
        actions.truncate(ACTIONS_BY_DEFAULT);
    }
    for action in actions {
        let (mut story, mut faults, mut refused, mut at) = (Story::begin().await, 0, 0, before);
        let (mut writes_most, mut misses, tries) = (0, 0, share(2, WRITES_MAX));
        for turn in 1..=tries {
            if turn % TURNS_MAX == 0 {
                story.end(action).await;
                story = Story::begin().await;
            }
            // By default somewhere among the first; a transaction has several writes.
            let first = if fault == Fault::KillAtSync { 1..=4 } else { 1..=24 };
            at = if every { at + 1 } else { random.random_range(first) };
            let (has_come, writes, outcome) = story.fault(action, fault, at).await;
            if !only.is_empty() {
                closing_line(&format!("{fault:?} at write {at} of {action:?}: {outcome}, {writes} seen"));
            }
            faults += usize::from(has_come);
            refused += usize::from(matches!(outcome, Outcome::Refused(_)));
            writes_most = writes_most.max(writes);
            misses = if has_come { 0 } else { misses + 1 };
            if every && misses == MISSES {
                break;
            }
            assert!(!every || at < WRITES_MAX, "{action:?} does not end");
        }
        closing_line(&format!(
            "{fault:?} at {faults} writes of {action:?}, {refused} refused, {writes_most} seen at most"
        ));
        story.end(action).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_killed_between_any_two_writes_goes_on_where_it_was() {
    sweep(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_killed_before_it_knows_that_something_is_stored_goes_on_with_it() {
    sweep(Fault::KillAtSync).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_disk_fails_at_any_write_says_so_and_goes_on() {
    sweep(Fault::Fail).await;
}
