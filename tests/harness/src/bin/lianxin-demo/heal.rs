//! A member that means no good breaks the channel for everybody, with a commit of which the gateway can see nothing. The others
//! report it (else the gateway would take no other group), go on in another group of the same channel without whoever made it, and lose nothing.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Application, Call, EventInfo, Joined, Opened, SentInfo, eventually};

use crate::conversation::invite_once_possible;
use crate::narrator::Telling;
use crate::refusals::expect;
use crate::story::{DEPARTMENTS, Department, Story};

/// The application whose machine somebody else has taken over.
const CULPRIT: &str = "app-2";
const OWNER: Department = Department::Shenji;
const BEFORE: &str = "纪委监委：结论初稿已上传。";
const MEANWHILE: &str = "卫生健康委：初稿收到，正在核对。";
const AFTER: &str = "审计局：通道已恢复，继续核对。";
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn heal(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let culprit = join(story).await?;
    story.say(Department::Jiwei, BEFORE).await?;
    for listener in [Department::Shenji, Department::Weijian] {
        let heard = story.hear(listener, 1).await?;
        ensure!(heard[0].text == BEFORE, "{} heard something else", listener.name());
    }
    let (before, purpose) = (story.common_history().await?, story.info(Department::Jiwei).await?.purpose);

    let broken: SentInfo = culprit.call(Call::Break { channel: story.channel.clone() }).await?;
    // Whoever speaks now waits until there is a group again.
    story.said.push(MEANWHILE.to_owned());
    let meanwhile = story.application(Department::Weijian)?.begin(Call::send(&story.channel, MEANWHILE)).await?;
    let device = story.stage.device(OWNER.id(), CULPRIT)?;
    let mut restarts = Vec::new();
    for department in DEPARTMENTS {
        restarts.push(healed(story, department, device.as_str(), broken.sequence).await?);
    }
    ensure!(restarts.iter().all(|restart| *restart == restarts[0]), "they do not agree: {restarts:?}");
    let [starter, ..] = &restarts[..] else { unreachable!("there are three") };
    meanwhile.answer::<SentInfo>().await.context("what waited is sent")?;
    for listener in [Department::Jiwei, Department::Shenji] {
        let heard = story.hear(listener, 1).await?;
        ensure!(heard[0].text == MEANWHILE, "{} heard something else", listener.name());
    }
    eventually(WITHIN, "they stand in one group", || async { story.agreed().await.is_ok() }).await?;
    let info = story.agreed().await?;
    ensure!(info.members.len() == DEPARTMENTS.len(), "{} members", info.members.len());
    ensure!(!info.members.iter().any(|member| member == device.as_str()), "the culprit is still there");
    ensure!(info.purpose == purpose, "the label has changed");
    let refusal = culprit.refused(Call::send(&story.channel, "还在吗？")).await?;
    expect(&refusal, "NOT_MEMBER")?;
    culprit.close().await?;

    story.say(Department::Shenji, AFTER).await?;
    for listener in [Department::Jiwei, Department::Weijian] {
        let heard = story.hear(listener, 1).await?;
        ensure!(heard[0].text == AFTER, "{} heard something else", listener.name());
    }
    let after = story.common_history().await?;
    let (old, new) = after.split_at_checked(before.len()).context("the history has become shorter")?;
    ensure!(old == before, "the history from before has changed");
    let texts: Vec<_> = new.iter().map(|message| message.text.as_str()).collect();
    ensure!(texts == [MEANWHILE, AFTER], "the history goes on otherwise: {texts:?}");
    let telling = Telling::new(
        "审计局一台被控设备提交了谁也处理不了的变更，且断了回路：成员各自识破并点名，自行以新群组接续同一通道，标签与历史不变",
        "a hijacked device commits what nobody can process and bars the way back: each member finds out who it was, and \
         they carry the channel on in another group; label and history go on",
    );
    let telling = telling
        .line(format!("点名 · named: {}", device.as_str()))
        .line(format!("由其接续 · carried on by: {starter}"))
        .line(refusal.to_string());
    let telling = telling.fact("culprit", device.as_str()).fact("broken_at", broken.sequence);
    Ok(((), telling.fact("carried_on_by", starter.as_str()).fact("incarnation", 1)))
}

/// The culprit comes in like everybody.
async fn join(story: &Story) -> anyhow::Result<Application> {
    let culprit = story.stage.culprit("culprit")?;
    // No SDK has its state, so it lies apart.
    let state = story.stage.folder().join("culprit");
    culprit.call::<Opened>(Call::open(story.stage.minted.folder(), OWNER.id(), CULPRIT, state)).await?;
    let device = story.stage.device(OWNER.id(), CULPRIT)?;
    invite_once_possible(story, Call::invite(&story.channel, &[&device])).await?;
    let Joined { channel } = culprit.call(Call::Accept).await?;
    ensure!(channel == story.channel, "the culprit was invited elsewhere");
    Ok(culprit)
}

/// What one application is told, in its order. Gives who carried the channel on.
async fn healed(story: &Story, department: Department, culprit: &str, broken: u64) -> anyhow::Result<String> {
    let name = department.name();
    let violation: EventInfo = story.told(department, "Violation").await?;
    ensure!(violation.sequence == Some(broken), "{name} complains about something else: {violation:?}");
    ensure!(violation.device.as_deref() == Some(culprit), "{name} names somebody else: {violation:?}");
    let restarted: EventInfo = story.told(department, "ChannelRestarted").await?;
    ensure!(restarted.incarnation == Some(1), "{name} is in another group: {restarted:?}");
    ensure!(restarted.device.as_deref() == Some(culprit), "{name} leaves somebody else behind: {restarted:?}");
    let _: EventInfo = story.told(department, "ChannelRestored").await?;
    restarted.by.context("who carried it on")
}
