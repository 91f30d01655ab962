//! The real issuer of a department as a process.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lianxin_certs_dev::Minted;
use lianxin_types::DeviceUri;
use tokio::process::{Child, Command};

use crate::binaries::Binaries;
use crate::deadline::{before, eventually};
use crate::gateway::quoted;

/// One issuer. Dropping it kills the process.
#[derive(Debug)]
pub struct Issuer {
    program: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
}

const AT_WORK_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

impl Issuer {
    /// Writes configuration and list of devices of a department's issuer into `folder`. Does not start it.
    ///
    /// # Errors
    /// If the bundle has no zone, or a file cannot be written.
    pub fn prepare(
        binaries: &Binaries,
        minted: &Minted,
        folder: &Path,
        department: &str,
        devices: &[&DeviceUri],
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let issuer = Self { program: binaries.path("lianxin-issuer")?, folder: folder.to_owned(), process: None };
        issuer.list_devices(devices)?;
        let paths = minted.department(department);
        let zone = minted.bundle()?.bundle.zones.into_iter().next().context("the bundle has no zone")?.id;
        let lists: Vec<_> = minted.revocation_list_files()?.iter().map(|file| quoted(file)).collect();
        let configuration = format!(
            "department = \"{department}\"\nzone = \"{zone}\"\nlifetime_days = 30\ndevices = \"devices.txt\"\n\
             [tls]\ncertificate = {}\nkey = {}\n[authority]\ncertificate = {}\nkey = {}\n\
             [trust]\nroots = {}\nbundle = {}\nrevocation_lists = [{}]\n",
            quoted(&paths.issuer_certificate),
            quoted(&paths.issuer_key),
            quoted(&paths.ca_certificate),
            quoted(&paths.ca_key),
            quoted(&minted.roots_file()),
            quoted(&minted.bundle_file()),
            lists.join(", "),
        );
        fs::write(folder.join("issuer.toml"), configuration)?;
        Ok(issuer)
    }

    /// Writes the list of devices anew; a running issuer goes by it from its next answer on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn list_devices(&self, devices: &[&DeviceUri]) -> anyhow::Result<()> {
        let lines: String = devices.iter().map(|device| format!("{}\n", device.as_str())).collect();
        Ok(fs::write(self.folder.join("devices.txt"), lines)?)
    }

    /// Starts the process and waits until it has connected.
    ///
    /// # Errors
    /// If it runs already, ends at once, or does not connect in time.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the issuer runs already");
        let before_start = self.times_at_work();
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("issuer.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.process = Some(command.spawn().with_context(|| format!("start {}", self.program.display()))?);
        let is_at_work = async || self.times_at_work() > before_start;
        eventually(AT_WORK_WITHIN, "the issuer is at work", is_at_work).await.with_context(|| self.log())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the issuer does not run")?;
        process.kill().await.context("kill the issuer")
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not stop in time.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut process = self.process.take().context("the issuer does not run")?;
        let id = process.id().context("the issuer does not run")?;
        let asked = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(asked.success(), "cannot send a signal to the issuer");
        Ok(before(STOPPED_WITHIN, "the issuer stops", process.wait()).await??)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn times_at_work(&self) -> usize {
        self.log().lines().filter(|line| line.contains("at work") && line.contains("INFO")).count()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("issuer.log")
    }
}
