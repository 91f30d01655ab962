//! Tells what happens: a few lines for people, or one JSON object per step.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lianxin_types::{Clock as _, Monotonic, SystemClock};
use serde_json::{Map, Value, json};

/// The steps, in their order, with their Chinese names.
pub(crate) const STEPS: [(&str, &str); 14] = [
    ("mint", "铸造联邦"),
    ("start", "启动网关"),
    ("create", "建立通道"),
    ("invite", "邀请成员"),
    ("talk", "双向对话"),
    ("offline", "离线补收"),
    ("outsider", "拒绝外人"),
    ("refused", "拒绝未列名"),
    ("revoked", "吊销设备"),
    ("crash", "强杀网关"),
    ("sdk-crash", "强杀应用"),
    ("lost-reply", "回执丢失"),
    ("heal", "坏提交自愈"),
    ("plaintext", "搜查明文"),
];

/// Whom the narrator speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// A program.
    Json,
    /// People; with a line in progress that is overwritten.
    Terminal,
    /// People who read a file: finished lines only.
    Quiet,
}

impl Voice {
    pub(crate) fn people() -> Self {
        if std::io::stdout().is_terminal() { Self::Terminal } else { Self::Quiet }
    }
}

/// What a step has to tell.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    chinese: String,
    english: String,
    facts: Map<String, Value>,
    lines: Vec<String>,
}

impl Telling {
    pub(crate) fn new(chinese: impl Into<String>, english: impl Into<String>) -> Self {
        Self { chinese: chinese.into(), english: english.into(), ..Self::default() }
    }

    /// With a figure for programs.
    pub(crate) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// With a line of its own below, for people.
    pub(crate) fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }
}

/// Speaks, and counts the steps.
#[derive(Debug)]
pub(crate) struct Narrator {
    voice: Voice,
    start: Monotonic,
    done: usize,
    /// The step under way.
    current: Option<&'static str>,
}

impl Narrator {
    pub(crate) fn new(voice: Voice) -> Self {
        let narrator = Self { voice, start: SystemClock.monotonic(), done: 0, current: None };
        narrator.tell("廉信 Lianxin：部门之间互通，网关看不到内容 · departments talk, the gateway cannot read\n");
        narrator
    }

    /// Does one step and tells how it went.
    pub(crate) async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<(T, Telling)>>,
    ) -> anyhow::Result<T> {
        debug_assert_eq!(STEPS.get(self.done).map(|step| step.0), Some(name), "steps come in their order");
        let chinese = STEPS.get(self.done).map_or(name, |step| step.1);
        let start = SystemClock.monotonic();
        self.current = Some(name);
        if self.voice == Voice::Terminal {
            print(&format!("  … {:>2}/{} {chinese} · {name}", self.done + 1, STEPS.len()));
        }
        let (value, telling) = work.await?;
        let seconds = SystemClock.monotonic().since(start).as_secs_f64();
        self.done += 1;
        self.current = None;
        if self.voice == Voice::Json {
            let mut facts = telling.facts;
            facts.insert("seconds".to_owned(), json!((seconds * 1000.0).round() / 1000.0));
            print_line(&object(name, true, facts));
        } else {
            let overwrite = if self.voice == Voice::Terminal { "\r\x1b[2K" } else { "" };
            let Telling { chinese: told, english, lines, .. } = telling;
            print_line(&format!("{overwrite}  ✓ {:>2}/{} {name:<10} {chinese}：{told}", self.done, STEPS.len()));
            print_line(&format!("          {english} ({seconds:.1} s)"));
            lines.iter().for_each(|line| print_line(&format!("            {line}")));
        }
        Ok(value)
    }

    /// A line for people.
    pub(crate) fn tell(&self, line: &str) {
        if self.voice != Voice::Json {
            print_line(line);
        }
    }

    /// The last words.
    pub(crate) fn end(self, outcome: anyhow::Result<()>) -> ExitCode {
        let seconds = SystemClock.monotonic().since(self.start).as_secs_f64();
        let error = outcome.err().map(|error| format!("{error:#}"));
        match (self.voice, error) {
            (Voice::Json, error) => {
                if let (Some(error), Some(name)) = (&error, self.current) {
                    print_line(&object(name, false, Map::from_iter([("error".to_owned(), json!(error))])));
                }
                print_line(&json!({ "ok": error.is_none(), "steps": self.done }).to_string());
                exit_code(error.is_none())
            }
            (_, Some(error)) => {
                let name = self.current.unwrap_or("demo");
                print_line(&format!("\n  ✗ {name}: {error}"));
                print_line("  演示失败 · the demo has failed; `cargo demo --keep` keeps its folder with all logs");
                exit_code(false)
            }
            (_, None) => {
                let done = self.done;
                print_line(&format!("\n{done} 步全部通过 · all {done} steps passed ({seconds:.0} s)"));
                exit_code(true)
            }
        }
    }
}

fn exit_code(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `step` and `ok` first, then the facts.
fn object(step: &str, ok: bool, facts: Map<String, Value>) -> String {
    let facts = Value::Object(facts).to_string();
    let rest = facts.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    format!("{{\"step\":{},\"ok\":{ok}{comma}{rest}", Value::from(step))
}

fn print(text: &str) {
    let mut stdout = std::io::stdout();
    // A closed pipe is the reader's wish.
    drop(write!(stdout, "{text}"));
    drop(stdout.flush());
}

fn print_line(line: &str) {
    print(&format!("{line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_object_that_begins_with_its_name() {
        assert_eq!(object("mint", true, Map::new()), r#"{"step":"mint","ok":true}"#);
        let facts = Map::from_iter([("error".to_owned(), json!("a \"b\""))]);
        let text = object("talk", false, facts);
        assert!(text.starts_with(r#"{"step":"talk","ok":false,"error":"#), "{text}");
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    #[tokio::test]
    async fn a_failed_step_is_not_counted() {
        let mut narrator = Narrator::new(Voice::Json);
        let failed = narrator.step::<()>("mint", async { anyhow::bail!("no disk") }).await;
        assert!(failed.is_err());
        assert_eq!((narrator.done, narrator.current), (0, Some("mint")));
    }
}
