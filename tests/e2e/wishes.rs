//! What an application wished to change goes on without it: its process has ended or it waits no more, others change the channel first,
//! and still it comes true, or an event says why not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lianxin_harness::Line;
use lianxin_sdk::{Channel, Client, Config, DeviceUri};
use lianxin_types::{Clock as _, SystemClock};

use crate::impostor::Impostor;
use crate::talk::{create, join, send, soon};
use crate::zone::Zone;

/// What is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Remove,
    Invite,
    Leave,
}

/// Why nobody waits for it.
#[derive(Clone, Copy, Debug)]
enum Gone {
    /// The application has lost its patience.
    TheCall,
    /// The client was closed, and is opened again.
    TheClient,
}

/// jiwei wishes, over a line that can hold its requests back; shenji is quicker.
struct Story {
    zone: Zone,
    /// At its other end, before the gateway: it sees what the answers are.
    _impostor: Impostor,
    line: Arc<Line>,
    jiwei: Client,
    shenji: Client,
    at_jiwei: Channel,
    at_shenji: Channel,
    /// Whom jiwei wants in or out, and whom shenji lets in or out meanwhile.
    guests: [DeviceUri; 2],
}

impl Story {
    async fn begin(wish: Wish) -> Self {
        let zone = Zone::start().await;
        let impostor = Impostor::before(&zone).await;
        let (_, port) = impostor.config(&zone, "jiwei").endpoint.expect("its own");
        let end = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let line = Arc::new(Line::to(end).await.expect("a free port"));
        let [shenji, weijian] = zone.clients(["shenji", "weijian"]).await;
        let other = zone.client("shenji", "app-2").await;
        let jiwei = over(&zone, &line).await;
        let at_shenji = create(&shenji, &["jiwei", "shenji", "weijian"]).await;
        let at_jiwei = join(&at_shenji, &jiwei).await;
        if wish == Wish::Remove {
            join(&at_shenji, &weijian).await;
            join(&at_shenji, &other).await;
        }
        if wish == Wish::Invite {
            // Key packages are claimed; what is made of them does not go through.
            let line = Arc::clone(&line);
            impostor.lie(move |passing| {
                if passing.method.ends_with("/Claim") {
                    line.hold_requests();
                }
                vec![passing.message]
            });
        }
        let guests = [weijian.device().clone(), other.device().clone()];
        let story = Self { zone, _impostor: impostor, line, jiwei, shenji, at_jiwei, at_shenji, guests };
        send(&story.at_shenji, "都在").await;
        story.agree().await;
        story
    }

    async fn wish(&self, wish: Wish) {
        let guest = &self.guests[..1];
        match wish {
            Wish::Remove => drop(self.at_jiwei.remove(guest).await),
            Wish::Invite => drop(self.at_jiwei.invite(guest).await),
            Wish::Leave => drop(self.at_jiwei.leave().await),
        }
    }

    /// The wish is stored, and nothing of it reaches the gateway.
    async fn wish_in_vain(&self, wish: Wish) {
        let held = async {
            while !self.at_jiwei.info().await.expect("a member").has_pending_change {
                SystemClock.sleep(Duration::from_millis(1)).await;
            }
        };
        if wish != Wish::Invite {
            self.line.hold_requests();
        }
        tokio::select! {
            () = self.wish(wish) => panic!("nothing of it goes through"),
            () = soon("a stored wish", held) => {}
        }
    }

    /// shenji changes the channel in between.
    async fn overtake(&self, wish: Wish) {
        let other = &self.guests[1..];
        let changed = match wish {
            Wish::Remove => soon("a removal", self.at_shenji.remove(other)).await,
            Wish::Invite | Wish::Leave => soon("an invitation", self.at_shenji.invite(other)).await,
        };
        changed.expect("changed");
    }

    async fn comes_true(&self, wish: Wish) {
        let [guest, _] = &self.guests;
        let (whom, wanted) = match wish {
            Wish::Remove => (guest, false),
            Wish::Invite => (guest, true),
            Wish::Leave => (self.jiwei.device(), false),
        };
        soon("the wish", async {
            while self.at_shenji.info().await.expect("a member").members.contains(whom) != wanted {
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Both have read the same.
    async fn agree(&self) {
        soon("the same group", async {
            loop {
                let [one, two] =
                    [self.at_jiwei.info().await, self.at_shenji.info().await].map(|info| info.expect("a member"));
                if (one.epoch_authenticator, one.head) == (two.epoch_authenticator, two.head) {
                    return;
                }
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn end(self) {
        for client in [self.jiwei, self.shenji] {
            client.close().await.expect("closes");
        }
        self.zone.close().await;
    }
}

async fn over(zone: &Zone, line: &Line) -> Client {
    let endpoint = Some(("127.0.0.1".to_owned(), line.address().port()));
    let client = Client::open(Config { endpoint, ..zone.config("jiwei", "app-1") }).await.expect("opens");
    soon("a connection", client.connected()).await.expect("connects");
    client
}

async fn goes_on(wish: Wish, gone: Gone) {
    let mut story = Story::begin(wish).await;
    story.wish_in_vain(wish).await;
    match gone {
        Gone::TheCall => {
            story.overtake(wish).await;
            story.line.release();
        }
        Gone::TheClient => {
            story.jiwei.clone().close().await.expect("closes");
            story.overtake(wish).await;
            story.line.cut();
            story.jiwei = over(&story.zone, &story.line).await;
            story.at_jiwei = story.jiwei.channel(story.at_shenji.id());
        }
    }
    story.comes_true(wish).await;
    if wish != Wish::Leave {
        story.agree().await;
        assert!(!story.at_jiwei.info().await.expect("a member").has_pending_change, "nothing is left of it");
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_nobody_waits_for_comes_true_though_others_came_first() {
    goes_on(Wish::Remove, Gone::TheCall).await;
    goes_on(Wish::Remove, Gone::TheClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_nobody_waits_for_comes_true_though_others_came_first() {
    goes_on(Wish::Invite, Gone::TheCall).await;
    goes_on(Wish::Invite, Gone::TheClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_that_nobody_waits_for_comes_true_though_others_came_first() {
    goes_on(Wish::Leave, Gone::TheCall).await;
    goes_on(Wish::Leave, Gone::TheClient).await;
}
