//! The trust bundle and revocation lists: the newest that the client has seen, kept in its state (PROTOCOL 9).

use lianxin_connection::{Connection, GetTrust, Trust};
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_trust::{BundleError, Federation, FederationError, Past, RootKeys, VerifiedBundle, verify_bundle};
use lianxin_types::{DecodeError, Reader, Timestamp, Writer};

use crate::config::Loaded;
use crate::error::TrustError;
use crate::error::chain;
use crate::event::keep;
use crate::rows::TRUST;
use crate::shared::{News, Shared};
use crate::{ClientError, Event};

const BUNDLE: &[u8] = b"bundle";
/// Row: which end the application was told of.
const TOLD: &[u8] = b"expired-told";
const LISTS: &[u8] = b"revocation-lists";
const PAST: &[u8] = b"past";
/// Longest revocation list and the most of them, to read what is stored.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The federation at start: what is stored, or what is configured if that is newer and follows it. A configured bundle may leave
/// out those between: who puts files into the installation is trusted with its root keys, too, and this is the way back for a
/// device that was away for longer than gateways keep bundles. From a gateway such a leap is never taken.
pub(crate) fn at_start(tx: &Transaction<'_>, loaded: &Loaded) -> Result<Federation, ClientError> {
    let (bundle, past, held, fresh) = match stored(tx, &loaded.roots)? {
        // A wrong list in the configuration is told, not dropped.
        None => (loaded.bundle.clone(), Past::default(), Vec::new(), loaded.lists.clone()),
        Some(Stored { bundle, past, mut lists }) => {
            lists.extend(loaded.lists.iter().cloned());
            let (bundle, past) = match follows(&bundle, &loaded.bundle) {
                Ok(()) | Err(TrustError::Gap { .. }) => {
                    (loaded.bundle.clone(), past.moved_on(&bundle.bundle, &loaded.bundle.bundle))
                }
                // An older file is normal: installations are not updated with every bundle. Another chain is refused.
                Err(error) => {
                    tracing::info!(%error, "the configured trust bundle is not used");
                    (bundle, past)
                }
            };
            // Neither stored nor configured lists of authorities that are dropped keep the client from starting.
            (bundle, past, lists, Vec::new())
        }
    };
    let federation = with_lists(&bundle, past, held, fresh).map_err(|error| ClientError::Trust(error.into()))?;
    store(tx, &federation)?;
    Ok(federation)
}

/// The federation of a bundle with all of `fresh` and those of `held` that one of its authorities has signed: a bundle that
/// drops an authority makes nobody forget what the others have revoked.
fn with_lists(
    bundle: &VerifiedBundle,
    past: Past,
    held: Vec<Vec<u8>>,
    fresh: Vec<Vec<u8>>,
) -> Result<Federation, FederationError> {
    let mut droppable = held.len();
    let mut lists = [held, fresh].concat();
    loop {
        match Federation::new(bundle.clone(), lists.clone()) {
            Err(FederationError::ForeignRevocationList { index }) if index < droppable => {
                tracing::info!("a revocation list of no authority in the trust bundle is dropped");
                lists.remove(index);
                droppable -= 1;
            }
            made => return made?.with_past(past),
        }
    }
}

/// A bundle, what those before it listed, and revocation lists.
struct Stored {
    bundle: VerifiedBundle,
    past: Past,
    lists: Vec<Vec<u8>>,
}

fn stored(tx: &Transaction<'_>, roots: &RootKeys) -> Result<Option<Stored>, ClientError> {
    let Some(note) = tx.get(TRUST, BUNDLE)? else { return Ok(None) };
    let bundle = verify_bundle(roots, &note).map_err(|error| ClientError::Trust(error.into()))?;
    let lists = tx.get(TRUST, LISTS)?.map(|bytes| decode(&bytes)).transpose()?.unwrap_or_default();
    let past = tx.get(TRUST, PAST)?.map(|bytes| Past::from_bytes(&bytes)).transpose()?.unwrap_or_default();
    Ok(Some(Stored { bundle, past, lists }))
}

fn store(tx: &Transaction<'_>, federation: &Federation) -> Result<(), ClientError> {
    tx.put(TRUST, BUNDLE, &federation.bundle().note)?;
    tx.put(TRUST, PAST, &federation.past().to_bytes())?;
    let mut writer = Writer::new();
    for list in federation.revocation_lists() {
        writer.bytes(list);
    }
    Ok(tx.put(TRUST, LISTS, &writer.finish())?)
}

fn decode(bytes: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut lists = Vec::new();
    while !reader.is_empty() {
        lists.push(reader.bytes("revocation list", LIST_BYTES_MAX)?.to_vec());
    }
    Ok(lists)
}

/// Takes over what the gateway offers, if it is signed and follows what is in use; else tells the application.
pub(crate) async fn refresh(shared: &Shared, connection: &Connection) -> Result<(), ClientError> {
    let (_turn, roots) = (shared.refreshing.lock().await, &shared.roots);
    // Ends: every turn but the last takes over a bundle with a higher version, and each is signed by the root keys.
    loop {
        let current = shared.federation();
        let known_version = current.bundle().bundle.version;
        let offered = connection.trust(GetTrust { known_version }).await?;
        match successor(&current, roots, &offered, shared.clock.now()) {
            Ok(None) => return Ok(()),
            Ok(Some(federation)) => {
                let is_newest = federation.bundle().note == offered.trust_bundle;
                let federation = shared
                    .transaction(move |tx, _| {
                        store(tx, &federation)?;
                        Ok(federation)
                    })
                    .await?;
                shared.replace_federation(federation);
                if is_newest {
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "trust bundle refused");
                let event = Event::TrustRefused { reason: chain(&error) };
                shared.transaction(move |tx, _: &Mls| keep(tx, &event)).await?;
                shared.bells.ring(&News::Events);
                return Ok(());
            }
        }
    }
}

/// Tells the application, once, if the trust bundle or a revocation list is past its end.
pub(crate) async fn tell_if_expired(shared: &Shared) -> Result<(), ClientError> {
    let (federation, now) = (shared.federation(), shared.clock.now());
    if !federation.is_stale(now) {
        return Ok(());
    }
    let bundle_ends = federation.bundle().bundle.expires;
    let ended = federation.revocation_lists_expire().map_or(bundle_ends, |lists| lists.min(bundle_ends));
    let told = shared.transaction(move |tx, _| {
        let end = Writer::new().u64(ended.0).finish();
        if tx.get(TRUST, TOLD)?.as_ref() == Some(&end) {
            return Ok(false);
        }
        tx.put(TRUST, TOLD, &end)?;
        keep(tx, &Event::TrustExpired { ended })?;
        Ok(true)
    });
    if told.await? {
        tracing::warn!(?ended, "trust bundle or revocation lists have expired");
        shared.bells.ring(&News::Events);
    }
    Ok(())
}

/// The federation that follows, through the earlier bundles one by one: with the newest bundle, or with the last of the
/// earlier ones if more are between (the gateway gives a part at a time). `None` if nothing is new. `now` is when it was
/// offered.
fn successor(
    current: &Federation,
    roots: &RootKeys,
    offered: &Trust,
    now: Timestamp,
) -> Result<Option<Federation>, TrustError> {
    let newest = verify_bundle(roots, &offered.trust_bundle)?;
    let (mut bundle, mut past) = (current.bundle().clone(), current.past().clone());
    for note in &offered.earlier_bundles {
        let next = verify_bundle(roots, note)?;
        follows(&bundle, &next)?;
        past = past.moved_on(&bundle.bundle, &next.bundle);
        bundle = next;
    }
    let held: Vec<Vec<u8>> = current.revocation_lists().map(<[u8]>::to_vec).collect();
    match follows(&bundle, &newest) {
        Ok(()) => {
            past = past.moved_on(&bundle.bundle, &newest.bundle);
            bundle = newest;
        }
        Err(TrustError::Gap { .. }) if bundle.bundle.version > current.bundle().bundle.version => {
            // The lists are those of the newest bundle's authorities, and come with it.
            return Ok(Some(with_lists(&bundle, past, held, Vec::new())?));
        }
        Err(error) => return Err(error),
    }
    let lists = offered.revocation_lists.iter().map(|list| list.to_vec());
    let fresh: Vec<Vec<u8>> = lists.filter(|list| !held.contains(list)).collect();
    let past = past.given_out(offered.revocation_lists.iter().map(|list| &list[..]), now);
    if bundle.digest == current.bundle().digest && fresh.is_empty() && past == *current.past() {
        return Ok(None);
    }
    Ok(Some(with_lists(&bundle, past, held, fresh)?))
}

/// As [`VerifiedBundle::check_successor`]; a bundle that only lacks those before it is told apart from one of another chain.
fn follows(known: &VerifiedBundle, next: &VerifiedBundle) -> Result<(), TrustError> {
    match known.check_successor(next) {
        Err(BundleError::BrokenChain { have, found }) if found > have + 1 => Err(TrustError::Gap { have, found }),
        judged => Ok(judged?),
    }
}

#[cfg(test)]
mod tests;
