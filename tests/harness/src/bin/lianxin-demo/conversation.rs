//! The channel: created, joined, talked in, and caught up with.

use std::time::Duration;

use anyhow::{bail, ensure};
use lianxin_harness::{Application, Call, Joined, Opened, Refusal, before};
use lianxin_types::{Clock as _, DepartmentId, SystemClock};
use serde_json::Value;

use crate::narrator::Telling;
use crate::story::{APP, DEPARTMENTS, Department, Story};

const PURPOSE: &str = "医疗采购联合核查";
const LEGAL_BASIS: &str = "《中华人民共和国审计法》";

pub(crate) async fn create(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let departments = DEPARTMENTS.into_iter().map(|department| department.id().parse());
    let departments = departments.collect::<Result<Vec<DepartmentId>, _>>()?;
    let call = Call::create(PURPOSE, LEGAL_BASIS, &departments);
    let Joined { channel } = story.application(Department::Jiwei)?.call(call).await?;
    story.channel = channel;
    let telling = Telling::new(
        format!("纪委监委建立「{PURPOSE}」，只列名三个部门，依据{LEGAL_BASIS}"),
        "jiwei creates a channel with a purpose and a legal basis that names three departments and no other",
    );
    Ok(((), telling.fact("departments", DEPARTMENTS.len())))
}

pub(crate) async fn invite(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let shenji = story.stage.device(Department::Shenji.id(), APP)?;
    let weijian = story.stage.device(Department::Weijian.id(), APP)?;
    let call = Call::invite(&story.channel, &[&shenji, &weijian]);
    before(Duration::from_secs(30), "the others have published key packages", invite_once_possible(story, call))
        .await??;
    for department in [Department::Shenji, Department::Weijian] {
        let Joined { channel } = story.application(department)?.call(Call::Accept).await?;
        ensure!(channel == story.channel, "{} was invited elsewhere", department.name());
    }
    let members = story.members().await?;
    ensure!(members.len() == DEPARTMENTS.len(), "{} members instead of three", members.len());
    let telling = Telling::new(
        "审计局、卫生健康委接受邀请；三方各自验证了全部成员的证书",
        "shenji and weijian accept; each of the three has verified every member's certificate itself",
    );
    Ok(((), telling.fact("members", members.len())))
}

/// An application publishes its key packages soon after it has connected.
pub(crate) async fn invite_once_possible(story: &Story, call: Call) -> anyhow::Result<()> {
    loop {
        match story.application(Department::Jiwei)?.call::<Value>(call.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) => match error.downcast_ref::<Refusal>() {
                Some(refusal) if refusal.reason == "NO_KEY_PACKAGE" => SystemClock.sleep(RETRY_AFTER).await,
                _ => bail!(error.context("invite")),
            },
        }
    }
}

/// A further device of `department` comes into the channel.
pub(crate) async fn enter(story: &Story, department: &str, app: &str) -> anyhow::Result<Application> {
    let application = story.stage.application(&format!("{department}-{app}"))?;
    let state = story.stage.state_folder(department, app);
    application.call::<Opened>(Call::open(story.stage.minted.folder(), department, app, state)).await?;
    application.call::<Value>(Call::Connected).await?;
    let device = story.stage.device(department, app)?;
    invite_once_possible(story, Call::invite(&story.channel, &[&device])).await?;
    let Joined { channel } = application.call(Call::Accept).await?;
    ensure!(channel == story.channel, "the device was invited elsewhere");
    Ok(application)
}

const RETRY_AFTER: Duration = Duration::from_millis(200);

const TALK: [(Department, &str); 6] = [
    (Department::Jiwei, "各位好，医疗采购联合核查今天启动，请报一下材料进度。"),
    (Department::Shenji, "审计局收到。2023 年招标凭证已整理完毕，共 147 份 📎"),
    (Department::Weijian, "卫健委收到，设备采购台账今晚十点前提交。"),
    (Department::Jiwei, "三号标段的供应商「恒远」请重点看，付款早于验收。"),
    (Department::Shenji, "确认，恒远三笔付款早于验收日期，差 41 天。"),
    (Department::Weijian, "验收单原件已找到，签字人已经离职，补充说明随后发。"),
];

pub(crate) async fn talk(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let mut telling = Telling::new(
        "三方往来，端到端加密；每条先落盘并记入审计，再回执；三方看到的顺序完全一致",
        "both ways, end-to-end encrypted; durable and audited before the receipt; the same order for everyone",
    );
    for (speaker, text) in TALK {
        story.say(speaker, text).await?;
        for listener in DEPARTMENTS.into_iter().filter(|listener| *listener != speaker) {
            let heard = story.hear(listener, 1).await?;
            ensure!(heard[0].text == text, "{} heard something else", listener.name());
            let sender = story.stage.device(speaker.id(), APP)?;
            ensure!(heard[0].sender == sender.as_str(), "{} heard somebody else", listener.name());
        }
        telling = telling.line(format!("{}：{text}", speaker.name()));
    }
    let history = story.common_history().await?;
    ensure!(history.iter().map(|message| message.text.as_str()).eq(TALK.map(|(_, text)| text)), "the order differs");
    Ok(((), telling.fact("messages", TALK.len())))
}

/// Messages of each of the two who are there while the third is not.
const MISSED_EACH: usize = 5;

pub(crate) async fn offline(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let absent = Department::Weijian;
    story.close(absent).await?;
    let mut missed = Vec::new();
    for number in 1..=MISSED_EACH {
        for speaker in [Department::Jiwei, Department::Shenji] {
            let text = format!("{}留言第 {number} 条：卫健委上线后请核对附表。", speaker.name());
            story.say(speaker, &text).await?;
            missed.push(text);
        }
    }
    for listener in [Department::Jiwei, Department::Shenji] {
        story.hear(listener, MISSED_EACH).await?;
    }
    story.open(absent).await?;
    let heard = story.hear(absent, missed.len()).await?;
    let heard: Vec<_> = heard.into_iter().map(|message| message.text).collect();
    ensure!(heard == missed, "what was missed did not come exactly once and in order: {heard:?}");
    story.common_history().await?;
    let count = missed.len();
    let telling = Telling::new(
        format!("卫生健康委进程已停，其间 {count} 条；重新启动后逐条补齐，不重不漏，次序不变"),
        format!("weijian's process was stopped; started again it gets the {count} messages once each, in order"),
    );
    Ok(((), telling.fact("missed", count)))
}
