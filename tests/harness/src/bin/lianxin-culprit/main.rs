//! A member that means no good, for the demo: joins like everybody, then commits what no member can process.
//!
//! For: the step `heal` of the demo, which needs a culprit in a process of its own. It speaks the lines of `lianxin-app` as far as
//! it needs them (`open`, `accept`, `break`, `send`, `close`), and drives the SDK's engine by hand, because the SDK does not do
//! such things.

mod forge;
mod member;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use lianxin_harness::{Answer, Call, Joined, Opened, Refusal, Request, SentInfo};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::member::Member;

/// A department's application gone bad. Reads one JSON call per line, answers one JSON object per line.
#[derive(Debug, Parser)]
#[command(
    name = "lianxin-culprit",
    version,
    after_help = "Example:\n  {\"id\":1,\"call\":\"open\",\"federation\":\"federation\",\"department\":\"shenji\",\"app\":\"app-2\",\"state\":\"state\"}\n  {\"id\":2,\"call\":\"accept\"}\n  {\"id\":3,\"call\":\"break\",\"channel\":\"0a...\"}"
)]
struct CommandLine {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let CommandLine {} = CommandLine::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "lianxin-culprit: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Does one call after the other until `close` or the end of standard input.
async fn run() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut member = None;
    while let Some(line) = lines.next_line().await.context("read a call")? {
        let Request { id, call } = serde_json::from_str(&line).context("read a call")?;
        let is_last = matches!(call, Call::Close);
        let outcome = obey(&mut member, call).await;
        write(id, outcome)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

async fn obey(member: &mut Option<Member>, call: Call) -> anyhow::Result<Value> {
    if let Call::Open { federation, department, app, state, .. } = call {
        let opened = Member::open(&federation, &department, &app, &state).await?;
        let device = opened.device().to_owned();
        *member = Some(opened);
        return result(Opened { device });
    }
    let member = member.as_mut().context("open it first")?;
    match call {
        Call::Connected | Call::Close => result(Value::Object(serde_json::Map::new())),
        Call::Accept => result(Joined { channel: member.join().await?.to_hex() }),
        Call::Break { .. } => {
            let receipt = member.break_channel().await?;
            result(SentInfo { sequence: receipt.sequence.0, leaf_index: receipt.leaf_index })
        }
        Call::Send { text, .. } => {
            let receipt = member.send(&text).await?;
            result(SentInfo { sequence: receipt.sequence.0, leaf_index: receipt.leaf_index })
        }
        other => anyhow::bail!("a culprit does not do this: {other:?}"),
    }
}

fn result(value: impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(value)?)
}

fn write(id: u64, outcome: anyhow::Result<Value>) -> anyhow::Result<()> {
    let answer = match outcome {
        Ok(result) => Answer { id, ok: true, result, refusal: None },
        Err(error) => {
            let refusal = error.downcast::<Refusal>();
            let refusal =
                refusal.unwrap_or_else(|error| Refusal { reason: "Failed".to_owned(), error: format!("{error:#}") });
            Answer { id, ok: false, result: Value::Null, refusal: Some(refusal) }
        }
    };
    let line = serde_json::to_string(&answer)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
