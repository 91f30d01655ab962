//! `kill -9` of the gateway while two departments speak: nothing is lost and nothing is doubled.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use anyhow::{Context as _, ensure};
use lianxin_harness::{Answering, Call, MessageInfo, SentInfo};

use crate::narrator::Telling;
use crate::story::{DEPARTMENTS, Department, Story};

/// Messages of each of the two speakers; many enough that some are under way whenever the gateway dies.
const MESSAGES_EACH: usize = 150;
/// Receipts of each after which the gateway is killed.
const RECEIPTS_BEFORE: usize = 5;
const SPEAKERS: [Department; 2] = [Department::Jiwei, Department::Shenji];
/// In each of the messages, so that the search for plaintext can find them.
const PHRASE: &str = "断电前后都要送达";

pub(crate) async fn crash(story: &mut Story) -> anyhow::Result<((), Telling)> {
    let before = story.common_history().await?.len();
    story.said.push(PHRASE.to_owned());
    let half = MESSAGES_EACH / 2;
    let mut sends = begin(story, 1..=half).await?;
    let mut receipts = HashMap::new();
    for (text, answering) in sends.drain(..RECEIPTS_BEFORE * SPEAKERS.len()) {
        receipts.insert(text, answering.answer::<SentInfo>().await?);
    }
    story.stage.gateway.kill().await?;
    // They go on speaking while it is dead, so that something is under way however fast the first half went.
    sends.extend(begin(story, half + 1..=MESSAGES_EACH).await?);
    let mut in_flight = 0;
    for speaker in SPEAKERS {
        in_flight += story.application(speaker)?.unanswered();
    }
    ensure!(in_flight > 0, "nothing was under way while the gateway was dead");
    story.stage.gateway.start().await?;
    for (text, answering) in sends {
        let receipt = answering.answer::<SentInfo>().await.with_context(|| text.clone())?;
        receipts.insert(text, receipt);
    }
    for listener in DEPARTMENTS {
        let speakers = SPEAKERS.iter().filter(|speaker| **speaker != listener).count();
        story.hear(listener, speakers * MESSAGES_EACH).await?;
    }
    let history = story.common_history().await?;
    let new = history.get(before..).context("the history has become shorter")?;
    check(new, &receipts)?;
    let count = new.len();
    let telling = Telling::new(
        format!("{count} 条发送途中 kill -9 网关，重启前 {in_flight} 条未获回执；重启后不丢、不重、序号连续"),
        format!(
            "killed in mid-conversation, {in_flight} of {count} messages without a receipt; after the restart none is lost, none doubled"
        ),
    );
    Ok(((), telling.fact("messages", count).fact("in_flight", in_flight)))
}

/// Begins these sends, the speakers in turn.
async fn begin(story: &Story, numbers: RangeInclusive<usize>) -> anyhow::Result<Vec<(String, Answering)>> {
    let mut sends = Vec::new();
    for number in numbers {
        for speaker in SPEAKERS {
            let text = text(speaker, number);
            let answering = story.application(speaker)?.begin(Call::send(&story.channel, text.clone())).await?;
            sends.push((text, answering));
        }
    }
    Ok(sends)
}

fn text(speaker: Department, number: usize) -> String {
    format!("{}第 {number:03} 条，{PHRASE}。", speaker.name())
}

/// Everything once, each speaker's messages in their order, sequences without gaps, every receipt true.
fn check(messages: &[MessageInfo], receipts: &HashMap<String, SentInfo>) -> anyhow::Result<()> {
    ensure!(messages.len() == SPEAKERS.len() * MESSAGES_EACH, "{} messages arrived", messages.len());
    for speaker in SPEAKERS {
        let said = messages.iter().map(|message| &message.text).filter(|text| text.starts_with(speaker.name()));
        let expected = (1..=MESSAGES_EACH).map(|number| text(speaker, number));
        ensure!(said.cloned().eq(expected), "{}'s messages are not there once and in order", speaker.name());
    }
    for pair in messages.windows(2) {
        ensure!(pair[0].sequence + 1 == pair[1].sequence, "a gap behind sequence {}", pair[0].sequence);
    }
    for message in messages {
        let receipt = receipts.get(&message.text).context("a message without a receipt")?;
        ensure!(
            receipt.sequence == message.sequence,
            "the receipt for {} names {}",
            message.sequence,
            receipt.sequence
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> (Vec<MessageInfo>, HashMap<String, SentInfo>) {
        let texts = (1..=MESSAGES_EACH).flat_map(|number| SPEAKERS.map(|speaker| text(speaker, number)));
        let message = |(sequence, text)| MessageInfo { sequence, sender: String::new(), text };
        let messages: Vec<_> = (10..).zip(texts).map(message).collect();
        let receipt = |message: &MessageInfo| SentInfo { sequence: message.sequence, leaf_index: 0 };
        let receipts = messages.iter().map(|message| (message.text.clone(), receipt(message))).collect();
        (messages, receipts)
    }

    #[test]
    fn a_lost_doubled_or_swapped_message_is_noticed() {
        let (messages, receipts) = good();
        let wrong = |change: fn(&mut Vec<MessageInfo>)| {
            let mut changed = messages.clone();
            change(&mut changed);
            check(&changed, &receipts).is_err()
        };
        assert!(wrong(|messages| drop(messages.remove(7))), "lost");
        assert!(wrong(|messages| messages.insert(7, messages[7].clone())), "doubled");
        assert!(wrong(|messages| messages[9].text = messages[7].text.clone()), "doubled in the place of a lost one");
        assert!(wrong(|messages| messages.swap(7, 9)), "swapped");
        assert!(wrong(|messages| messages.iter_mut().skip(7).for_each(|message| message.sequence += 1)), "a gap");
    }

    #[test]
    fn a_receipt_that_names_another_place_is_noticed() {
        let (messages, mut receipts) = good();
        check(&messages, &receipts).expect("the good case");
        receipts.values_mut().next().expect("there are some").sequence += 1;
        assert!(check(&messages, &receipts).is_err());
    }
}
