//! Channels of which this device is a member and its state knows nothing, because that was put back from a copy that is older than
//! its membership. The gateway lists them; that the device has a seat there with its own key is verified with the group itself, on
//! the way back into it (PROTOCOL 5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use lianxin_connection::{CallError, Connection, List};
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_types::{ChannelId, Monotonic};

use crate::calls::CallDone;
use crate::drive::Drive;
use crate::{ClientError, sync};

/// After the start of a connection, and whenever there is a reason to ask.
pub(crate) const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Between the first look and the moment from which a channel is taken for lost: an invitation that is on its way comes sooner on
/// the same connection, or that is lost (a client that does not hear from the gateway for 40 s gives it up), and on the next one the
/// inbox comes first.
const LOST_AFTER: Duration = Duration::from_secs(40);
/// Pages of 200 channels that are asked for; no device is in so many.
const PAGES_MAX: usize = 50;

/// Channels that the gateway named and the state did not know, and from when on each of them is taken for lost. They outlive a
/// connection, for no connection need last so long.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<ChannelId, Monotonic>);

impl Suspects {
    /// What to do about channels that are unknown now: gives those that are to be come back into. The others are looked at again.
    fn found(&mut self, unknown: &BTreeSet<ChannelId>, now: Monotonic) -> Vec<ChannelId> {
        self.0.retain(|channel, _| unknown.contains(channel));
        for channel in unknown {
            self.0.entry(*channel).or_insert(now.plus(LOST_AFTER));
        }
        self.0.iter().filter(|(_, moment)| **moment <= now).map(|(channel, _)| *channel).collect()
    }

    /// When the next of them is looked at again.
    fn next(&self, now: Monotonic) -> Option<Monotonic> {
        self.0.values().copied().filter(|moment| *moment > now).min()
    }
}

impl Drive {
    fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.shared.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a reason to ask.
    pub(crate) fn look_soon_for_unknown(&mut self) {
        self.look_for_unknown_at = Some(self.shared.clock.monotonic().plus(LOOK_AFTER));
    }

    /// There is a group of the channel.
    pub(crate) fn is_known(&self, channel: ChannelId) {
        self.suspects().0.remove(&channel);
    }

    /// Asks of which channels this device is a member.
    pub(crate) fn look_for_unknown(&mut self) {
        self.look_for_unknown_at = None;
        let connection = self.connection.clone();
        self.calls.push(Box::pin(async move { CallDone::Memberships(memberships(&connection).await) }));
    }

    /// What the gateway says.
    pub(crate) async fn memberships(
        &mut self,
        found: Result<BTreeSet<ChannelId>, CallError>,
    ) -> Result<(), ClientError> {
        let listed = match found {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "the own channels are not known");
                self.look_soon_for_unknown();
                return Ok(());
            }
        };
        let unknown = self.shared.transaction(move |tx, mls| {
            let mut unknown = BTreeSet::new();
            sync::forget_declined(tx, &listed)?;
            for channel in listed {
                if is_unknown(tx, mls, channel)? {
                    unknown.insert(channel);
                }
            }
            Ok(unknown)
        });
        let (unknown, now) = (unknown.await?, self.shared.clock.monotonic());
        let (lost, next) = {
            let mut suspects = self.suspects();
            (suspects.found(&unknown, now), suspects.next(now))
        };
        // Somebody may have asked for a look meanwhile.
        self.look_for_unknown_at = self.look_for_unknown_at.into_iter().chain(next).min();
        for channel in lost {
            tracing::warn!(?channel, "a member of a channel that the state does not know");
            self.come_back_into_unknown(channel);
        }
        Ok(())
    }
}

/// Whether there is neither a group of the channel nor an invitation into it, and none was declined.
pub(crate) fn is_unknown(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId) -> Result<bool, ClientError> {
    let has_group = mls.channels(tx)?.contains(&channel) || mls.lost(tx)?.contains(&channel);
    Ok(!has_group && !sync::is_invited(tx, channel)? && !sync::is_declined(tx, channel)?)
}

async fn memberships(connection: &Connection) -> Result<BTreeSet<ChannelId>, CallError> {
    let mut all = BTreeSet::new();
    for _ in 0..PAGES_MAX {
        let page = connection.list(List { after: all.last().copied() }).await?;
        all.extend(page.channels.iter().map(|summary| summary.channel));
        if !page.more {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic(1_000_000);

    fn only(channels: &[ChannelId]) -> BTreeSet<ChannelId> {
        channels.iter().copied().collect()
    }

    #[test]
    fn what_is_unknown_for_so_long_is_come_back_into() {
        let channels = [ChannelId([1; 16]), ChannelId([2; 16])];
        let mut suspects = Suspects::default();
        assert!(suspects.found(&only(&channels[..1]), NOW).is_empty(), "its invitation may be on its way");
        let lost_at = NOW.plus(LOST_AFTER);
        assert_eq!(suspects.next(NOW), Some(lost_at));
        assert_eq!(suspects.found(&only(&channels), lost_at), channels[..1]);
        assert_eq!(suspects.next(lost_at), Some(lost_at.plus(LOST_AFTER)), "the other one is looked at again");
        assert_eq!(suspects.found(&only(&channels), lost_at), channels[..1], "as long as it is not known");
        assert!(suspects.found(&only(&channels[1..]), lost_at).is_empty());
        assert!(suspects.found(&only(&channels[..1]), lost_at).is_empty(), "it was known in between");
        assert!(suspects.found(&BTreeSet::new(), lost_at).is_empty());
        assert_eq!(suspects.next(lost_at), None, "nothing to look for");
    }

    #[test]
    fn a_look_that_comes_for_another_reason_takes_nothing_for_lost() {
        let channel = ChannelId([1; 16]);
        let mut suspects = Suspects::default();
        assert!(suspects.found(&only(&[channel]), NOW).is_empty());
        let soon = NOW.plus(LOOK_AFTER);
        assert!(suspects.found(&only(&[channel]), soon).is_empty());
        assert_eq!(suspects.next(soon), Some(NOW.plus(LOST_AFTER)), "nor does it put off the moment");
    }
}
