//! Two departments talk. Start a gateway with a federation of `lianxin-certs-dev`, then, in two terminals:
//!
//! ```text
//! cargo run -p lianxin-sdk --example two_departments -- FEDERATION shenji
//! cargo run -p lianxin-sdk --example two_departments -- FEDERATION jiwei lianxin://shenji/app/…/…
//! ```
//!
//! The first waits for an invitation and answers; the second creates a channel, invites, and says something.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use lianxin_sdk::{Classification, Client, Config, DeviceUri, Label};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let federation = PathBuf::from(arguments.next().context("name the federation's folder")?);
    let department = arguments.next().context("name a department, for example jiwei")?;
    let peer = arguments.next();

    let state = std::env::temp_dir().join(format!("lianxin-example-{department}"));
    let config = Config::from_certs_dev(&federation, &department, "app-1", state)?;
    let client = Client::open(config).await?;
    client.connected().await?;
    say(&format!("this is {}", client.device().as_str()))?;

    match peer {
        Some(peer) => invite(&client, peer.parse()?).await?,
        None => answer(&client).await?,
    }
    client.close().await?;
    Ok(())
}

async fn invite(client: &Client, peer: DeviceUri) -> anyhow::Result<()> {
    let label = Label::new(Classification::General3, "联合核查", "审计法", None)?;
    let departments = [client.device().department().clone(), peer.department().clone()];
    let channel = client.create(label, &departments).await?;
    channel.invite(&[peer]).await?;
    let receipt = channel.send("请提供三月份台账。").await?;
    say(&format!("sent; the gateway has it durable and audited as event {}", receipt.sequence.0))?;
    let message = channel.receive().next().await.context("the client was closed")??;
    say(&format!("{}: {}", message.sender.department(), message.text().unwrap_or("(not text)")))
}

async fn answer(client: &Client) -> anyhow::Result<()> {
    let invitation = client.invitations().next().await.context("the client was closed")??;
    let channel = client.accept(invitation).await?;
    let message = channel.receive().next().await.context("the client was closed")??;
    say(&format!("{}: {}", message.sender.department(), message.text().unwrap_or("(not text)")))?;
    channel.send("已收到，稍后提供。").await?;
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
