//! `METRICS.md` and `alerts.yml` say what the table says; this test fails when they do not, and writes the document when asked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use lianxin_proto::{ROWS, ReasonRow};
use lianxin_transport::RefusalReason;
use saphyr::{LoadableYamlNode as _, Yaml};

use super::table::METRICS;
use crate::readiness::Reason;

const ALERTS: &str = include_str!("../../alerts.yml");

struct Alert {
    name: String,
    expression: String,
    lasts: String,
    severity: String,
    /// `summary`, `summary_zh`, `what_to_do`, `what_to_do_zh`.
    texts: [String; 4],
}

#[test]
fn the_document_has_the_tables_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("METRICS.md");
    let found = std::fs::read_to_string(&path).expect("METRICS.md is there");
    let sections = [("readiness", readiness()), ("metrics", metrics()), ("alerts", alert_table())];
    let wanted = sections.iter().fold(found.clone(), |text, (name, table)| with_section(&text, name, table));
    if std::env::var_os("LIANXIN_BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("the repository can be written");
        return;
    }
    assert!(
        found == wanted,
        "gateway/METRICS.md is out of date: LIANXIN_BLESS=1 cargo test -p lianxin-gateway document"
    );
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    let mut seen = BTreeSet::new();
    for row in METRICS {
        let family = row.family();
        assert!(family.starts_with("lianxin_") || family.starts_with("process_"), "{family}");
        assert!(
            family.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{family}"
        );
        // The exposition adds it to counters, and a gauge that ends so would be taken for one.
        assert!(!family.ends_with("_total"), "{family}");
        assert!(row.help.ends_with('.') && !row.help.contains('\n') && !row.help.contains('|'), "{}", row.help);
        assert!(!row.chinese.is_ascii(), "{family} has no Chinese text");
        assert!(seen.insert(family.clone()), "{family} is there twice");
    }
}

#[test]
fn an_alert_names_only_what_is_exported() {
    let alerts = alerts(ALERTS);
    assert!(alerts.len() >= 10, "the rules are read: {}", alerts.len());
    let mut names = BTreeSet::new();
    for alert in &alerts {
        assert_eq!(unknown_in(&alert.expression), Vec::<String>::new(), "{}: {}", alert.name, alert.expression);
        assert!(!selected_by(&alert.expression).is_empty(), "{} looks at no metric", alert.name);
        assert!(["critical", "warning"].contains(&alert.severity.as_str()), "{}: {}", alert.name, alert.severity);
        for (text, is_chinese) in alert.texts.iter().zip([false, true, false, true]) {
            let has_chinese = text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter));
            assert!(!text.is_empty() && has_chinese == is_chinese, "{}: {text}", alert.name);
        }
        assert!(names.insert(&alert.name), "{} is there twice", alert.name);
    }
}

#[test]
fn a_rule_with_a_wrong_name_or_reason_is_seen() {
    for (expression, wrong) in [
        ("lianxin_zone_writeable == 0", "lianxin_zone_writeable"),
        ("rate(lianxin_messages_accepted[5m]) > 0", "lianxin_messages_accepted"),
        ("up == 0 and on (job) lianxin_connections", "up"),
        ("rate(lianxin_refusals_total{reason=\"INTERNALS\"}[5m]) > 0", "INTERNALS"),
        ("lianxin_commit_duration_seconds > 1", "lianxin_commit_duration_seconds"),
        ("sum without (reason) (rate(lianxin_refusals[5m])) > 1e3", "lianxin_refusals"),
    ] {
        assert_eq!(unknown_in(expression), [wrong], "{expression}");
    }
    let good =
        "sum by (reason) (rate(lianxin_refusals_total{reason=~\".+\", version!=\"x y\"}[5m] offset 1h)) > 2.5e-1";
    assert_eq!(unknown_in(good), Vec::<String>::new());
}

fn readiness() -> String {
    let mut table = String::from("| reason | weight | meaning |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let weight = if reason.is_against() { "not ready" } else { "warning" };
        writeln!(table, "| `{}` | {weight} | {} |", reason.word(), reason.text()).expect("a string can be written");
    }
    table
}

fn metrics() -> String {
    let mut table = String::from("| name | kind | unit | label | meaning | 含义 |\n|---|---|---|---|---|---|\n");
    for row in METRICS {
        let names = match row.sample_names().as_slice() {
            [only] => format!("`{only}`"),
            _ => format!("`{}` (`_bucket`, `_sum`, `_count`)", row.family()),
        };
        let (kind, unit, label) = (row.kind.as_str(), row.unit.unwrap_or(""), row.label.unwrap_or(""));
        writeln!(table, "| {names} | {kind} | {unit} | {label} | {} | {} |", row.help, row.chinese)
            .expect("a string can be written");
    }
    table
}

fn alert_table() -> String {
    let mut table = String::from("| alert | severity | lasts | fires when | 触发条件 |\n|---|---|---|---|---|\n");
    for alert in alerts(ALERTS) {
        let [summary, chinese, ..] = alert.texts.map(|text| text.replace("{{ $labels.instance }}", "…"));
        let Alert { name, severity, lasts, .. } = alert;
        writeln!(table, "| `{name}` | {severity} | {lasts} | {summary} | {chinese} |")
            .expect("a string can be written");
    }
    table
}

/// `text` with what stands between the marks of `name` replaced.
fn with_section(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->"));
    let (head, rest) = text.split_once(&begin).expect("METRICS.md has the opening mark");
    let (_, tail) = rest.split_once(&end).expect("METRICS.md has the closing mark");
    format!("{head}{begin}{table}{end}{tail}")
}

/// The rules of a file, in its order. A rule with a key that Prometheus does not know, or without one that we want, panics.
fn alerts(text: &str) -> Vec<Alert> {
    let documents = Yaml::load_from_str(text).expect("alerts.yml is YAML");
    let [document] = documents.as_slice() else { panic!("alerts.yml is one document") };
    let groups = document["groups"].as_vec().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_vec().expect("rules of a group"));
    rules.map(alert).collect()
}

fn alert(rule: &Yaml<'_>) -> Alert {
    let text = |node: &Yaml<'_>| node.as_str().expect("a text").to_owned();
    for (key, _) in rule.as_mapping().expect("a rule is a mapping") {
        let key = text(key);
        assert!(["alert", "expr", "for", "labels", "annotations"].contains(&key.as_str()), "{key} is no key of a rule");
    }
    let texts = &rule["annotations"];
    Alert {
        name: text(&rule["alert"]),
        expression: text(&rule["expr"]),
        lasts: rule.as_mapping_get("for").map_or_else(|| "at once".to_owned(), text),
        severity: text(&rule["labels"]["severity"]),
        texts: ["summary", "summary_zh", "what_to_do", "what_to_do_zh"].map(|key| text(&texts[key])),
    }
}

/// Metrics that an expression names and no gateway exports, and reasons that it asks for and no gateway has.
fn unknown_in(expression: &str) -> Vec<String> {
    let exported: BTreeSet<String> = METRICS.iter().flat_map(|row| row.sample_names()).collect();
    let reasons: BTreeSet<&str> =
        ROWS.iter().map(ReasonRow::name).chain(RefusalReason::CODES.iter().copied()).collect();
    let metrics = selected_by(expression).into_iter().filter(|name| !exported.contains(name));
    let asked = expression.split("reason=\"").skip(1).filter_map(|rest| rest.split('"').next());
    metrics.chain(asked.filter(|reason| !reasons.contains(reason)).map(str::to_owned)).collect()
}

/// The metrics that an expression selects: every word that is no number, function, operator or label.
fn selected_by(expression: &str) -> Vec<String> {
    const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"];
    const LABELS_FOLLOW: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
    let bare = without_selectors(expression);
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':' || letter == '.';
    let (mut found, mut rest) = (Vec::new(), bare.as_str());
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let (word, behind) = rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()));
        // A function's or an aggregation's name; `sum by (x) (…)` names its labels in between.
        let opens =
            ["(", "by ", "by(", "without ", "without("].iter().any(|next| behind.trim_start().starts_with(next));
        rest = behind;
        if LABELS_FOLLOW.contains(&word) && opens {
            rest = behind.split_once(')').map_or("", |(_, behind)| behind);
        } else if !opens
            && !WORDS.contains(&word.to_lowercase().as_str())
            && !word.starts_with(|first: char| first.is_ascii_digit())
        {
            found.push(word.to_owned());
        }
    }
    found
}

/// An expression without what stands in braces, brackets and quotes.
fn without_selectors(expression: &str) -> String {
    let (mut bare, mut closing) = (String::new(), Vec::new());
    for letter in expression.chars() {
        match (closing.last(), letter) {
            (Some(close), letter) if *close == letter => drop(closing.pop()),
            (Some('"'), _) => {}
            (_, '"') => closing.push('"'),
            (_, '{') => closing.push('}'),
            (_, '[') => closing.push(']'),
            (None, letter) => bare.push(letter),
            (Some(_), _) => {}
        }
    }
    bare
}
