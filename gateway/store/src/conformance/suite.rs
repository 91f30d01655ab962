//! The list of what is run, and what an engine's tests must bring.

use std::sync::Arc;

use lianxin_types::Clock;

use super::{drops, edges, forgetting, incarnations, packages, random, removals, replaced, reports, stories, storm};
use crate::zone::ZoneOptions;
use crate::zone_store::{StoreError, ZoneStore};

/// A place where one zone can be opened again and again.
pub trait Home {
    /// Opens the zone; every earlier handle has been dropped.
    ///
    /// # Errors
    /// What the engine says.
    fn open(&self, clock: Arc<dyn Clock>, options: ZoneOptions) -> Result<Arc<dyn ZoneStore>, StoreError>;

    /// Loses the state while the zone is closed: the next open has only the journal.
    fn lose_state(&self);

    /// All rows of the closed zone's state, keys and values, ascending.
    fn state_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)>;

    /// Looks for what must never lie in the closed zone, for example files beside the database.
    ///
    /// # Errors
    /// What was found.
    fn inspect(&self) -> Result<(), String>;
}

/// A story over an empty place.
type Story<H> = fn(&H);

/// Runs the whole suite; each part gets an empty place from `fresh`.
///
/// # Panics
/// If the engine does not conform.
pub fn run<H: Home>(fresh: impl Fn() -> H) {
    let stories: &[(&str, Story<H>)] = &[
        ("a channel starts once and orders its events", stories::a_channel_orders_its_events),
        ("refusals come in their order", stories::refusals_come_in_their_order),
        ("a repeat is answered and an id cannot be reused", stories::a_repeat_is_answered),
        ("heads are compared by position", stories::heads_are_compared_by_position),
        ("a leaver is silent until it is unseated", stories::a_leaver_is_silent),
        ("commits and proposals meet the proposals they were verified with", stories::proposals_are_compared),
        (
            "a removal silences its device and stops all messages until it is committed",
            removals::a_removal_stops_messages,
        ),
        ("what follows an event stands behind it or is not there", removals::followers_stand_behind_their_unit),
        ("all channels are listed in pages", removals::all_channels_in_pages),
        ("the next group carries the channel on", incarnations::the_next_group_carries_the_channel_on),
        (
            "who is awaited starts another group as long as nobody is seated",
            incarnations::who_is_awaited_starts_another_group_as_long_as_nobody_is_seated,
        ),
        ("a report pauses a committer until it is allowed", reports::a_report_pauses_a_committer),
        ("pages keep their bounds across buckets", stories::pages_keep_their_bounds),
        ("welcomes wait in inboxes", stories::welcomes_wait_in_inboxes),
        ("lazy writes only go up", stories::lazy_writes_only_go_up),
        ("time and buckets never go back", stories::time_and_buckets_never_go_back),
        ("the tail shows every event in order", stories::the_tail_is_in_order),
        ("a device has at most its channels", stories::a_device_has_at_most_its_channels),
        ("key packages are claimed oldest first", packages::claimed_oldest_first),
        ("a claim is all or nothing and answers its repeat", packages::all_or_nothing),
        ("unused claims are bounded and end", packages::unused_claims_are_bounded_and_end),
        ("a group info is replaced in its epoch only", stories::group_info_is_replaced_in_its_epoch),
        ("proposals end with their epoch", stories::proposals_end_with_their_epoch),
        ("a device has at most its key packages", packages::at_most_the_limit),
        ("claims are exactly once under contention", storm::claims_are_exactly_once),
        ("one commit wins an epoch", storm::one_commit_wins_an_epoch),
        ("group views and infos are read whole while they change", replaced::views_and_group_info_are_read_whole),
        ("welcomes and packages are read whole while they go", replaced::welcomes_and_packages_are_read_whole),
        ("batches and repeats cross edges of buckets", edges::batches_and_repeats_cross_edges),
        ("calls are known for thirty days and no longer", forgetting::calls_are_known_for_thirty_days),
        ("accepted bytes of past epochs go", forgetting::accepted_bytes_of_past_epochs_go),
        ("buckets end and the rest stays", drops::buckets_end_and_the_rest_stays),
        ("a view that is behind keeps its buckets", drops::a_view_that_is_behind_keeps_its_buckets),
        ("what a claim took outlives its bucket", drops::what_a_claim_took_outlives_its_bucket),
        ("a snapshot is of one moment", drops::a_snapshot_is_of_one_moment),
        ("random units do what the model says", random::units_do_what_the_model_says),
    ];
    for (name, story) in stories {
        tracing::info!(story = *name, "conformance");
        let home = fresh();
        story(&home);
        if let Err(found) = home.inspect() {
            panic!("{name}: {found}");
        }
    }
}

/// The seed of a random test: `LIANXIN_TEST_SEED` replays one, else it is fixed. It is in the text of every failure.
///
/// # Panics
/// If the variable is not a number.
pub fn seed() -> u64 {
    let text = std::env::var("LIANXIN_TEST_SEED").ok();
    text.map_or(20_261_123, |text| text.parse().expect("LIANXIN_TEST_SEED is a decimal number"))
}

/// `quick`, or twenty times as many under `LIANXIN_TEST_LONG=1`.
pub fn times(quick: usize) -> usize {
    if std::env::var("LIANXIN_TEST_LONG").is_ok_and(|long| long == "1") { quick * 20 } else { quick }
}
