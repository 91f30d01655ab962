//! `kill -9` of an application while it speaks: opened anew it sends what it had stored, once and in order.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Call, SentInfo, eventually};

use crate::narrator::Telling;
use crate::story::{DEPARTMENTS, Department, Story};

/// Messages begun; many enough that some are under way when the process dies.
const MESSAGES: usize = 240;
/// Receipts after which it is killed.
const RECEIPTS_BEFORE: usize = 5;
/// Far above what a loaded machine needs.
const BACK_WITHIN: Duration = Duration::from_secs(60);
const VICTIM: Department = Department::Shenji;
/// In each of the messages, so that the search for plaintext can find them.
const PHRASE: &str = "应用重启前后各一份";
const UNREAD: &str = "纪委监委：审计局收到后请回复。";
const LAST: &str = "审计局应用已重启，以上如有缺漏请指出。";

pub(crate) async fn sdk_crash(story: &mut Story) -> anyhow::Result<((), Telling)> {
    story.say(Department::Jiwei, UNREAD).await?;
    ensure!(story.hear(Department::Weijian, 1).await?[0].text == UNREAD, "weijian heard something else");
    let is_there = || async {
        story.history(VICTIM).await.is_ok_and(|own| own.last().is_some_and(|message| message.text == UNREAD))
    };
    eventually(BACK_WITHIN, "the victim has it", is_there).await?;
    let before = story.common_history().await?.len();
    story.said.push(PHRASE.to_owned());
    let mut sends = Vec::new();
    for number in 1..=MESSAGES {
        let call = Call::send(&story.channel, text(number));
        sends.push(story.application(VICTIM)?.begin(call).await?);
    }
    let mut receipts = Vec::new();
    for answering in sends.drain(..RECEIPTS_BEFORE) {
        receipts.push(answering.answer::<SentInfo>().await?.sequence);
    }
    let in_flight = story.application(VICTIM)?.unanswered();
    ensure!(in_flight > 0, "nothing was under way when the application died");
    story.kill(VICTIM).await?;
    story.open(VICTIM).await?;
    // What it had stored goes first, so everything is there once this is.
    story.say(VICTIM, LAST).await?;
    for listener in DEPARTMENTS.into_iter().filter(|listener| *listener != VICTIM) {
        while story.hear(listener, 1).await?[0].text != LAST {}
    }
    // The receipt may be there before the own message has come back.
    let last_is_back = || async {
        story.history(VICTIM).await.is_ok_and(|own| own.last().is_some_and(|message| message.text == LAST))
    };
    eventually(BACK_WITHIN, "its own last message comes back", last_is_back).await?;
    // What it had not read when it died it is given now, and what it had read but not yet noted once more.
    while story.hear(VICTIM, 1).await?[0].text != UNREAD {}
    let own = story.common_history().await?;
    let new = own.get(before..).context("the history has become shorter")?;
    let texts: Vec<&str> = new.iter().map(|message| message.text.as_str()).collect();
    check(&texts)?;
    let places: Vec<u64> = new.iter().take(RECEIPTS_BEFORE).map(|message| message.sequence).collect();
    ensure!(places == receipts, "a receipt from before names another place: {receipts:?}, {places:?}");
    let count = new.len() - 1;
    let telling = Telling::new(
        format!("审计局应用发送途中被 kill -9，{in_flight} 条未获回执；重启后已存的 {count} 条各送达一次，次序不变"),
        format!(
            "an application killed while it spoke, {in_flight} messages without a receipt; started again, the {count} that it had stored arrive once each, in order"
        ),
    );
    Ok(((), telling.fact("messages", count).fact("in_flight", in_flight)))
}

fn text(number: usize) -> String {
    format!("{}重启 {number:03}，{PHRASE}。", VICTIM.name())
}

/// The first messages without one left out, then the last of all: what was not stored may be missing only at the end.
fn check(texts: &[&str]) -> anyhow::Result<()> {
    let (last, stored) = texts.split_last().context("nothing arrived")?;
    ensure!(*last == LAST, "what was said after the start is not last");
    ensure!(stored.len() >= RECEIPTS_BEFORE, "what was acknowledged is gone");
    for (number, found) in (1..).zip(stored) {
        ensure!(*found == text(number), "{found} stands where message {number} was expected");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_doubled_or_swapped_message_is_noticed() {
        let good: Vec<String> = (1..=9).map(text).chain([LAST.to_owned()]).collect();
        let judge = |texts: &[String]| check(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        judge(&good).expect("the good case");
        let wrong = |change: fn(&mut Vec<String>)| {
            let mut changed = good.clone();
            change(&mut changed);
            judge(&changed).is_err()
        };
        assert!(wrong(|texts| drop(texts.remove(3))), "lost");
        assert!(wrong(|texts| texts.insert(3, texts[3].clone())), "doubled");
        assert!(wrong(|texts| texts.swap(3, 4)), "swapped");
        assert!(wrong(|texts| drop(texts.pop())), "the last one");
        assert!(wrong(|texts| drop(texts.drain(4..9))), "what was acknowledged");
    }
}
