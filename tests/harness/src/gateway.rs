//! The real gateway as a process on loopback: started, asked whether it is ready, killed, started again.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lianxin_certs_dev::Minted;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::binaries::Binaries;
use crate::deadline::{before, eventually};

/// One gateway over one zone folder. Dropping it kills the process, except after [`Gateway::leave_running`].
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    metrics: SocketAddr,
    process: Option<Child>,
}

/// Opening a zone after a crash reads its journal; tests keep theirs small.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Linux gives connections that go out ports from 32,768 on, others from 49,152 on.
const PORTS: Range<u16> = 12_000..32_000;
/// The configured drain, and time to close the zone.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

impl Gateway {
    /// Free bytes below which its zone takes only audit records: little, since many gateways are tested at once.
    pub const FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;
    /// Bytes that its zone keeps for audit records.
    pub const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

    /// A free port on loopback, another one each time: below those that systems give to connections that go out, any of which could
    /// take it before the gateway does. Another program still may; then the start fails and says so.
    ///
    /// # Errors
    /// If none is free.
    pub fn free_port() -> anyhow::Result<u16> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Test programs that run at the same time begin at different places.
        let first = std::process::id().wrapping_mul(97);
        let count = u32::from(PORTS.end - PORTS.start);
        let all = (0..count).map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count);
        let mut ports = all.map(|place| PORTS.start + place as u16);
        let free = ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
        free.context("find a free port")
    }

    /// Writes the configuration of a gateway for `minted` into `folder`; its data and log come there, too. Does not start it.
    ///
    /// # Errors
    /// If the bundle has no zone with an endpoint, or a file cannot be written.
    pub fn prepare(binaries: &Binaries, minted: &Minted, folder: &Path) -> anyhow::Result<Self> {
        let bundle = minted.bundle()?.bundle;
        let zone = bundle.zones.first().context("the bundle has no zone")?;
        let port = zone.endpoints.first().context("the zone has no endpoint")?.port;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, metrics) = (loopback(port), loopback(Self::free_port()?));
        fs::create_dir_all(folder)?;
        let gateway = Self {
            program: binaries.path("lianxin-gateway")?,
            folder: folder.to_owned(),
            address,
            metrics,
            process: None,
        };
        let lists = minted.revocation_list_files()?;
        let lists = lists.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(", ");
        let (paths, zone_folder) = (minted.gateway(), gateway.zone_folder());
        let text = format!(
            "zone = \"{}\"\nlisten = \"{address}\"\ndrain_seconds_max = 5\n\n\
             [tls]\ncertificate = {}\nkey = {}\n\n\
             [trust]\nroots = {}\nbundle = {}\nrevocation_lists = [{lists}]\n\
             removal_key = {}\n\n\
             [store]\nengine = \"sled\"\nfolder = {}\nfree_bytes_min = {}\nreserve_bytes = {}\n\n\
             [audit]\npseudonym_key = \"pseudonym.key\"\n\n\
             [metrics]\nlisten = \"{metrics}\"\n\n\
             [log]\nfilter = \"info,lianxin_gateway=debug,lianxin_transport=debug\"\n",
            zone.id,
            quoted(&paths.tls_certificate),
            quoted(&paths.tls_key),
            quoted(&minted.roots_file()),
            quoted(&minted.bundle_file()),
            quoted(&paths.removal_key),
            quoted(&zone_folder),
            Self::FREE_BYTES_MIN,
            Self::RESERVE_BYTES,
        );
        fs::write(gateway.config_file(), text)?;
        Ok(gateway)
    }

    /// Starts the process, in the place of one that has ended, and waits until the zone takes writes.
    ///
    /// # Errors
    /// If it runs already, ends at once, or is not ready in time; with the end of its log.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.start_command(Command::new(&self.program), "/readyz").await
    }

    /// As [`Gateway::start`], for a zone that does not take writes: waits only until the process answers.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_alive(&mut self) -> anyhow::Result<()> {
        self.start_command(Command::new(&self.program), "/healthz").await
    }

    /// As [`Gateway::start`], through a shell script that ends by executing its arguments, e.g. with other limits.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_through(&mut self, script: &str) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&self.program);
        self.start_command(command, "/readyz").await
    }

    async fn start_command(&mut self, mut command: Command, page: &'static str) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the gateway runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        command.arg("serve").arg("--config").arg(self.config_file());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().with_context(|| format!("start {}", self.program.display()))?);
        let metrics = self.metrics;
        let ready = eventually(READY_WITHIN, "the gateway is ready", || is_well(metrics, page));
        let process = self.process.as_mut().context("just started")?;
        let ended = tokio::select! {
            biased;
            ended = process.wait() => Some(ended?),
            ready = ready => {
                ready.with_context(|| self.end_of_log())?;
                None
            }
        };
        if let Some(status) = ended {
            self.process = None;
            bail!("the gateway ended at its start ({status}):\n{}", self.end_of_log());
        }
        Ok(())
    }

    /// `kill -9`: no goodbye, no flush.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the gateway does not run")?;
        process.kill().await.context("kill the gateway")
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not stop in time.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("-TERM").await?;
        let process = self.process.as_mut().context("the gateway does not run")?;
        let status = before(STOPPED_WITHIN, "the gateway stops", process.wait()).await??;
        self.process = None;
        Ok(status)
    }

    /// Tells it to read its configuration and files again (SIGHUP); [`Gateway::scrape`] shows when it has.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn hang_up(&self) -> anyhow::Result<()> {
        self.signal("-HUP").await
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.process_id().context("the gateway does not run")?;
        let asked = Command::new("kill").args([signal, &id.to_string()]).status().await?;
        ensure!(asked.success(), "cannot send a signal to the gateway");
        Ok(())
    }

    /// The value of a metric without labels, e.g. `lianxin_reloads_total`.
    ///
    /// # Errors
    /// If the gateway does not answer, or exports no such metric.
    pub async fn scrape(&self, metric: &str) -> anyhow::Result<u64> {
        let page = get(self.metrics, "/metrics").await?;
        let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("the gateway exports no {metric}"))?.parse()?)
    }

    /// Lets it run after this program's end.
    pub fn leave_running(mut self) {
        // Tokio reaps children when it can and kills none of its own accord.
        drop(self.process.take());
    }

    /// The operating system's number of the process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// Where departments connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and readiness are served.
    pub const fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// What it answers to a request for a page of its metrics address, status line first.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn page(&self, path: &str) -> anyhow::Result<String> {
        get(self.metrics, path).await.with_context(|| format!("ask for {path}"))
    }

    /// Its configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    /// What it printed, over all its lives.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }

    /// The zone's store: everything that it keeps.
    pub fn zone_folder(&self) -> PathBuf {
        self.folder.join("zone")
    }

    fn end_of_log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

const LOG_LINES_SHOWN: usize = 20;

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            drop(process.start_kill());
        }
    }
}

/// A path as a TOML string: the escapes of JSON are TOML's, too.
pub(crate) fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Asks the readiness page; a connection to the departments' port would be recorded as a refused handshake.
async fn is_well(metrics: SocketAddr, path: &str) -> bool {
    get(metrics, path).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The whole answer to a request over plain HTTP, head included.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut tcp = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_in_toml() {
        assert_eq!(quoted(Path::new("/tmp/廉信 \"demo\"\\x")), r#""/tmp/廉信 \"demo\"\\x""#);
    }

    #[tokio::test]
    async fn who_does_not_listen_is_not_ready() {
        let port = Gateway::free_port().expect("a free port");
        assert!(!is_well((Ipv4Addr::LOCALHOST, port).into(), "/readyz").await);
    }
}
