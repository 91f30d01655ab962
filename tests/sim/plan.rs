//! What happens in a simulation, drawn up whole from the seed before anything happens, so that it is the same however things
//! turn out.

use std::time::Duration;

use crate::chance::Chance;

/// One thing that happens, and how long after the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) after: Duration,
    pub(crate) action: Action,
}

/// A device, chosen when the time has come; nobody if there is none of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) among: Among,
    pub(crate) draw: usize,
}

/// Out of whom a device is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// Those that are up and members by the gateway's word.
    Members,
    /// Those that are no members, up or down.
    Strangers,
    /// Those that are up.
    Up,
    All,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Who),
    Invite {
        by: Who,
        whom: Who,
    },
    Remove {
        by: Who,
        whom: Who,
    },
    Leave(Who),
    CrashDevice {
        who: Who,
        down: Duration,
        comes_back_with: Memory,
    },
    CrashGateway {
        down: Duration,
    },
    Part {
        who: Who,
        apart: Duration,
    },
    CutLines(Who),
    NewWeather(Who),
    SetClock {
        who: Who,
        seconds_ahead: i64,
    },
    SetGatewayClock {
        seconds_ahead: i64,
    },
    /// Retention ends all of the gateway's log that it may.
    ForgetOldEvents,
    Wait,
}

/// With which state a device comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// With what its last transaction left, of which a copy is kept.
    Kept,
    /// With the copy kept last, as out of a backup.
    Older,
}

/// Draws up what happens.
pub(crate) fn plan(chance: &Chance, actions: usize) -> Vec<Step> {
    let mood = Mood::any(chance);
    (0..actions).map(|_| Step { after: chance.millis(0..mood.pause_millis_max), action: mood.action(chance) }).collect()
}

/// What a simulation is like.
struct Mood {
    pause_millis_max: u64,
    weights: [(Kind, usize); 13],
}

#[derive(Clone, Copy)]
enum Kind {
    Send,
    Invite,
    Remove,
    Leave,
    CrashDevice,
    CrashGateway,
    Part,
    CutLines,
    NewWeather,
    SetClock,
    SetGatewayClock,
    ForgetOldEvents,
    Wait,
}

impl Mood {
    fn any(chance: &Chance) -> Self {
        let (trouble, change) = (chance.below(4), 1 + chance.below(3));
        let weights = [
            (Kind::Send, 60),
            (Kind::Invite, 4 * change),
            (Kind::Remove, 2 * change),
            (Kind::Leave, change),
            (Kind::CrashDevice, 2 * trouble),
            (Kind::CrashGateway, trouble),
            (Kind::Part, 2 * trouble),
            (Kind::CutLines, 2 * trouble),
            (Kind::NewWeather, 2 * trouble),
            (Kind::SetClock, trouble),
            (Kind::SetGatewayClock, trouble),
            (Kind::ForgetOldEvents, trouble),
            (Kind::Wait, 4),
        ];
        Self { pause_millis_max: *chance.pick(&[200, 1_500, 4_000]), weights }
    }

    fn action(&self, chance: &Chance) -> Action {
        let who = |among| Who { among, draw: chance.below(1_000) };
        let mut draw = chance.below(self.weights.iter().map(|(_, weight)| weight).sum());
        let drawn = self.weights.iter().find(|(_, weight)| {
            let is_it = draw < *weight;
            draw = draw.saturating_sub(*weight);
            is_it
        });
        match drawn.map_or(Kind::Wait, |(kind, _)| *kind) {
            Kind::Send => Action::Send(who(if chance.happens(50) { Among::Up } else { Among::Members })),
            Kind::Invite => {
                let whom = who(if chance.happens(100) { Among::All } else { Among::Strangers });
                Action::Invite { by: who(Among::Members), whom }
            }
            Kind::Remove => Action::Remove { by: who(Among::Members), whom: who(Among::All) },
            Kind::Leave => Action::Leave(who(Among::Members)),
            Kind::CrashDevice => {
                let comes_back_with = if chance.happens(200) { Memory::Older } else { Memory::Kept };
                Action::CrashDevice { who: who(Among::Up), down: chance.millis(10..60_000), comes_back_with }
            }
            Kind::CrashGateway => Action::CrashGateway { down: chance.millis(10..20_000) },
            Kind::Part => Action::Part { who: who(Among::All), apart: chance.millis(100..90_000) },
            Kind::CutLines => Action::CutLines(who(Among::All)),
            Kind::NewWeather => Action::NewWeather(who(Among::All)),
            Kind::SetClock => Action::SetClock { who: who(Among::All), seconds_ahead: chance.between(-200..200) },
            Kind::SetGatewayClock => Action::SetGatewayClock { seconds_ahead: chance.between(-100..100) },
            Kind::ForgetOldEvents => Action::ForgetOldEvents,
            Kind::Wait => Action::Wait,
        }
    }
}

#[test]
fn what_happens_follows_the_seed_and_nothing_else() {
    let drawn = |seed| plan(&Chance::new(seed, "what happens"), 200);
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7), drawn(8));
    // Over some seeds everything that can happen does.
    let all: Vec<Step> = (0..40).flat_map(drawn).collect();
    let count = |is_it: fn(&Action) -> bool| all.iter().filter(|step| is_it(&step.action)).count();
    assert!(count(|action| matches!(action, Action::CrashGateway { .. })) > 20);
    assert!(count(|action| matches!(action, Action::ForgetOldEvents)) > 20);
    assert!(count(|action| matches!(action, Action::Leave(_))) > 20);
    assert!(count(|action| matches!(action, Action::Part { .. })) > 20);
    assert!(count(|action| matches!(action, Action::Send(_))) > all.len() / 3);
}
