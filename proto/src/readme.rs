//! The tables in `README.md` are generated; this test fails when they differ and writes them when asked.

use std::fmt::Write as _;
use std::path::PathBuf;

use lianxin_types::LIMITS;

use crate::ROWS;

fn reasons() -> String {
    let mut table = String::from(
        "| code | number | gRPC | try again | meaning | what to do | 中文 |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let (number, again) = (row.code as i32, if row.try_again { "yes" } else { "no" });
        let (name, grpc) = (row.name(), format!("{:?}", row.grpc));
        let line = format!(
            "| `{name}` | {number} | {grpc} | {again} | {} | {} | {} |",
            row.meaning, row.what_to_do, row.chinese
        );
        writeln!(table, "{line}").expect("a string can be written");
    }
    table
}

fn limits() -> String {
    let mut table = String::from("| name | value | unit |\n|---|---|---|\n");
    for row in LIMITS.rows() {
        writeln!(table, "| `{}` | {} | {} |", row.name, row.value, row.unit).expect("a string can be written");
    }
    table
}

/// `text` with what stands between the marks of `name` replaced.
fn with_section(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->"));
    let (head, rest) = text.split_once(&begin).expect("README.md has the opening mark");
    let (_, tail) = rest.split_once(&end).expect("README.md has the closing mark");
    format!("{head}{begin}{table}{end}{tail}")
}

#[test]
fn the_tables_are_those_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let found = std::fs::read_to_string(&path).expect("README.md is there");
    let wanted = with_section(&with_section(&found, "reasons", &reasons()), "limits", &limits());
    if std::env::var_os("LIANXIN_BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("the repository can be written");
        return;
    }
    assert!(found == wanted, "proto/README.md is out of date: LIANXIN_BLESS=1 cargo test -p lianxin-proto readme");
}
