//! Key packages of this device at the gateway, by which others invite it: how many there are to be, and how they come there. What is
//! published is stored with its private keys and goes to the gateway as it is until there is an answer.

use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::{CallError, Connection, Publish};
use lianxin_keystore::Transaction;
use lianxin_mls::{Mls, NewKeyPackages};
use lianxin_types::{IdempotencyId, Monotonic, Timestamp};

use crate::calls::{CallDone, refuses_the_caller};
use crate::drive::Drive;
use crate::error::chain;
use crate::rows::{KeyPackageRow, PUBLISH, PublishRow};
use crate::shared::Shared;
use crate::{ClientError, sync};

/// Below this many one-time key packages at the gateway more are published, up to the second number.
const ONE_TIME_MIN: u32 = 20;
const ONE_TIME_FULL: u32 = 50;
/// How often the gateway is asked how many are left; they also expire.
const CHECK: Duration = Duration::from_secs(900);
/// After the first attempt in vain; it doubles up to [`CHECK`].
const RETRY_DELAY: Duration = Duration::from_secs(15);
/// The gateway knows the id of a request again for 30 days at least (PROTOCOL 7). Whether it has taken one of so long ago cannot be
/// found out by asking again, and what was published must not be published twice.
const REPEATED_WITHIN: Duration = Duration::from_secs(20 * 24 * 3600);
/// So long after a connection stands the invitations that wait at the gateway have come.
const INBOX_READ_AFTER: Duration = Duration::from_secs(60);
const KEY: &[u8] = b"";

/// When key packages are looked after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replenishing {
    is_on_its_way: bool,
    check: Monotonic,
    /// Attempts in vain since the last that was not.
    failures: u32,
    forget: Monotonic,
}

impl Replenishing {
    pub(crate) fn begin(now: Monotonic) -> Self {
        Self { is_on_its_way: false, check: now.plus(CHECK), failures: 0, forget: now.plus(INBOX_READ_AFTER) }
    }
}

impl Drive {
    pub(crate) async fn look_after_key_packages(&mut self, now: Monotonic) -> Result<(), ClientError> {
        if self.replenishing.check <= now {
            self.replenishing.check = now.plus(CHECK);
            self.replenish();
        }
        if self.replenishing.forget <= now {
            self.replenishing.forget = now.plus(CHECK);
            let forgotten = self.shared.transaction(forget).await?;
            if forgotten > 0 {
                tracing::debug!(forgotten, "keys of key packages that ended long ago are deleted");
            }
        }
        Ok(())
    }

    /// One may have been used, or is to be replaced.
    pub(crate) fn replenish_soon(&mut self) {
        // What was in vain has its own time.
        if self.replenishing.failures == 0 {
            self.replenish();
        }
    }

    /// Publishes key packages in the background, one attempt at a time.
    fn replenish(&mut self) {
        if !std::mem::replace(&mut self.replenishing.is_on_its_way, true) {
            let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
            self.calls.push(Box::pin(async move { CallDone::KeyPackages(replenish(&shared, &connection).await) }));
        }
    }

    /// An attempt has ended. Who has no key packages cannot be invited, so one in vain is made again.
    pub(crate) fn replenished(&mut self, result: Result<(), ClientError>) {
        self.replenishing.is_on_its_way = false;
        let Err(error) = result else {
            self.replenishing.failures = 0;
            return;
        };
        tracing::warn!(error = %chain(&error), "key packages not published");
        self.replenishing.failures += 1;
        let [random] = self.shared.random.array();
        self.replenishing.check = self.shared.clock.monotonic().plus(delay(self.replenishing.failures, random));
    }
}

/// Between half and all of a delay that doubles with every failure.
fn delay(failures: u32, random: u8) -> Duration {
    let full = (RETRY_DELAY * 2_u32.pow(failures.saturating_sub(1).min(10))).min(CHECK);
    full / 2 + full * u32::from(random) / (2 * u32::from(u8::MAX))
}

/// Publishes what waits for that, and more if the gateway has few left.
pub(crate) async fn replenish(shared: &Shared, connection: &Connection) -> Result<(), ClientError> {
    let now = shared.clock.now();
    // Before the gateway is asked how many it has: these may be among them.
    if let Some(row) = shared.transaction(move |tx, _| waiting(tx, now)).await? {
        publish(shared, connection, row).await?;
    }
    let count = connection.count().await?;
    let missing = if count.one_time < ONE_TIME_MIN { ONE_TIME_FULL - count.one_time } else { 0 };
    let (federation, id) = (shared.federation(), shared.id());
    let made = shared.transaction(move |tx, mls: &Mls| {
        let forgotten = mls.forget_last_resorts(tx)?;
        if forgotten > 0 {
            tracing::debug!(forgotten, "keys of last resorts that were replaced long ago are deleted");
        }
        // One that has invited this device is known to whoever was invited with it: a new one takes its place (PROTOCOL 5).
        let last_resort = mls.is_last_resort_used(tx)? || !count.last_resort;
        if missing == 0 && !last_resort {
            return Ok(None);
        }
        let row = row(id, now, mls.key_packages(tx, &federation, missing as usize, last_resort)?);
        tx.put(PUBLISH, KEY, &row.to_bytes())?;
        Ok(Some(row))
    });
    match made.await? {
        Some(row) => publish(shared, connection, row).await,
        None => Ok(()),
    }
}

fn row(id: IdempotencyId, made: Timestamp, new: NewKeyPackages) -> PublishRow {
    let package = |(mls, reference)| KeyPackageRow { mls, reference };
    let one_time = new.one_time.into_iter().zip(new.one_time_references).map(package).collect();
    let last_resort = new.last_resort.zip(new.last_resort_reference).map(package);
    PublishRow { id, made, one_time, last_resort }
}

/// What waits for the gateway, if asking it again can still tell what became of it. Else the keys stay until they end.
fn waiting(tx: &Transaction<'_>, now: Timestamp) -> Result<Option<PublishRow>, ClientError> {
    let Some(bytes) = tx.get(PUBLISH, KEY)? else { return Ok(None) };
    let row = PublishRow::from_bytes(&bytes)?;
    if now < row.made.plus(REPEATED_WITHIN) {
        return Ok(Some(row));
    }
    tx.delete(PUBLISH, KEY)?;
    Ok(None)
}

/// Sends what is stored. A refusal for good says that it was never accepted, for the gateway looks the id up first: it goes with
/// its private keys. After any other outcome it stays.
async fn publish(shared: &Shared, connection: &Connection, row: PublishRow) -> Result<(), ClientError> {
    let bytes = |package: &KeyPackageRow| package.mls.clone().into();
    let request = Publish {
        id: row.id,
        key_packages: row.one_time.iter().map(bytes).collect(),
        last_resort: row.last_resort.as_ref().map(bytes),
    };
    let answer = connection.publish(request).await;
    let is_refused = matches!(&answer, Err(error) if is_for_good(error));
    if answer.is_err() && !is_refused {
        return Ok(answer.map(drop)?);
    }
    let settled = shared.transaction(move |tx, mls: &Mls| {
        tx.delete(PUBLISH, KEY)?;
        if is_refused {
            return Ok(mls.drop_key_packages(tx, row.references())?);
        }
        match &row.last_resort {
            Some(last_resort) => Ok(mls.last_resort_published(tx, &last_resort.reference)?),
            None => Ok(()),
        }
    });
    settled.await?;
    Ok(answer.map(drop)?)
}

/// Whether the same request will never be accepted.
fn is_for_good(error: &CallError) -> bool {
    error.refusal().is_some_and(|problem| !problem.try_again && !refuses_the_caller(problem.code))
}

/// Forgets the keys of key packages by which nobody can invite this device any more.
fn forget(tx: &Transaction<'_>, mls: &Mls) -> Result<usize, ClientError> {
    let waiting = sync::welcomes(tx)?;
    Ok(mls.forget_key_packages(tx, waiting.iter().map(Vec::as_slice))?)
}

#[cfg(test)]
mod tests {
    use lianxin_connection::{Problem, ReasonCode};

    use super::*;

    #[test]
    fn attempts_in_vain_come_ever_later_up_to_a_quarter_of_an_hour_and_never_in_step() {
        assert_eq!((delay(1, 0), delay(1, 255)), (RETRY_DELAY / 2, RETRY_DELAY));
        assert_eq!(delay(3, 255), RETRY_DELAY * 4);
        assert_eq!((delay(u32::MAX, 0), delay(u32::MAX, 255)), (CHECK / 2, CHECK));
    }

    #[test]
    fn only_a_refusal_of_the_key_packages_themselves_is_for_good() {
        let refused = |code| is_for_good(&CallError::Refused(Problem::new(code)));
        for code in [ReasonCode::InvalidKeyPackage, ReasonCode::InvalidCredential, ReasonCode::LimitReached] {
            assert!(refused(code), "{code:?}");
        }
        for code in [ReasonCode::DiskFull, ReasonCode::ZoneUnavailable, ReasonCode::CertificateExpired] {
            assert!(!refused(code), "{code:?}");
        }
        assert!(!is_for_good(&CallError::Unknown { detail: "cut".into() }));
    }

    #[test]
    fn what_waits_for_longer_than_the_gateway_remembers_is_not_asked_for_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = lianxin_keystore::StateKey::from_bytes([1; 32]);
        let keystore = lianxin_keystore::Keystore::open(folder.path(), &key, Arc::new(lianxin_types::SystemRandom))
            .expect("opens");
        let row = PublishRow { id: IdempotencyId([7; 16]), made: Timestamp(5), one_time: vec![], last_resort: None };
        let stored = row.clone();
        let found = keystore.transaction_blocking::<_, ClientError>(move |tx| {
            tx.put(PUBLISH, KEY, &stored.to_bytes())?;
            let last = Timestamp(4).plus(REPEATED_WITHIN);
            Ok([
                waiting(tx, Timestamp(0))?,
                waiting(tx, last)?,
                waiting(tx, Timestamp(last.0 + 1))?,
                waiting(tx, last)?,
            ])
        });
        assert_eq!(found.expect("readable"), [Some(row.clone()), Some(row), None, None]);
    }
}
