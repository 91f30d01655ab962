//! A device that is lost: its department revokes its certificates, and it is out, without anybody doing more than that.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Call, Listed, eventually};

use crate::conversation::enter;
use crate::narrator::Telling;
use crate::refusals::{expect, told};
use crate::story::{DEPARTMENTS, Department, Story};

/// The application of weijian on the device that will be lost.
const LOST: &str = "app-2";
const BEFORE: &str = "平板电脑也加入，外出核查时用。";
const AFTER: &str = "平板遗失，证书已吊销；以下内容它收不到。";
const TAKES_AT_MOST: Duration = Duration::from_secs(60);

pub(crate) async fn revoked(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let department = Department::Weijian.id();
    let lost = enter(story, department, LOST).await?;
    story.say(Department::Jiwei, BEFORE).await?;
    lost.call::<Listed>(Call::receive(&story.channel, 1)).await.context("the device hears while it may")?;

    story.stage.minted.revoke_app(department, LOST)?;
    story.stage.gateway.hang_up().await?;
    eventually(TAKES_AT_MOST, "the device is told that it is revoked", || async {
        lost.refused(Call::Connected).await.is_ok()
    })
    .await?;
    let refusal = lost.refused(Call::Connected).await?;
    expect(&refusal, "Revoked")?;
    story.say(Department::Jiwei, AFTER).await?;
    for (listener, count) in [(Department::Shenji, 2), (Department::Weijian, 2)] {
        let heard = story.hear(listener, count).await?;
        ensure!(heard.iter().map(|message| message.text.as_str()).eq([BEFORE, AFTER]), "{} missed it", listener.name());
    }
    let device = story.stage.device(department, LOST)?;
    let members = story.members().await?;
    ensure!(members.len() == DEPARTMENTS.len(), "{} members remain", members.len());
    ensure!(!members.iter().any(|member| member == device.as_str()), "the revoked device is still a member");
    let Listed { messages } = lost.call(Call::history(&story.channel, 10_000)).await?;
    ensure!(!messages.iter().any(|message| message.text == AFTER), "the revoked device heard what was said after");
    lost.close().await?;
    let telling = Telling::new(
        "卫健委一台设备遗失，吊销其证书：连接立即断开，网关申请移除，成员各自核验证据后换钥，此后内容它解不开",
        "a device is lost and its certificates revoked: cut off at once, its removal is asked for by the gateway, \
         verified and committed by the members",
    );
    Ok(((), told(telling, &refusal).fact("members", members.len())))
}
