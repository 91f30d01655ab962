//! The answer that never came: a message and a change of the members are accepted, and the connection breaks before the application
//! can read the receipt. It finds out by itself, and nothing is doubled.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Application, Call, EventInfo, Line, Listed, SentInfo, eventually};

use crate::conversation::enter;
use crate::narrator::Telling;
use crate::story::{DEPARTMENTS, Department, Story};

/// Who speaks over a line that swallows answers.
const CALLER: Department = Department::Shenji;
const LISTENER: Department = Department::Jiwei;
/// The device that is taken out again.
const GUEST: &str = "app-2";
const ANSWERED: &str = "审计局：开始上传第二批凭证。";
const SENT_IN_VAIN: &str = "审计局：第二批凭证已上传，请确认收到。";
const AFTER: &str = "纪委监委：第二批收到，只有一份。";
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn lost_reply(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let before = story.common_history().await?.len();
    let guest = enter(story, LISTENER.id(), GUEST).await?;
    let epoch = story.agreed().await?.epoch;
    let line = Line::to(story.stage.gateway.address()).await?;
    story.close(CALLER).await?;
    story.open_at(CALLER, Some(line.address())).await?;

    // An answer comes through, so that later only the line can be why there is none.
    story.say(CALLER, ANSWERED).await?;
    ensure!(story.hear(LISTENER, 1).await?[0].text == ANSWERED, "something else was heard");

    line.hold();
    story.said.push(SENT_IN_VAIN.to_owned());
    let sending = story.application(CALLER)?.begin(Call::send(&story.channel, SENT_IN_VAIN)).await?;
    let heard = story.hear(LISTENER, 1).await?;
    ensure!(heard[0].text == SENT_IN_VAIN, "something else was heard");
    ensure!(story.application(CALLER)?.unanswered() == 1, "the answer came through");
    let first = line.cut();
    let receipt: SentInfo = sending.answer().await.context("the receipt of the message, after all")?;
    ensure!(receipt.sequence == heard[0].sequence, "the receipt names another place");

    let device = story.stage.device(LISTENER.id(), GUEST)?;
    line.hold();
    let removing = story.application(CALLER)?.begin(Call::remove(&story.channel, &device)).await?;
    let is_out = || async {
        story.info(LISTENER).await.is_ok_and(|info| !info.members.iter().any(|member| member == device.as_str()))
    };
    eventually(WITHIN, "the others see the change", is_out).await?;
    ensure!(story.application(CALLER)?.unanswered() == 1, "the answer came through");
    let swallowed = line.cut();
    let change: SentInfo = removing.answer().await.context("the receipt of the change, after all")?;
    ensure!(change.sequence > receipt.sequence, "the change has the place of the message");
    ensure!(0 < first && first < swallowed, "no answer was on its way");

    story.say(LISTENER, AFTER).await?;
    for (listener, texts) in [(CALLER, &[AFTER][..]), (Department::Weijian, &[ANSWERED, SENT_IN_VAIN, AFTER][..])] {
        let heard = story.hear(listener, texts.len()).await?;
        ensure!(
            heard.iter().map(|message| message.text.as_str()).eq(texts.iter().copied()),
            "doubled or lost: {heard:?}"
        );
    }
    let now = story.agreed().await?;
    ensure!(now.epoch == epoch + 1, "the change was made {} times", now.epoch - epoch);
    ensure!(now.members.len() == DEPARTMENTS.len(), "{} members remain", now.members.len());
    let history = story.common_history().await?;
    let new: Vec<_> = history.iter().skip(before).map(|message| message.text.as_str()).collect();
    ensure!(new == [ANSWERED, SENT_IN_VAIN, AFTER], "the history has it otherwise: {new:?}");
    out(&guest, story).await?;
    guest.close().await?;
    story.close(CALLER).await?;
    story.open(CALLER).await?;
    let telling = Telling::new(
        "网关已接受一条消息和一次移除成员，回执在途中断线丢失：应用自行重连查明，消息一条、变更一次，不重不漏",
        "a message and a removal are accepted and their receipts lost with the connection: the application finds out by \
         itself, one message, one change",
    );
    Ok(((), telling.fact("sequences", vec![receipt.sequence, change.sequence]).fact("swallowed_bytes", swallowed)))
}

/// The removed device knows it, and has nothing of what was said after.
async fn out(guest: &Application, story: &Story) -> anyhow::Result<()> {
    let told: EventInfo = guest.call(Call::event("Removed")).await?;
    ensure!(told.by.is_some(), "it does not know by whom");
    let Listed { messages } = guest.call(Call::history(&story.channel, 10_000)).await?;
    ensure!(!messages.iter().any(|message| message.text == AFTER), "it has heard what was said after");
    Ok(())
}
