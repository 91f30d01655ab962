//! A federation with its running gateway in one temporary folder: what most stories begin with.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_sdk::{Client, Config, DeviceUri};
use lianxin_types::SystemClock;
use tempfile::TempDir;

use crate::application::Application;
use crate::binaries::{Binaries, ensure_built};
use crate::gateway::Gateway;

/// Everything of one story. Dropping it kills the processes and deletes the folder.
#[derive(Debug)]
pub struct Stage {
    /// The gateway; kill it, start it again, look at its files.
    pub gateway: Gateway,
    /// The federation's folder.
    pub minted: Minted,
    binaries: Binaries,
    folder: Folder,
}

/// The folder, deleted with the stage or kept.
#[derive(Debug)]
enum Folder {
    Deleted(TempDir),
    Kept(PathBuf),
}

impl Stage {
    /// A new federation with the default departments and a gateway that is ready.
    ///
    /// # Errors
    /// If something does not build, or the gateway does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut stage = Self::set_up(FederationPlan::default())?;
        stage.gateway.start().await?;
        Ok(stage)
    }

    /// The same for another plan, whose host and port are replaced; the gateway is not started.
    ///
    /// # Errors
    /// If something does not build, or the federation cannot be minted.
    pub fn set_up(plan: FederationPlan) -> anyhow::Result<Self> {
        let binaries = ensure_built()?;
        let folder = tempfile::Builder::new().prefix("lianxin-").tempdir().context("make a temporary folder")?;
        let plan = FederationPlan { host: "127.0.0.1".to_owned(), port: Gateway::free_port()?, ..plan };
        let minted = mint(&plan, &folder.path().join("federation"), &SystemClock)?;
        let gateway = Gateway::prepare(&binaries, &minted, &folder.path().join("gateway"))?;
        Ok(Self { gateway, minted, binaries, folder: Folder::Deleted(folder) })
    }

    /// The folder of the story: `federation/`, `gateway/`, `states/`, `logs/`.
    pub fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Deleted(folder) => folder.path(),
            Folder::Kept(folder) => folder,
        }
    }

    /// Keeps the folder when the stage is dropped, e.g. to look at it after a failure.
    #[must_use]
    pub fn keep_folder(self) -> Self {
        let folder = match self.folder {
            Folder::Deleted(folder) => folder.keep(),
            Folder::Kept(folder) => folder,
        };
        Self { folder: Folder::Kept(folder), ..self }
    }

    /// The identity of a minted application.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn device(&self, department: &str, app: &str) -> anyhow::Result<DeviceUri> {
        Ok(self.minted.app(department, app)?.uri)
    }

    /// What an SDK client of that application is to be given; its state lies in the stage's folder, so that a later client
    /// of the same application goes on where an earlier one ended.
    ///
    /// # Errors
    /// If there is no such application.
    pub fn config(&self, department: &str, app: &str) -> anyhow::Result<Config> {
        let state = self.state_folder(department, app);
        Ok(Config::from_certs_dev(self.minted.folder(), department, app, state)?)
    }

    /// An SDK client in this process.
    ///
    /// # Errors
    /// If there is no such application, or its state is in use.
    pub async fn client(&self, department: &str, app: &str) -> anyhow::Result<Client> {
        Ok(Client::open(self.config(department, app)?).await?)
    }

    /// An application process that has not been opened yet. Its log is in `logs/`.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub fn application(&self, name: &str) -> anyhow::Result<Application> {
        self.run(name, "lianxin-app")
    }

    /// A process that joins like an application and then breaks the channel ([`crate::Call::Break`]); not opened yet. Its log is in
    /// `logs/`.
    ///
    /// # Errors
    /// If the program is missing or does not start.
    pub fn culprit(&self, name: &str) -> anyhow::Result<Application> {
        self.run(name, "lianxin-culprit")
    }

    fn run(&self, name: &str, program: &str) -> anyhow::Result<Application> {
        let logs = self.folder().join("logs");
        std::fs::create_dir_all(&logs)?;
        Application::start(&self.binaries, program, &logs.join(format!("{name}.log")))
    }

    /// Where the state of that application's client lies.
    pub fn state_folder(&self, department: &str, app: &str) -> PathBuf {
        self.states_folder().join(format!("{department}-{app}"))
    }

    /// Where the states of all applications lie, sealed.
    pub fn states_folder(&self) -> PathBuf {
        self.folder().join("states")
    }
}
