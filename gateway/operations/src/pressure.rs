//! How much waits for the committer, whose it is, and what is put off first when it is much (DESIGN 11).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lianxin_store::Unit;
use lianxin_types::DepartmentId;
use tokio::sync::watch;

/// What is put off. Each level puts off what the one before it does, and live sends are put off by none: they are refused
/// only where their department's share, or the queue, is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// New connections.
    Busy,
    /// New connections, catch-up from the store, and history.
    Strained,
}

/// A level begins when the queue is filled so far, in thousandths, and ends below a lower mark, so that it does not flutter.
struct Marks {
    begins: u32,
    ends: u32,
}

const BUSY: Marks = Marks { begins: 400, ends: 200 };
const STRAINED: Marks = Marks { begins: 600, ends: 400 };

impl Level {
    /// The level that follows this one when the queue is filled to `filled` thousandths.
    #[must_use]
    pub(crate) const fn after(self, filled: u32) -> Self {
        let is_strained = filled >= if matches!(self, Self::Strained) { STRAINED.ends } else { STRAINED.begins };
        let is_busy = filled >= if matches!(self, Self::Calm) { BUSY.begins } else { BUSY.ends };
        match (is_strained, is_busy) {
            (true, _) => Self::Strained,
            (false, true) => Self::Busy,
            (false, false) => Self::Calm,
        }
    }
}

/// So much work for the committer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) units: usize,
    pub(crate) bytes: usize,
}

impl Load {
    fn of(unit: &Unit) -> Self {
        Self { units: 1, bytes: unit.bytes() }
    }

    const fn plus(self, other: Self) -> Self {
        Self { units: self.units + other.units, bytes: self.bytes + other.bytes }
    }

    const fn minus(self, other: Self) -> Self {
        Self { units: self.units - other.units, bytes: self.bytes - other.bytes }
    }

    const fn fits(self, room: Self) -> bool {
        self.units <= room.units && self.bytes <= room.bytes
    }

    const fn part(self, of: usize) -> Self {
        Self { units: self.units / of, bytes: self.bytes / of }
    }

    /// In thousandths of `whole`, by units or by bytes, whichever is more.
    fn filled(self, whole: Self) -> u32 {
        let part = |part: usize, whole: usize| part.saturating_mul(1_000) / whole.max(1);
        u32::try_from(part(self.units, whole.units).max(part(self.bytes, whole.bytes))).unwrap_or(u32::MAX)
    }
}

/// What one department may have with the committer at once: a quarter of the queue, and once half of the queue is taken
/// no more than an equal share with everybody who has something there and one who may come.
fn share(capacity: Load, total: Load, departments: usize) -> Load {
    let alone = capacity.part(ALONE);
    if total.fits(capacity.part(2)) { alone } else { capacity.part((departments + 1).max(ALONE)) }
}

/// The part of the queue that one department may have while there is room enough.
const ALONE: usize = 4;

/// What all departments have with the committer.
pub(crate) struct Pressure {
    capacity: Load,
    state: Mutex<State>,
    level: watch::Sender<Level>,
}

#[derive(Default)]
struct State {
    total: Load,
    departments: HashMap<DepartmentId, Load>,
}

/// A department's work with the committer, until it is dropped.
pub(crate) struct Entered {
    pressure: Arc<Pressure>,
    department: DepartmentId,
    load: Load,
}

impl Pressure {
    /// For a queue of this size.
    pub(crate) fn new(units_max: usize, bytes_max: usize) -> Arc<Self> {
        let capacity = Load { units: units_max, bytes: bytes_max };
        Arc::new(Self { capacity, state: Mutex::default(), level: watch::Sender::new(Level::Calm) })
    }

    /// The level now.
    pub(crate) fn level(&self) -> Level {
        *self.level.borrow()
    }

    /// The level and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Level> {
        self.level.subscribe()
    }

    /// How many of `units`, from the first on, may go to the committer now. A department that has nothing there may always
    /// bring one while there is room at all.
    pub(crate) fn enter(self: &Arc<Self>, department: &DepartmentId, units: &[Unit]) -> (usize, Entered) {
        let mut state = self.state();
        let mine = state.departments.get(department).copied().unwrap_or_default();
        let departments = state.departments.len() + usize::from(mine == Load::default());
        let (mut count, mut load) = (0, Load::default());
        for unit in units {
            let next = load.plus(Load::of(unit));
            let total = state.total.plus(next);
            let is_first = mine == Load::default() && count == 0;
            let is_fair = is_first || mine.plus(next).fits(share(self.capacity, total, departments));
            if !(is_fair && total.fits(self.capacity)) {
                break;
            }
            (count, load) = (count + 1, next);
        }
        if count > 0 {
            state.total = state.total.plus(load);
            state.departments.insert(department.clone(), mine.plus(load));
        }
        self.note(&state);
        (count, Entered { pressure: Arc::clone(self), department: department.clone(), load })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &State) {
        let filled = state.total.filled(self.capacity);
        self.level.send_if_modified(|level| {
            let next = level.after(filled);
            std::mem::replace(level, next) != next
        });
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.load == Load::default() {
            return;
        }
        let mut state = self.pressure.state();
        state.total = state.total.minus(self.load);
        if let Some(mine) = state.departments.get_mut(&self.department) {
            *mine = mine.minus(self.load);
            if mine.units == 0 {
                state.departments.remove(&self.department);
            }
        }
        self.pressure.note(&state);
    }
}

#[cfg(test)]
mod tests;
