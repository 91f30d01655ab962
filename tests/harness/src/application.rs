//! An application of a department as a process of its own (`lianxin-app`), or one that means no good (`lianxin-culprit`).

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::binaries::Binaries;
use crate::calls::{Answer, Call, Refusal, Request};
use crate::deadline::before;

/// Longest wait for any answer; a gateway that was killed is back long before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(90);

/// A running application. Dropping it kills the process.
#[derive(Debug)]
pub struct Application {
    process: Child,
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    next_id: AtomicU64,
    reader: JoinHandle<()>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A call that was made and is not answered yet.
#[derive(Debug)]
pub struct Answering(oneshot::Receiver<Answer>);

impl Application {
    /// Starts a program that speaks the lines of [`Call`]; `log` takes what it says besides answers.
    ///
    /// # Errors
    /// If it is missing or does not start.
    pub fn start(binaries: &Binaries, program: &str, log: &Path) -> anyhow::Result<Self> {
        let program = binaries.path(program)?;
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let stdin = process.stdin.take().context("it has a standard input")?;
        let stdout = process.stdout.take().context("it has a standard output")?;
        let waiting = Waiting::default();
        let reader = tokio::spawn(read_answers(stdout, Arc::clone(&waiting)));
        Ok(Self { process, stdin: tokio::sync::Mutex::new(stdin), waiting, next_id: AtomicU64::new(1), reader })
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// [`Refusal`] (by `downcast_ref`) if the application answers with one; otherwise if the process has ended, does not
    /// answer in time, or answers something else.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> anyhow::Result<T> {
        self.begin(call).await?.answer().await
    }

    /// Makes a call without waiting for its answer. Calls are begun in the order of these calls.
    ///
    /// # Errors
    /// If the process has ended.
    pub async fn begin(&self, call: Call) -> anyhow::Result<Answering> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_string(&Request { id, call })?;
        line.push('\n');
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        self.stdin.lock().await.write_all(line.as_bytes()).await.context("the application has ended")?;
        Ok(Answering(receiver))
    }

    /// Makes a call that must be refused.
    ///
    /// # Errors
    /// If it is not, or the process has ended.
    pub async fn refused(&self, call: Call) -> anyhow::Result<Refusal> {
        let what = format!("{call:?}");
        match self.call::<serde_json::Value>(call).await {
            Ok(_) => anyhow::bail!("was not refused: {what}"),
            Err(error) => error.downcast::<Refusal>(),
        }
    }

    /// Calls that were begun and are not answered yet.
    pub fn unanswered(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Closes the client in order and waits for the end of the process.
    ///
    /// # Errors
    /// If it does not close.
    pub async fn close(mut self) -> anyhow::Result<()> {
        let _: serde_json::Value = self.call(Call::Close).await?;
        before(ANSWERED_WITHIN, "the application ends", self.process.wait()).await??;
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it has ended already.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("kill the application")
    }

    /// The operating system's number of the process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Answering {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`Application::call`].
    pub async fn answer<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let answer = before(ANSWERED_WITHIN, "the application answers", self.0).await?;
        let answer = answer.context("the application has ended without an answer; see its log")?;
        match answer.refusal {
            Some(refusal) if !answer.ok => Err(refusal.into()),
            _ => serde_json::from_value(answer.result).context("the application answers something else"),
        }
    }
}

async fn read_answers(stdout: ChildStdout, waiting: Waiting) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(answer) = serde_json::from_str::<Answer>(&line) else { continue };
        if let Some(sender) = lock(&waiting).remove(&answer.id) {
            // Whoever asked may have stopped waiting.
            drop(sender.send(answer));
        }
    }
    // Nobody will answer any more.
    lock(&waiting).clear();
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
