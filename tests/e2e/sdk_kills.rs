//! An application's process is killed with `kill -9` while it sends, invites and reads, again and again. Opened anew it goes on:
//! what it was told is accepted is there once, what it had stored is sent once and in order, and it stands where the others stand.

use std::collections::BTreeMap;
use std::time::Duration;

use lianxin_harness::{
    Answering, Application, Call, ChannelInfo, Joined, Listed, MessageInfo, Opened, SentInfo, Stage,
};
use lianxin_sdk::{Channel, Client, ClientError, ReasonCode};
use lianxin_types::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::effort::{closing_line, seed, share};
use crate::talk::{accept, soon};

/// Messages begun between two kills.
const BATCH: usize = 8;
const PURPOSE: (&str, &str) = ("联合核查", "审计法第三十七条");

/// The application that is killed.
struct Victim {
    stage: Stage,
    application: Application,
    channel: String,
    begun: usize,
    /// What it was told, by the number of the message.
    told: BTreeMap<usize, u64>,
    under_way: Vec<(usize, Answering)>,
}

impl Victim {
    async fn open(stage: &Stage) -> Application {
        let application = stage.application("jiwei-app-1").expect("starts");
        let state = stage.state_folder("jiwei", "app-1");
        let call = Call::open(stage.minted.folder(), "jiwei", "app-1", state);
        application.call::<Opened>(call).await.expect("opens where it was");
        application
    }

    fn text(number: usize) -> String {
        format!("第{number:06}条")
    }

    async fn begin_batch(&mut self) {
        for _ in 0..BATCH {
            let call = Call::send(&self.channel, Self::text(self.begun));
            self.under_way.push((self.begun, self.application.begin(call).await.expect("a running process")));
            self.begun += 1;
        }
    }

    /// Kills the process wherever it is and opens it anew; keeps what it was told before.
    async fn die_and_rise(self) -> Self {
        let Self { stage, application, channel, begun, mut told, under_way } = self;
        application.kill().await.expect("killed");
        for (number, answering) in under_way {
            // Whoever was killed before its answer learns nothing.
            if let Ok(SentInfo { sequence, .. }) = answering.answer::<SentInfo>().await {
                told.insert(number, sequence);
            }
        }
        let application = Self::open(&stage).await;
        Self { stage, application, channel, begun, told, under_way: Vec::new() }
    }

    async fn history(&self) -> Vec<MessageInfo> {
        let listed: Listed = self.application.call(Call::history(&self.channel, 1_000_000)).await.expect("readable");
        listed.messages
    }
}

/// What another member has of the victim's, ascending by place, once the last has come.
async fn seen(channel: &Channel, last: &str) -> Vec<(u64, String)> {
    soon("the last message", async {
        loop {
            let all = channel.history(lianxin_sdk::Sequence(0), 1_000_000).await.expect("readable");
            if all.last().is_some_and(|message| message.text() == Some(last)) {
                return all
                    .iter()
                    .map(|message| (message.sequence.0, message.text().expect("text").to_owned()))
                    .collect();
            }
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// The guest takes its invitation if there is one, and goes; says whether it came.
async fn visit(guest: &Client) -> bool {
    let mut invitations = guest.invitations();
    let invitation = tokio::select! {
        invitation = invitations.next() => invitation.expect("open").expect("readable"),
        () = SystemClock.sleep(Duration::from_millis(300)) => return false,
    };
    drop(invitations);
    let channel = match soon("an answer", guest.accept(invitation)).await {
        Ok(channel) => channel,
        // A newer one has taken its place.
        Err(ClientError::InvitationGone | ClientError::Mls(_)) => return false,
        Err(ClientError::Refused(problem)) if problem.code == ReasonCode::ChannelNotAvailable => return false,
        Err(error) => panic!("{error}"),
    };
    match soon("an answer", channel.leave()).await {
        Ok(()) | Err(ClientError::NotMember) => true,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let kills = share(4, 100);
    let mut random = StdRng::seed_from_u64(seed());
    let stage = Stage::start().await.expect("a gateway process");
    let other = stage.client("shenji", "app-1").await.expect("opens");
    let guest = stage.client("weijian", "app-1").await.expect("opens");
    for client in [&other, &guest] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let application = Victim::open(&stage).await;
    application.call::<serde_json::Value>(Call::Connected).await.expect("connects");
    let departments = crate::talk::departments(&["jiwei", "shenji", "weijian"]);
    let create = Call::create(PURPOSE.0, PURPOSE.1, &departments);
    let Joined { channel } = application.call(create).await.expect("created");
    application.call::<SentInfo>(Call::invite(&channel, &[other.device()])).await.expect("invited");
    let at_other = accept(&other).await;
    let mut victim = Victim { stage, application, channel, begun: 0, told: BTreeMap::new(), under_way: Vec::new() };

    let mut visits = 0;
    for round in 0..kills {
        victim.begin_batch().await;
        if round % 2 == 0 {
            let invite = Call::invite(&victim.channel, &[guest.device()]);
            // It may have been refused, or killed: the next round asks again.
            drop(victim.application.begin(invite).await.expect("a running process"));
        }
        let speaker = at_other.clone();
        let word = tokio::spawn(async move { speaker.send("我在").await });
        SystemClock.sleep(Duration::from_millis(random.random_range(0..250))).await;
        victim = victim.die_and_rise().await;
        soon("a receipt", word).await.expect("no panic").expect("the others talk on");
        visits += usize::from(visit(&guest).await);
    }
    soon("connected", victim.application.call::<serde_json::Value>(Call::Connected)).await.expect("connects");
    let last = "最后一条";
    let SentInfo { sequence, .. } = victim.application.call(Call::send(&victim.channel, last)).await.expect("accepted");

    let seen = seen(&at_other, last).await;
    assert_eq!(seen.last(), Some(&(sequence, last.to_owned())));
    let numbers: Vec<(u64, usize)> = seen
        .iter()
        .filter_map(|(place, text)| Some((*place, text.strip_prefix('第')?.strip_suffix('条')?.parse().ok()?)))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0].1 < pair[1].1), "doubled, or out of order: {numbers:?}");
    for (number, place) in &victim.told {
        assert!(numbers.contains(&(*place, *number)), "message {number} was told to be at {place}");
    }
    assert!(!victim.told.is_empty() && numbers.len() >= victim.told.len(), "nothing happened");
    // Its own log is the same, whatever it was doing when it died.
    let own: Vec<(u64, String)> =
        victim.history().await.into_iter().map(|message| (message.sequence, message.text)).collect();
    assert_eq!(own, seen, "what the victim has, and what the others have");
    let members = Call::Info { channel: victim.channel.clone() };
    let same = soon("the same members", async {
        loop {
            let ChannelInfo { members: mine, .. } = victim.application.call(members.clone()).await.expect("a member");
            let info = at_other.info().await.expect("a member");
            let mut theirs: Vec<String> = info.members.iter().map(|uri| uri.as_str().to_owned()).collect();
            theirs.sort();
            if mine == theirs && !info.is_broken {
                return mine.len();
            }
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(same.await >= 2);
    let (sent, told) = (numbers.len(), victim.told.len());
    closing_line(&format!(
        "{kills} kills of an application, {sent} messages sent, {told} told before, {visits} visits"
    ));
    victim.application.close().await.expect("closes");
    for client in [other, guest] {
        client.close().await.expect("closes");
    }
}
