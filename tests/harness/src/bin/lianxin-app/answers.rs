//! Outcomes as lines.

use std::error::Error;
use std::io::Write as _;

use lianxin_harness::{Answer, Refusal};
use lianxin_sdk::{ClientError, ConnectError};
use serde_json::Value;

/// Why a call could not be done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The SDK said no.
    Client(ClientError),
    /// The call itself makes no sense.
    Call(String),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// The answer to call `id`.
pub(crate) fn answer(id: u64, outcome: Result<Value, Fault>) -> Answer {
    match outcome {
        Ok(result) => Answer { id, ok: true, result, refusal: None },
        Err(fault) => Answer { id, ok: false, result: Value::Null, refusal: Some(refusal(&fault)) },
    }
}

fn refusal(fault: &Fault) -> Refusal {
    match fault {
        Fault::Call(text) => Refusal { reason: "BadCall".into(), error: text.clone() },
        Fault::Client(error) => Refusal { reason: reason(error), error: with_causes(error) },
    }
}

/// A word that does not change with the text: the contract's code where there is one, else the name of the variant.
fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Refused(problem) => problem.code.as_str_name().trim_start_matches("REASON_CODE_").to_owned(),
        ClientError::Connect(error) => match &**error {
            ConnectError::Refused { reason } => variant(reason),
            other => variant(other),
        },
        other => variant(other),
    }
}

/// The name of an enum's variant: the start of its Debug text.
pub(crate) fn variant(value: &dyn std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take_while(|character| character.is_alphanumeric()).collect()
}

fn with_causes(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Writes one answer.
pub(crate) fn write(answer: &Answer) -> anyhow::Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
