//! One simulation: a gateway, devices, a network, and what happens to them, all by one seed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lianxin_certs_dev::Minted;
use lianxin_sdk::{ChannelId, Classification, Label};
use lianxin_types::{Clock as _, Monotonic};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use lianxin_tlog::EventKind;

use crate::chance::Chance;
use crate::device::{Device, Place};
use crate::gateway::Plant;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::network::Wire;
use crate::plan::{Step, plan};
use crate::timeline::{SimClock, Timeline};
use crate::trace::Trace;
use crate::weather::Weather;

/// The departments of the channel; each has two devices.
const DEPARTMENTS: [&str; 3] = ["jiwei", "shenji", "weijian"];
const APPS: [&str; 2] = ["app-1", "app-2"];
/// Devices that are members from the start.
const MEMBERS: usize = 5;
/// How long everything may take, by simulated time, to be quiet and right once the network has healed.
const HEALING_MAX: Duration = Duration::from_secs(15 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a simulation did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) actions: usize,
    pub(crate) faults: usize,
    pub(crate) messages: usize,
    pub(crate) commits: usize,
    pub(crate) simulated: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.actions += other.actions;
        self.faults += other.faults;
        self.messages += other.messages;
        self.commits += other.commits;
        self.simulated += other.simulated;
    }
}

/// What comes back by itself after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    Device(usize),
    Wire(usize),
    Gateway,
}

pub(crate) struct World {
    seed: u64,
    pub(crate) clock: SimClock,
    pub(crate) chance: Chance,
    pub(crate) plant: Arc<Plant>,
    pub(crate) devices: Vec<Device>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) trace: Trace,
    pub(crate) channel: ChannelId,
    returns: Vec<(Monotonic, Return)>,
}

impl World {
    /// Everybody up, nobody in a channel.
    pub(crate) async fn new(
        seed: u64,
        timeline: &Arc<Timeline>,
        trace: &Trace,
        minted: &Minted,
        states: &Path,
    ) -> Self {
        let plant = Plant::new(minted, states, SimClock::new(timeline), Chance::new(seed, "gateway"));
        plant.start().await;
        let ledger: Arc<Ledger> = Arc::default();
        let mut devices = Vec::new();
        for (number, (department, app)) in
            APPS.iter().flat_map(|app| DEPARTMENTS.map(|department| (department, *app))).enumerate()
        {
            let name = format!("{department}-{app}");
            let clock = SimClock::new(timeline);
            let paths = minted.app(department, app).expect("minted");
            let chain = CertificateDer::pem_file_iter(&paths.tls_certificate).expect("minted");
            let chain = chain.map(|one| one.expect("a certificate").to_vec()).collect();
            let wire = Wire::new(seed, &number.to_string(), chain, &plant, clock.clone(), trace);
            let random = Chance::new(seed, &name);
            let place = Place { federation: minted.folder(), department, app, state: states.join(&name) };
            devices.push(Device::new(number, place, (wire, clock, random), &ledger, trace));
        }
        for device in &mut devices {
            device.start().await;
        }
        let (clock, chance) = (SimClock::new(timeline), Chance::new(seed, "what happens"));
        Self {
            seed,
            clock,
            chance,
            plant,
            devices,
            ledger,
            trace: trace.clone(),
            channel: ChannelId([0; 16]),
            returns: Vec::new(),
        }
    }

    /// The first device makes the channel and invites the next ones, in clear weather.
    pub(crate) async fn found(&mut self) {
        for device in &self.devices {
            device.client().connected().await.expect("connects in clear weather");
        }
        let departments: Vec<_> = DEPARTMENTS.iter().map(|name| name.parse().expect("well formed")).collect();
        let label = Label::new(Classification::General3, "联合核查", "审计法第三十七条", None).expect("valid");
        let channel = self.devices[0].client().create(label, &departments).await.expect("created");
        self.channel = channel.id();
        let invited: Vec<_> = self.devices[1..MEMBERS].iter().map(|device| device.uri.clone()).collect();
        channel.invite(&invited).await.expect("invited");
        for device in &mut self.devices {
            device.read(self.channel);
        }
        self.settle("the founding").await.unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// Lets things happen.
    pub(crate) async fn live(&mut self, actions: usize) {
        for device in &self.devices {
            device.wire.set_weather(Weather::any(&self.chance));
        }
        for Step { after, action } in plan(&Chance::new(self.seed, "what happens"), actions) {
            self.clock.sleep(after).await;
            self.return_what_is_due().await;
            // Where there is nobody to do it, nothing happens.
            let _done = self.happen(action).await;
        }
    }

    /// Everything is up and gets through; then it must be right before long.
    ///
    /// # Errors
    /// What is still wrong.
    pub(crate) async fn heal(&mut self) -> Result<(), String> {
        self.trace.note(format_args!("the weather clears"));
        self.returns.clear();
        self.plant.clock().set_ahead(0);
        self.plant.start().await;
        for number in 0..self.devices.len() {
            self.devices[number].clock.set_ahead(0);
            self.devices[number].wire.set_weather(Weather::CLEAR);
            self.devices[number].wire.heal();
            self.start(number).await;
        }
        self.settle("the end").await
    }

    /// Has something come back after a while.
    pub(crate) fn later(&mut self, what: Return, after: Duration) {
        self.returns.push((self.clock.monotonic().plus(after), what));
    }

    async fn return_what_is_due(&mut self) {
        let now = self.clock.monotonic();
        let due: Vec<Return> =
            self.returns.extract_if(.., |(moment, _)| *moment <= now).map(|(_, what)| what).collect();
        for what in due {
            self.trace.note(format_args!("{what:?} comes back"));
            match what {
                Return::Device(number) => self.start(number).await,
                Return::Wire(number) => self.devices[number].wire.heal(),
                Return::Gateway => self.plant.start().await,
            }
        }
    }

    pub(crate) fn tally(&self, actions: usize) -> Tally {
        let log = self.plant.log.pages();
        let of_kind = |kind| log.events.values().filter(|event| event.kind == kind).count();
        Tally {
            actions,
            faults: self.trace.faults(),
            messages: of_kind(EventKind::Application),
            commits: of_kind(EventKind::Commit),
            simulated: Duration::from_micros(self.clock.monotonic().0),
        }
    }

    async fn start(&mut self, number: usize) {
        if self.devices[number].is_up() {
            return;
        }
        let channel = self.channel;
        self.devices[number].start().await;
        self.devices[number].read(channel);
    }

    /// Waits until nothing is wrong any more.
    async fn settle(&mut self, what: &str) -> Result<(), String> {
        let end = self.clock.monotonic().plus(HEALING_MAX);
        loop {
            let fault = Judge::new(self).first_fault().await;
            let Some(fault) = fault else { return Ok(()) };
            if self.clock.monotonic() >= end {
                return Err(format!("{what}: {fault}"));
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }
}
