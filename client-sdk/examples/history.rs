//! What lies in the local, sealed log: the list of channels with what is unread, paging back through one, looking for a word, and the
//! mark of what was read. None of it needs a connection.
//!
//! ```text
//! cargo run -p lianxin-sdk --example history -- FEDERATION jiwei          # the newest messages of each channel
//! cargo run -p lianxin-sdk --example history -- FEDERATION jiwei 台账     # those with this word, from the newest back
//! ```
#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;

use lianxin_sdk::{Channel, Client, ClientError, Config, Message, Origin, Sequence};

/// Messages of a page.
const PAGE: usize = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let federation = arguments.next().ok_or("name the federation's folder: FOLDER DEPARTMENT [WORD]")?;
    let department = arguments.next().ok_or("name a department: FOLDER DEPARTMENT [WORD]")?;
    let word = arguments.next();
    let config = Config::from_certs_dev(federation.as_ref(), &department, "app-2", format!("state-{department}"))?;
    let client = Client::open(config).await?;

    // The channel with the latest message comes first.
    for summary in client.overview().await? {
        println!("「{}」 {} members, {} unread", summary.label.purpose(), summary.members, summary.unread);
        let channel = client.channel(summary.id);
        match &word {
            Some(word) => find(&channel, word).await?,
            None => show_newest(&channel).await?,
        }
    }
    client.close().await?;
    Ok(())
}

/// One page, the newest, oldest first; it counts as read then.
async fn show_newest(channel: &Channel) -> Result<(), ClientError> {
    let page = channel.history_before(Sequence(u64::MAX), PAGE).await?;
    page.iter().for_each(show);
    if let Some(last) = page.last() {
        // An application that shows the history marks it itself; `receive` begins behind the mark.
        let mark = channel.mark_read(last.sequence).await?;
        println!("read up to {}", mark.0);
    }
    Ok(())
}

/// Pages back to the beginning. The log is sealed, so there is no index over it: each page is opened and looked through.
async fn find(channel: &Channel, word: &str) -> Result<(), ClientError> {
    let (mut before, mut found) = (Sequence(u64::MAX), 0);
    loop {
        let page = channel.history_before(before, PAGE).await?;
        let Some(first) = page.first() else { break };
        before = first.sequence;
        for message in page.iter().rev().filter(|message| message.text().is_some_and(|text| text.contains(word))) {
            show(message);
            found += 1;
        }
    }
    println!("{found} with {word}");
    Ok(())
}

fn show(message: &Message) {
    let from = match message.origin {
        Origin::Own => "we".to_owned(),
        Origin::Member => message.sender.department().to_string(),
    };
    println!("{:>6} {from}: {}", message.sequence.0, message.text().unwrap_or("(not text)"));
}
