//! Doing what the plan says.

use std::time::Duration;

use lianxin_types::Clock as _;

use crate::device::told;
use crate::plan::{Action, Among, Memory, Who};
use crate::weather::Weather;
use crate::world::{Return, World};

/// Fewer members than this take nobody out and do not leave.
const MEMBERS_MIN: usize = 3;
/// How long `Wait` is.
const WAIT: Duration = Duration::from_secs(20);

impl World {
    /// The device that is meant, if there is one.
    fn find(&self, who: Who) -> Option<usize> {
        let members = self.plant.members(&self.channel);
        let fits = |number: &usize| {
            let device = &self.devices[*number];
            match who.among {
                Among::Members => device.is_up() && members.contains(&device.uri),
                Among::Strangers => !members.contains(&device.uri),
                Among::Up => device.is_up(),
                Among::All => true,
            }
        };
        let found: Vec<usize> = (0..self.devices.len()).filter(fits).collect();
        found.get(who.draw % found.len().max(1)).copied()
    }

    /// Does one thing, if there is who does it.
    pub(crate) async fn happen(&mut self, action: Action) -> Option<()> {
        let channel = self.channel;
        let may_go = self.plant.members(&channel).len() > MEMBERS_MIN;
        match action {
            Action::Send(who) => {
                let sender = self.find(who)?;
                self.devices[sender].send(channel);
            }
            Action::Invite { by, whom } => {
                let (by, whom) = (self.find(by)?, self.find(whom)?);
                let (at, uri) = (self.devices[by].client().channel(channel), self.devices[whom].uri.clone());
                let invite = async move { told(&at.invite(&[uri]).await.map(|done| done.sequence)) };
                self.devices[by].work(format!("invites {whom}"), invite);
            }
            Action::Remove { by, whom } => {
                let (by, whom) = (self.find(by)?, self.find(whom)?);
                (may_go && by != whom).then_some(())?;
                let (at, uri) = (self.devices[by].client().channel(channel), self.devices[whom].uri.clone());
                let remove = async move { told(&at.remove(&[uri]).await.map(|done| done.sequence)) };
                self.devices[by].work(format!("removes {whom}"), remove);
            }
            Action::Leave(who) => {
                let device = self.find(who).filter(|_| may_go)?;
                let at = self.devices[device].client().channel(channel);
                self.devices[device].work("leaves".to_owned(), async move { told(&at.leave().await) });
            }
            Action::CrashDevice { who, down, comes_back_with } => {
                let device = self.find(who)?;
                self.trace.fault(format_args!("{device} crashes, and comes back with {comes_back_with:?}"));
                self.devices[device].crash().await;
                match comes_back_with {
                    Memory::Kept => self.devices[device].keep_a_copy(),
                    Memory::Older => self.devices[device].go_back_to_the_copy(),
                }
                self.later(Return::Device(device), down);
            }
            Action::CrashGateway { down } => {
                self.trace.fault(format_args!("the gateway crashes"));
                self.plant.crash();
                self.later(Return::Gateway, down);
            }
            Action::Part { who, apart } => {
                let device = self.find(who)?;
                self.trace.fault(format_args!("{device} is parted"));
                self.devices[device].wire.part();
                self.later(Return::Wire(device), apart);
            }
            Action::CutLines(who) => {
                let device = self.find(who)?;
                self.trace.fault(format_args!("{device}: the lines are cut"));
                self.devices[device].wire.cut();
            }
            Action::NewWeather(who) => {
                let (device, weather) = (self.find(who)?, Weather::any(&self.chance));
                self.trace.note(format_args!("{device} has {weather:?}"));
                self.devices[device].wire.set_weather(weather);
            }
            Action::SetClock { who, seconds_ahead } => {
                let device = self.find(who)?;
                self.trace.fault(format_args!("{device} is {seconds_ahead} s ahead of time"));
                self.devices[device].clock.set_ahead(seconds_ahead);
            }
            Action::SetGatewayClock { seconds_ahead } => {
                self.trace.fault(format_args!("the gateway is {seconds_ahead} s ahead of time"));
                self.plant.clock().set_ahead(seconds_ahead);
            }
            Action::ForgetOldEvents => self.plant.forget_old_events(&self.trace).await,
            Action::Wait => self.clock.sleep(WAIT).await,
        }
        Some(())
    }
}
