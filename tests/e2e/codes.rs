//! The table of reason codes has no untested row (PROTOCOL 7): for every code the story that provokes it over TLS and looks for
//! its audit record. A new code without its row here turns this red, and so does a story that does not name its code any more.
//! The rest of the file provokes the codes that no other subject does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lianxin_proto::{ROWS, ReasonCode as R};
use lianxin_trust::Usage;
use lianxin_types::{ChannelId, Clock as _, Sequence, SystemClock, ZoneId};

use crate::forge::Forger;
use crate::raw::{RawDevice, fresh_id};
use crate::refusals::{assert_recorded, assert_refused};
use crate::talk::soon;
use crate::zone::Zone;

/// The files of the stories.
const FILES: &[(&str, &str)] = &[
    ("attacks", include_str!("attacks.rs")),
    ("closing", include_str!("closing.rs")),
    ("codes", include_str!("codes.rs")),
    ("conversation", include_str!("conversation.rs")),
    ("coverage", include_str!("coverage.rs")),
    ("full_disk", include_str!("full_disk.rs")),
    ("handshakes", include_str!("handshakes.rs")),
    ("key_packages", include_str!("key_packages.rs")),
    ("limits", include_str!("limits.rs")),
    ("operation", include_str!("operation.rs")),
    ("quarantine", include_str!("quarantine.rs")),
    ("races", include_str!("races.rs")),
    ("refusals", include_str!("refusals.rs")),
    ("rejoin", include_str!("rejoin.rs")),
    ("removals", include_str!("removals.rs")),
    ("renewals", include_str!("renewals.rs")),
    ("reports", include_str!("reports.rs")),
];

/// Where a code is provoked.
#[derive(Debug, Clone, Copy)]
enum Provoked {
    /// By this story of this file, which names the code and then its audit record.
    By(&'static str, &'static str),
    /// By the table of calls in `coverage.rs`, which compares its codes with the audit log one by one.
    ByTheTableOfCalls,
    /// With the connection, before any call: TLS says it with an alert, the audit log with this word.
    AtTheDoor(&'static str),
    /// By this story, and no record says so, for a reason.
    Unrecorded(&'static str, &'static str, &'static str),
    /// By nothing that a caller can do.
    Never(&'static str),
}

use Provoked::{AtTheDoor, By, ByTheTableOfCalls, Never, Unrecorded};

const TABLE: &[(R, Provoked)] = &[
    (R::UpgradeRequired, ByTheTableOfCalls),
    (R::WrongKind, AtTheDoor("certificate_wrong_kind")),
    (
        R::CertificateRevoked,
        By("closing", "silent_streams_of_a_revoked_device_end_at_once_with_the_reason_and_so_does_its_connection"),
    ),
    (R::CertificateExpired, By("races", "a_certificate_that_ends_while_connected_ends_the_callers_rights")),
    (R::Malformed, ByTheTableOfCalls),
    (R::TooLarge, By("codes", "what_is_too_large_is_recorded")),
    (
        R::ResourceExhausted,
        By("limits", "a_device_has_sixteen_streams_each_way_over_all_its_connections_and_not_one_more"),
    ),
    (
        R::ZoneUnavailable,
        Unrecorded(
            "quarantine",
            "a_damaged_zone_is_closed_until_it_is_restored_and_the_gateway_lives_on",
            "the zone whose log would hold it is closed",
        ),
    ),
    (
        R::ShuttingDown,
        Unrecorded(
            "operation",
            "told_to_stop_it_tells_its_streams_ends_well_and_says_so_in_the_audit_log",
            "the end of the process has its own record",
        ),
    ),
    (R::Internal, Never("it stands for a fault of ours: the mutants and the attacks fail if anybody sees it")),
    (R::IdReused, By("refusals", "a_repeat_gets_the_same_receipt_and_other_bytes_or_another_id_get_none")),
    (R::BehindRefused, By("refusals", "order_is_kept_after_a_refusal_and_the_loser_of_an_epoch_goes_on_from_there")),
    (
        R::TrustChanged,
        Unrecorded(
            "closing",
            "a_new_bundle_ends_receive_streams_and_the_sdk_comes_back_with_it",
            "the new bundle has its own record, and nothing was refused",
        ),
    ),
    (R::TooSlow, By("attacks", "a_reader_that_does_not_read_is_ended_with_its_reason_and_holds_nobody_up")),
    (R::DiskFull, By("full_disk", "a_full_disk_is_refused_by_name_and_survived")),
    (R::ChannelNotAvailable, ByTheTableOfCalls),
    (R::ChannelExists, By("refusals", "a_repeat_gets_the_same_receipt_and_other_bytes_or_another_id_get_none")),
    (R::ChannelExpired, By("refusals", "a_channel_ends_with_its_label")),
    (R::NotMember, By("refusals", "who_is_leaving_says_nothing_more_and_is_not_forgotten")),
    (R::WrongEpoch, By("refusals", "order_is_kept_after_a_refusal_and_the_loser_of_an_epoch_goes_on_from_there")),
    (R::PendingRemoves, By("refusals", "who_is_leaving_says_nothing_more_and_is_not_forgotten")),
    (R::BadHead, By("refusals", "a_head_that_the_journal_does_not_have_is_refused")),
    (R::Duplicate, By("refusals", "a_repeat_gets_the_same_receipt_and_other_bytes_or_another_id_get_none")),
    (R::Leaving, By("refusals", "who_is_leaving_says_nothing_more_and_is_not_forgotten")),
    (R::CommitterPaused, By("reports", "a_false_report_is_refused_and_a_true_one_counts_once_until_the_owner_allows")),
    (R::UnknownCommit, By("reports", "a_false_report_is_refused_and_a_true_one_counts_once_until_the_owner_allows")),
    (R::NotOwner, By("reports", "a_false_report_is_refused_and_a_true_one_counts_once_until_the_owner_allows")),
    (R::InvalidMls, ByTheTableOfCalls),
    (R::InvalidCommit, By("rejoin", "nobody_comes_back_who_has_no_leaf_or_another_key_or_wants_more_than_that")),
    (
        R::InvalidGroupInfo,
        By("rejoin", "a_wrong_group_info_is_noticed_and_replaced_by_a_member_and_the_way_back_is_good_again"),
    ),
    (R::InvalidContext, By("codes", "a_channel_starts_only_where_and_with_whom_the_bundle_says")),
    (R::SenderMismatch, By("refusals", "nobody_speaks_for_another")),
    (
        R::InvalidCredential,
        By("key_packages", "a_key_package_is_its_owners_own_and_lives_84_days_at_most_wherever_it_turns_up"),
    ),
    (R::CredentialExpired, By("codes", "a_credential_that_has_ended_or_was_revoked_seats_nobody")),
    (R::CredentialRevoked, By("codes", "a_credential_that_has_ended_or_was_revoked_seats_nobody")),
    (
        R::InvalidKeyPackage,
        By("key_packages", "a_key_package_is_its_owners_own_and_lives_84_days_at_most_wherever_it_turns_up"),
    ),
    (R::KeyPackageNotClaimed, By("refusals", "a_commit_bundle_is_taken_whole_and_sound_or_not_at_all")),
    (R::NoKeyPackage, By("refusals", "a_commit_bundle_is_taken_whole_and_sound_or_not_at_all")),
    (R::ProposalNotAllowed, By("rejoin", "nobody_comes_back_who_has_no_leaf_or_another_key_or_wants_more_than_that")),
    (R::InvalidWelcome, By("refusals", "a_commit_bundle_is_taken_whole_and_sound_or_not_at_all")),
    (R::DepartmentNotNamed, By("codes", "a_channel_starts_only_where_and_with_whom_the_bundle_says")),
    (R::DepartmentUnknown, By("codes", "a_channel_starts_only_where_and_with_whom_the_bundle_says")),
    (R::ZoneNotHere, By("codes", "a_channel_starts_only_where_and_with_whom_the_bundle_says")),
    (R::LimitReached, By("key_packages", "a_claim_is_for_one_channel_and_a_department_hoards_none")),
    (R::IssuerAway, By("renewals", "without_an_issuer_a_renewal_is_refused_and_tried_again")),
    (R::RenewalRefused, By("renewals", "what_the_issuer_refuses_is_refused_with_its_reason_in_the_log")),
    (R::UnknownRenewal, By("renewals", "an_issuer_answers_its_own_department_and_only_what_waits")),
];

#[test]
fn every_reason_code_is_provoked_by_a_story_that_looks_for_its_record() {
    let listed: BTreeSet<i32> = TABLE.iter().map(|(code, _)| *code as i32).collect();
    let sent: BTreeSet<i32> = ROWS.iter().map(|row| row.code as i32).collect();
    assert_eq!(listed, sent, "every code that can be sent has its row here, once");
    assert_eq!(listed.len(), TABLE.len());
    for (code, provoked) in TABLE {
        let variant = format!("{code:?}");
        let word = code.as_str_name().trim_start_matches("REASON_CODE_");
        let (named, recorded) = match provoked {
            By(file, story) => {
                let text = story_text(file, story);
                (names(&text, &variant), records(&text, &variant, word))
            }
            Unrecorded(file, story, why) => (names(&story_text(file, story), &variant), !why.is_empty()),
            ByTheTableOfCalls => {
                (names(&function_text("coverage", "refuse"), &variant) || variant == "Malformed", true)
            }
            AtTheDoor(word) => {
                let story = "each_bad_certificate_is_refused_with_its_own_reason_and_recorded";
                (story_text("handshakes", story).contains(&format!("\"{word}\"")), true)
            }
            Never(why) => (!why.is_empty(), *code == R::Internal),
        };
        assert!(named, "{code:?} is not named by {provoked:?}");
        assert!(recorded, "{provoked:?} does not look for the record of {code:?}");
    }
}

fn names(text: &str, variant: &str) -> bool {
    text.contains(&format!("ReasonCode::{variant}")) || text.contains(&format!("R::{variant}"))
}

/// Whether the end of the story, behind the gateway's end, names the code again: as a code or as the word in the record.
fn records(text: &str, variant: &str, word: &str) -> bool {
    let looks = ["assert_recorded(", "shared_bodies()", "audit("].iter().filter_map(|look| text.find(look)).min();
    looks.is_some_and(|from| names(&text[from..], variant) || text[from..].contains(&format!("\"{word}\"")))
}

/// The text of a story, which must be one that runs.
fn story_text(file: &str, story: &str) -> String {
    let whole = FILES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text);
    let whole = whole.unwrap_or_else(|| panic!("{file}.rs is not among the files"));
    let at = whole.find(&format!("fn {story}()")).unwrap_or_else(|| panic!("{file}.rs has no story {story}"));
    let before = &whole[..at];
    let attribute = before.rfind("#[tokio::test").unwrap_or_else(|| panic!("{story} is no test"));
    assert!(before[attribute..].lines().count() <= 2, "{story} is no test");
    function_text(file, story)
}

fn function_text(file: &str, function: &str) -> String {
    let whole = FILES.iter().find(|(name, _)| *name == file).expect("checked before").1;
    let at = whole.find(&format!("fn {function}(")).unwrap_or_else(|| panic!("{file}.rs has no {function}"));
    let text = &whole[at..];
    // A function at the margin ends with the first brace at the margin.
    text[..text.find("\n}").map_or(text.len(), |end| end + 2)].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_starts_only_where_and_with_whom_the_bundle_says() {
    let zone = Zone::start().await;
    let mut jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let label = crate::talk::label;
    let own = zone.minted.bundle().expect("verifies").bundle.zones[0].id.clone();

    let start = jiwei.start(ChannelId([1; 16]), &["jiwei", "wuming"], label()).await;
    assert_refused(&jiwei.create(&start, fresh_id()).await, R::DepartmentUnknown);

    // A client that has a bundle which the gateway does not have: the zone in it is unknown here.
    let other: ZoneId = "cn-zj-2".parse().expect("well formed");
    let second = other.clone();
    let succeeded = zone.minted.succeed(move |bundle| {
        let twin = lianxin_trust::Zone { id: second, ..bundle.zones[0].clone() };
        bundle.zones.push(twin);
    });
    succeeded.expect("a bundle with two zones");
    jiwei.federation = Arc::new(zone.minted.federation().expect("verifies"));
    let elsewhere = jiwei.start_in(ChannelId([2; 16]), other, &["jiwei"], label()).await;
    assert_refused(&jiwei.create(&elsewhere, fresh_id()).await, R::InvalidContext);
    zone.reload().await.expect("the gateway has it, too");
    jiwei.reconnect(&zone, "jiwei", "app-1").await;
    assert_refused(&jiwei.create(&elsewhere, fresh_id()).await, R::ZoneNotHere);

    // A creator whose own department is not among those that it names.
    let app = zone.app("jiwei", "app-1");
    let forger = Forger::new(&app.mls_certificate, &app.mls_key);
    let federation = Arc::clone(&jiwei.federation);
    let alone = forger.start(&federation, ChannelId([3; 16]), &own, &["shenji"]);
    assert_refused(&jiwei.create(&alone, fresh_id()).await, R::DepartmentNotNamed);

    for channel in [[1; 16], [2; 16], [3; 16]].map(ChannelId) {
        let wanted = lianxin_proto::messages::History { channel, after: Sequence(0), events_max: 1 };
        soon("an answer", jiwei.connection.history(wanted)).await.expect_err("nothing has started");
    }
    drop(jiwei);
    assert_recorded(zone, &[R::DepartmentUnknown, R::InvalidContext, R::ZoneNotHere, R::DepartmentNotNamed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_has_ended_or_was_revoked_seats_nobody() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    let month_ago = zone.minted.at(SystemClock.now().minus(Duration::from_secs(40 * 24 * 3_600)));
    let (old, old_key) = month_ago.mint_mls_again("shenji", "app-1").expect("minted");
    let ended = Forger::new(&old, &old_key).key_package(24 * 3_600);
    let (lost, lost_key) = zone.minted.mint_mls_again("shenji", "app-1").expect("minted");
    let revoked = Forger::new(&lost, &lost_key).key_package(24 * 3_600);
    zone.revoke(&lost, Usage::Mls);
    zone.reload().await.expect("the list is read");
    let app = zone.app("jiwei", "app-1");
    let head = jiwei.view(channel).await.head;
    for (package, expect) in [(ended, R::CredentialExpired), (revoked, R::CredentialRevoked)] {
        assert_refused(&shenji.publish(vec![package.clone().into()]).await, expect);
        let hostile = Forger::new(&app.mls_certificate, &app.mls_key);
        let bundle = jiwei.without_trace(move |tx| hostile.commit(tx, channel, head, &[package.into()])).await;
        assert_refused(&jiwei.commit(channel, &bundle, fresh_id()).await, expect);
    }
    assert_eq!(soon("a count", shenji.connection.count()).await.expect("counted").one_time, 0);
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 1, "nothing of it is in the log");
    drop((jiwei, shenji));
    assert_recorded(zone, &[R::CredentialExpired, R::CredentialRevoked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_recorded() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei"]).await;
    let long = vec![0; lianxin_types::LIMITS.message_mls_bytes_max + 1];
    assert_refused(&jiwei.send(channel, &[(fresh_id(), long.into())]).await[0], R::TooLarge);
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 1, "nothing of it is in the log");
    drop(jiwei);
    assert_recorded(zone, &[R::TooLarge]).await;
}
