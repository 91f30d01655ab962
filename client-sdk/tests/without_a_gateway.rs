//! What works, and what is refused, when there is no gateway to talk to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lianxin_certs_dev::{FederationPlan, Minted, Specimen, mint};
use lianxin_sdk::{
    ChannelId, Classification, Client, ClientError, Config, ConfigError, Event, KeystoreError, Label, Sequence,
    StateKeySource,
};
use lianxin_types::{Clock as _, Random, SystemClock, SystemRandom};

struct World {
    minted: Minted,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        // Port 1 answers nobody.
        let plan = FederationPlan { port: 1, ..FederationPlan::default() };
        let minted = mint(&plan, &folder.path().join("federation"), &SystemClock).expect("minted");
        Self { minted, folder }
    }

    fn config(&self) -> Config {
        let state = self.folder.path().join("state");
        Config::from_certs_dev(self.minted.folder(), "jiwei", "app-1", state).expect("a configuration")
    }
}

async fn refused(config: Config) -> ClientError {
    Client::open(config).await.expect_err("refused")
}

#[tokio::test]
async fn a_configuration_that_does_not_hold_together_is_refused_by_name() {
    let world = World::new();
    let nowhere = Config::from_certs_dev(world.minted.folder(), "jiwei", "app-9", "state").err();
    assert!(matches!(nowhere, Some(ConfigError::Read { .. })), "{nowhere:?}");

    let missing = Config { roots: "/nowhere/roots.json".into(), ..world.config() };
    let error = refused(missing).await;
    let names = |wanted: &Path| matches!(&error, ClientError::Config(ConfigError::Read { path, .. }) if path == wanted);
    assert!(names("/nowhere/roots.json".as_ref()), "{error:?}");

    let swapped = Config { mls_key: world.config().tls_key, ..world.config() };
    let error = refused(swapped).await;
    assert!(matches!(error, ClientError::Config(ConfigError::MlsKey { .. })), "{error:?}");

    let mixed = Config { tls_key: world.config().mls_key, ..world.config() };
    let error = refused(mixed).await;
    assert!(matches!(error, ClientError::Config(ConfigError::Tls { .. })), "{error:?}");

    let unsigned = Config { trust_bundle: world.minted.specimen_bundle_file("under-threshold"), ..world.config() };
    let error = refused(unsigned).await;
    assert!(matches!(error, ClientError::Config(ConfigError::Trust(_))), "{error:?}");

    let elsewhere = Config { zone: Some("elsewhere".parse().expect("a zone")), ..world.config() };
    let error = refused(elsewhere).await;
    assert!(matches!(error, ClientError::Config(ConfigError::Zone)), "{error:?}");

    let paths = world.minted.specimen(Specimen::WrongCa);
    let stranger =
        Config { device: None, mls_certificate: paths.mls_certificate, mls_key: paths.mls_key, ..world.config() };
    let error = refused(stranger).await;
    assert!(matches!(error, ClientError::Config(ConfigError::WhoAmI(_))), "{error:?}");
}

#[tokio::test]
async fn the_device_is_read_from_its_certificate() {
    let world = World::new();
    let named = world.config().device.expect("certs-dev names it");
    let client = Client::open(Config { device: None, ..world.config() }).await.expect("opens");
    assert_eq!(*client.device(), named);
    client.close().await.expect("closed");
}

#[tokio::test]
async fn a_client_opens_and_reads_without_a_gateway_and_one_process_at_a_time() {
    let world = World::new();
    let client = Client::open(world.config()).await.expect("opens");
    let second = refused(world.config()).await;
    assert!(matches!(second, ClientError::State(KeystoreError::Locked { .. })), "{second:?}");

    assert!(client.channels().await.expect("read").is_empty());
    let channel = client.channel(ChannelId([7; 16]));
    assert!(channel.history(Sequence(0), 10).await.expect("read").is_empty());
    let not_member = channel.send("x").await.expect_err("refused");
    assert!(matches!(not_member, ClientError::NotMember), "{not_member:?}");
    let too_large = channel.send(vec![0; 65_537]).await.expect_err("refused");
    assert!(matches!(too_large, ClientError::TooLarge { bytes: 65_537, bytes_max: 65_536 }), "{too_large:?}");
    let not_member = channel.info().await.expect_err("refused");
    assert!(matches!(not_member, ClientError::NotMember), "{not_member:?}");

    client.close().await.expect("closed");
    let other_key = Config { state_key: StateKeySource::File(world.folder.path().join("other.key")), ..world.config() };
    let wrong = refused(other_key).await;
    assert!(matches!(wrong, ClientError::State(KeystoreError::WrongKey)), "{wrong:?}");
    Client::open(world.config()).await.expect("opens again").close().await.expect("closed");
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_client_is_closed() {
    let world = World::new();
    let client = Client::open(world.config()).await.expect("opens");
    let label = Label::new(Classification::General1, "联合核查", "审计法", None).expect("a label");
    let departments = ["jiwei".parse().expect("a department")];
    let (mut messages, mut events) = (client.channel(ChannelId([7; 16])).receive(), client.events());
    let mut invitations = client.invitations();
    let closing = client.clone();
    let (created, message, event, invitation, closed) = tokio::join!(
        client.create(label, &departments),
        messages.next(),
        async { while matches!(events.next().await, Some(Ok(Event::Disconnected { refused: None }))) {} },
        invitations.next(),
        async {
            // Everybody else is waiting by now or will be told at once; either way this must end.
            tokio::task::yield_now().await;
            closing.close().await
        },
    );
    assert!(matches!(created, Err(ClientError::Closed)), "{created:?}");
    assert!(message.is_none() && invitation.is_none());
    let () = event;
    closed.expect("closed");
    assert!(matches!(client.connected().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_dropped_client_gives_its_folder_back() {
    let world = World::new();
    drop(Client::open(world.config()).await.expect("opens"));
    // The session ends on its own; how soon is the scheduler's affair.
    for _ in 0..200 {
        match Client::open(world.config()).await {
            Ok(client) => return client.close().await.expect("closed"),
            Err(ClientError::State(KeystoreError::Locked { .. })) => SystemClock.sleep(Duration::from_millis(10)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the folder stayed locked");
}

/// Random until it is broken; then whoever asks it panics.
#[derive(Default)]
struct Breakable(AtomicBool);

impl Random for Breakable {
    fn fill(&self, bytes: &mut [u8]) {
        assert!(!self.0.load(Ordering::SeqCst), "broken on purpose");
        SystemRandom.fill(bytes);
    }
}

#[tokio::test]
async fn a_session_that_has_panicked_keeps_nobody_waiting() {
    let world = World::new();
    let random = Arc::new(Breakable::default());
    let client = Client::open(Config { random: random.clone(), ..world.config() }).await.expect("opens");
    let mut events = client.events();
    // The session asks how long to wait after each attempt to connect.
    random.0.store(true, Ordering::SeqCst);
    let waiting = async { tokio::join!(client.connected(), async { while events.next().await.is_some() {} }) };
    let (connected, ()) = tokio::select! {
        waited = waiting => waited,
        () = SystemClock.sleep(Duration::from_secs(30)) => panic!("somebody waits for a session that is no more"),
    };
    assert!(matches!(connected, Err(ClientError::Closed)), "{connected:?}");
}
