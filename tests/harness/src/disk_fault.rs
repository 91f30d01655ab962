//! Faults under a running application's local state: at the n-th write of its database the process is killed, or the disk says that it
//! failed. Made by strace, from outside: what runs is the program as it is shipped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::deadline::before;

const ATTACHED_WITHIN: Duration = Duration::from_secs(20);
const ENDED_BY_ITSELF_WITHIN: Duration = Duration::from_millis(300);
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// How SQLite writes, and how it has writes made durable.
const WRITES: &str = "pwrite64";
const SYNCS: &str = "fsync,fdatasync";

/// What happens at the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails with `EIO`, once.
    Fail,
    /// The process is killed when it has the disk make writes durable, counted instead of the writes themselves: a transaction is
    /// there whole, and whoever made it does not know.
    KillAtSync,
}

/// A fault that lies in wait. Dropping it lets go of the process.
#[derive(Debug)]
pub struct DiskFault {
    tracer: Child,
    report: PathBuf,
}

impl DiskFault {
    /// Lies in wait for the `at`-th write (from 1) that a thread of `process` makes from now on to the database in the folder `state`.
    ///
    /// # Errors
    /// If strace is missing or may not attach to the process.
    pub async fn wait_for(process: u32, state: &Path, fault: Fault, at: usize) -> anyhow::Result<Self> {
        let report = state.with_extension("faults");
        let (calls, what) = match fault {
            Fault::Kill => (WRITES, "signal=SIGKILL"),
            Fault::Fail => (WRITES, "error=EIO"),
            Fault::KillAtSync => (SYNCS, "signal=SIGKILL"),
        };
        let mut command = Command::new("strace");
        let (trace, inject) = (format!("trace={WRITES},{SYNCS}"), format!("inject={calls}:{what}:when={at}"));
        command.args(["-f", "-e", &trace, "-e", &inject, "-o"]);
        command.arg(&report);
        for file in ["state.db", "state.db-wal", "state.db-journal"] {
            command.arg("-P").arg(state.join(file));
        }
        command.args(["-p", &process.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut tracer = command.spawn().context("start strace (Debian: apt-get install strace)")?;
        let mut lines = BufReader::new(tracer.stderr.take().context("it has a standard error")?).lines();
        let attached = async {
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await? {
                if line.contains(" attached") {
                    return anyhow::Ok(());
                }
                said.push(line);
            }
            bail!("strace does not attach to the process: {}", said.join("; "))
        };
        before(ATTACHED_WITHIN, "strace attaches", attached).await??;
        // It says more when threads come and go; nobody need read that.
        tokio::spawn(async move { while let Ok(Some(_line)) = lines.next_line().await {} });
        Ok(Self { tracer, report })
    }

    /// Lets go of the process, if it is still there. Says whether the fault has happened, and how many writes were seen.
    ///
    /// # Errors
    /// If strace does not end.
    pub async fn end(mut self) -> anyhow::Result<(bool, usize)> {
        // With the process it ends by itself, once it has written down why; told to end before that it would not.
        let ended = before(ENDED_BY_ITSELF_WITHIN, "strace ends", self.tracer.wait()).await.is_ok();
        if let Some(tracer) = self.tracer.id().filter(|_| !ended) {
            let mut interrupt = Command::new("kill");
            interrupt.args(["-INT", &tracer.to_string()]).stderr(Stdio::null());
            // It may have ended with the process.
            drop(interrupt.status().await);
        }
        // Where it misses the word it is ended: the process then goes on without it.
        if before(ENDED_WITHIN, "strace ends", self.tracer.wait()).await.is_err() {
            self.tracer.kill().await.context("end strace")?;
        }
        let report = std::fs::read_to_string(&self.report).context("read what strace saw")?;
        let writes = report.lines().filter(|line| line.contains("pwrite64(")).count();
        Ok((report.contains("(INJECTED)") || report.contains("+++ killed by SIGKILL"), writes))
    }
}
