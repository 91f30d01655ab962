//! Who takes part, and what they share.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Application, Call, ChannelInfo, EventInfo, Listed, MessageInfo, Opened, Stage};
use serde_json::Value;

/// A department of the demo with its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Department {
    Jiwei,
    Shenji,
    Weijian,
}

pub(crate) const DEPARTMENTS: [Department; 3] = [Department::Jiwei, Department::Shenji, Department::Weijian];

impl Department {
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Jiwei => "jiwei",
            Self::Shenji => "shenji",
            Self::Weijian => "weijian",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jiwei => "纪委监委",
            Self::Shenji => "审计局",
            Self::Weijian => "卫生健康委",
        }
    }
}

/// The application of every department in the demo.
pub(crate) const APP: &str = "app-1";

/// The running story.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) stage: Stage,
    applications: [Option<Application>; 3],
    /// The channel's id, once there is one.
    pub(crate) channel: String,
    /// Everything that was said; none of it may be found later.
    pub(crate) said: Vec<String>,
}

impl Story {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { stage, applications: Default::default(), channel: String::new(), said: Vec::new() }
    }

    /// Starts the application of `department` in a process of its own and waits until it is connected.
    pub(crate) async fn open(&mut self, department: Department) -> anyhow::Result<()> {
        self.open_at(department, None).await
    }

    /// The same over another address of the gateway than its own.
    pub(crate) async fn open_at(&mut self, department: Department, address: Option<SocketAddr>) -> anyhow::Result<()> {
        let name = format!("{}-{APP}", department.id());
        let application = self.stage.application(&name)?;
        let state = self.stage.state_folder(department.id(), APP);
        let mut opened = Call::open(self.stage.minted.folder(), department.id(), APP, state);
        if let Call::Open { gateway, .. } = &mut opened {
            *gateway = address;
        }
        let Opened { device } = application.call(opened).await?;
        ensure!(device == self.stage.device(department.id(), APP)?.as_str(), "{name} is somebody else");
        application.call::<Value>(Call::Connected).await?;
        self.applications[department as usize] = Some(application);
        Ok(())
    }

    /// `kill -9` of the process of `department`.
    pub(crate) async fn kill(&mut self, department: Department) -> anyhow::Result<()> {
        self.applications[department as usize].take().context("it is open")?.kill().await
    }

    /// Ends the process of `department`.
    pub(crate) async fn close(&mut self, department: Department) -> anyhow::Result<()> {
        self.applications[department as usize].take().context("it is open")?.close().await
    }

    pub(crate) fn application(&self, department: Department) -> anyhow::Result<&Application> {
        self.applications[department as usize].as_ref().context("the application is closed")
    }

    /// `department` says something in the channel; it is durable when this returns.
    pub(crate) async fn say(&mut self, department: Department, text: &str) -> anyhow::Result<()> {
        self.said.push(text.to_owned());
        let sent = self.application(department)?.call::<Value>(Call::send(&self.channel, text)).await;
        sent.with_context(|| format!("{} says \"{text}\"", department.name()))?;
        Ok(())
    }

    /// The next `count` messages of others that reach `department`.
    pub(crate) async fn hear(&self, department: Department, count: usize) -> anyhow::Result<Vec<MessageInfo>> {
        let call = Call::receive(&self.channel, count);
        let Listed { messages } =
            self.application(department)?.call(call).await.with_context(|| format!("{} hears", department.name()))?;
        Ok(messages)
    }

    /// All messages that `department` has, own ones included.
    pub(crate) async fn history(&self, department: Department) -> anyhow::Result<Vec<MessageInfo>> {
        let call = Call::history(&self.channel, HISTORY_MAX);
        let Listed { messages } = self.application(department)?.call(call).await?;
        Ok(messages)
    }

    /// The history, which must be the same for all three.
    pub(crate) async fn common_history(&self) -> anyhow::Result<Vec<MessageInfo>> {
        let first = self.history(Department::Jiwei).await?;
        for department in [Department::Shenji, Department::Weijian] {
            ensure!(self.history(department).await? == first, "{} has another history", department.name());
        }
        Ok(first)
    }

    /// The next event of this kind that `department` is told.
    pub(crate) async fn told(&self, department: Department, event: &str) -> anyhow::Result<EventInfo> {
        let told = self.application(department)?.call(Call::event(event)).await;
        told.with_context(|| format!("{} is told {event}", department.name()))
    }

    /// The channel as `department` knows it.
    pub(crate) async fn info(&self, department: Department) -> anyhow::Result<ChannelInfo> {
        self.application(department)?.call(Call::Info { channel: self.channel.clone() }).await
    }

    /// The channel, on whose state all three must agree.
    pub(crate) async fn agreed(&self) -> anyhow::Result<ChannelInfo> {
        let first = self.info(Department::Jiwei).await?;
        for department in [Department::Shenji, Department::Weijian] {
            ensure!(self.info(department).await? == first, "{} is in another state", department.name());
        }
        Ok(first)
    }

    /// The members, on whom all three must agree.
    pub(crate) async fn members(&self) -> anyhow::Result<Vec<String>> {
        let mut seen = Vec::new();
        for department in DEPARTMENTS {
            seen.push(self.info(department).await?.members);
        }
        ensure!(seen.iter().all(|members| *members == seen[0]), "they do not agree on the members");
        seen.pop().context("there are three")
    }
}

const HISTORY_MAX: usize = 10_000;
