//! Channels of which this device is a member and its state knows nothing, because that was put back from a copy that is older than
//! its membership. The gateway lists them; that the device has a seat there with its own key is verified with the group itself, on
//! the way back into it (PROTOCOL 5).

use std::collections::BTreeSet;
use std::time::Duration;

use lianxin_connection::{CallError, Connection, List};
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_types::{ChannelId, Monotonic};

use crate::ClientError;
use crate::calls::CallDone;
use crate::drive::Drive;
use crate::sync::is_invited;

/// After the start of a connection.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Between two looks: an invitation that is on its way on the same connection comes sooner, or the connection is lost (a client that
/// does not hear from the gateway for 40 s gives it up).
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(40);
/// Pages of 200 channels that are asked for; no device is in so many.
const PAGES_MAX: usize = 50;

/// When the gateway is asked next, and what it named the last time that the state does not know.
pub(crate) struct Unknown {
    /// `None` while it is being asked, and when there is no reason to.
    pub(crate) moment: Option<Monotonic>,
    suspects: BTreeSet<ChannelId>,
}

impl Unknown {
    /// At the start of a connection.
    pub(crate) fn new(now: Monotonic) -> Self {
        Self { moment: Some(now.plus(LOOK_AFTER)), suspects: BTreeSet::new() }
    }

    /// There is a reason to ask.
    pub(crate) fn look_soon(&mut self, now: Monotonic) {
        self.moment = Some(now.plus(LOOK_AFTER));
    }

    /// What to do about channels that are unknown now: who is unknown for the second time is to come back, and the others are
    /// looked at again.
    fn found(&mut self, unknown: BTreeSet<ChannelId>, now: Monotonic) -> Vec<ChannelId> {
        let (sure, suspects): (BTreeSet<_>, _) =
            unknown.into_iter().partition(|channel| self.suspects.contains(channel));
        if !suspects.is_empty() {
            self.moment = Some(now.plus(LOOK_AGAIN_AFTER));
        }
        self.suspects = suspects;
        sure.into_iter().collect()
    }
}

impl Drive {
    /// Asks of which channels this device is a member.
    pub(crate) fn look_for_unknown(&mut self) {
        self.unknown.moment = None;
        let connection = self.connection.clone();
        self.calls.push(Box::pin(async move { CallDone::Memberships(memberships(&connection).await) }));
    }

    /// What the gateway says.
    pub(crate) async fn memberships(
        &mut self,
        found: Result<BTreeSet<ChannelId>, CallError>,
    ) -> Result<(), ClientError> {
        let now = self.shared.clock.monotonic();
        let listed = match found {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "the own channels are not known");
                self.unknown.look_soon(now);
                return Ok(());
            }
        };
        let unknown = self.shared.transaction(move |tx, mls| {
            let mut unknown = BTreeSet::new();
            for channel in listed {
                if is_unknown(tx, mls, channel)? {
                    unknown.insert(channel);
                }
            }
            Ok(unknown)
        });
        for channel in self.unknown.found(unknown.await?, now) {
            tracing::warn!(?channel, "a member of a channel that the state does not know");
            self.come_back_into_unknown(channel);
        }
        Ok(())
    }
}

/// Whether there is neither a group of the channel nor an invitation into it.
pub(crate) fn is_unknown(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId) -> Result<bool, ClientError> {
    let has_group = mls.channels(tx)?.contains(&channel) || mls.lost(tx)?.contains(&channel);
    Ok(!has_group && !is_invited(tx, channel)?)
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

    #[test]
    fn who_is_unknown_twice_comes_back() {
        let channels = [ChannelId([1; 16]), ChannelId([2; 16])];
        let mut unknown = Unknown::new(NOW);
        assert_eq!(unknown.moment, Some(NOW.plus(LOOK_AFTER)));
        unknown.moment = None;
        assert!(unknown.found(BTreeSet::from([channels[0]]), NOW).is_empty(), "its invitation may be on its way");
        assert_eq!(unknown.moment.take(), Some(NOW.plus(LOOK_AGAIN_AFTER)));
        assert_eq!(unknown.found(BTreeSet::from(channels), NOW), [channels[0]]);
        assert!(unknown.moment.take().is_some(), "the other one is looked at again");
        assert!(unknown.found(BTreeSet::from([channels[0]]), NOW).is_empty(), "it was known in between");
        assert!(unknown.found(BTreeSet::new(), NOW).is_empty());
        unknown.moment = None;
        assert!(unknown.found(BTreeSet::new(), NOW).is_empty() && unknown.moment.is_none(), "nothing to look for");
    }
}
