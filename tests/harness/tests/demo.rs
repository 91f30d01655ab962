//! The demo as a build server runs it.

use std::process::Command;

use serde_json::Value;

const STEPS: [&str; 14] = [
    "mint",
    "start",
    "create",
    "invite",
    "talk",
    "offline",
    "outsider",
    "refused",
    "revoked",
    "crash",
    "sdk-crash",
    "lost-reply",
    "heal",
    "plaintext",
];

#[test]
fn every_step_passes_and_the_last_line_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_lianxin-demo")).arg("--json").output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect();
    let (last, steps) = lines.split_last().expect("at least the last line");
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().expect("every step has a name")).collect();
    assert_eq!(names, STEPS, "{text}");
    assert!(steps.iter().all(|step| step["ok"] == true), "{text}");
    assert_eq!(*last, serde_json::json!({ "ok": true, "steps": 14 }));
    assert!(output.status.success());
}

#[test]
fn a_demo_that_cannot_go_on_says_so_in_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let alone = folder.path().join("lianxin-demo");
    std::fs::copy(env!("CARGO_BIN_EXE_lianxin-demo"), &alone).expect("copied");
    let output = Command::new(alone)
        .arg("--json")
        .env("LIANXIN_BINARIES_READY", "1")
        .output()
        .expect("it starts without a gateway");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.starts_with(r#"{"step":"mint","ok":false,"error":"#), "{text}");
    assert!(text.ends_with("{\"ok\":false,\"steps\":0}\n"), "{text}");
    assert!(!output.status.success());
}
