//! What can happen, and how often.

use std::time::Duration;

use lianxin_types::Clock as _;

use crate::device::told;
use crate::weather::Weather;
use crate::world::{Return, World};

/// Fewer members than this take nobody out and do not leave.
const MEMBERS_MIN: usize = 3;

/// One thing that happens. Devices by their numbers.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Send(usize),
    Invite { by: usize, whom: usize },
    Remove { by: usize, whom: usize },
    Leave(usize),
    CrashDevice(usize),
    CrashGateway,
    Part(usize),
    CutLines(usize),
    Weather(usize),
    SetClock { device: usize, seconds_ahead: i64 },
    SetGatewayClock { seconds_ahead: i64 },
    Wait(Duration),
}

impl Action {
    /// What happens next, out of what can.
    pub(crate) fn any(world: &World) -> Self {
        let chance = &world.chance;
        let up: Vec<usize> = (0..world.devices.len()).filter(|number| world.devices[*number].is_up()).collect();
        let anybody = chance.below(world.devices.len());
        let Some(&device) = up.get(chance.below(up.len().max(1))) else { return Self::Wait(Duration::from_secs(5)) };
        match chance.below(100) {
            0..55 => Self::Send(device),
            55..63 => Self::Invite { by: device, whom: anybody },
            63..68 if device != anybody && world.members() > MEMBERS_MIN => Self::Remove { by: device, whom: anybody },
            68..71 if world.members() > MEMBERS_MIN => Self::Leave(device),
            71..77 => Self::CrashDevice(device),
            77..79 => Self::CrashGateway,
            79..84 => Self::Part(anybody),
            84..87 => Self::CutLines(anybody),
            87..92 => Self::Weather(anybody),
            92..95 => Self::SetClock { device: anybody, seconds_ahead: chance.between(-200..200) },
            95..96 => Self::SetGatewayClock { seconds_ahead: chance.between(-100..100) },
            _ => Self::Wait(chance.millis(1_000..30_000)),
        }
    }

    pub(crate) async fn happen(self, world: &mut World) {
        let channel = world.channel;
        if !matches!(self, Self::Send(_)) {
            world.trace.note(format_args!("{self:?}"));
        }
        match self {
            Self::Send(device) => world.devices[device].send(channel),
            Self::Invite { by, whom } => {
                let (at, uri) = (world.devices[by].client().channel(channel), world.devices[whom].uri.clone());
                let what = format!("invites {whom}");
                world.devices[by].work(what, async move { told(&at.invite(&[uri]).await.map(|done| done.sequence)) });
            }
            Self::Remove { by, whom } => {
                let (at, uri) = (world.devices[by].client().channel(channel), world.devices[whom].uri.clone());
                let what = format!("removes {whom}");
                world.devices[by].work(what, async move { told(&at.remove(&[uri]).await.map(|done| done.sequence)) });
            }
            Self::Leave(device) => {
                let at = world.devices[device].client().channel(channel);
                world.devices[device].work("leaves".to_owned(), async move { told(&at.leave().await) });
            }
            Self::CrashDevice(device) => {
                world.devices[device].crash().await;
                world.later(Return::Device(device), world.chance.millis(10..60_000));
            }
            Self::CrashGateway => {
                world.plant.crash();
                world.later(Return::Gateway, world.chance.millis(10..20_000));
            }
            Self::Part(device) => {
                world.devices[device].wire.part();
                world.later(Return::Wire(device), world.chance.millis(100..90_000));
            }
            Self::CutLines(device) => world.devices[device].wire.cut(),
            Self::Weather(device) => world.devices[device].wire.set_weather(Weather::any(&world.chance)),
            Self::SetClock { device, seconds_ahead } => world.devices[device].clock.set_ahead(seconds_ahead),
            Self::SetGatewayClock { seconds_ahead } => world.plant.clock().set_ahead(seconds_ahead),
            Self::Wait(duration) => world.clock.sleep(duration).await,
        }
    }
}
