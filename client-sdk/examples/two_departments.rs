//! The page of the README: two departments talk. `cargo demo --keep` leaves a gateway running and prints the federation's folder; then,
//! in two terminals:
//!
//! ```text
//! cargo run -p lianxin-sdk --example two_departments -- FEDERATION shenji
//! cargo run -p lianxin-sdk --example two_departments -- FEDERATION jiwei lianxin://shenji/…
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to people")]

use std::process::ExitCode;

use lianxin_sdk::{Classification, Client, Config, DeviceUri, Label};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    // An error says what could not be done, its sources say why.
    eprintln!("failed: {error}");
    let mut reason = error.source();
    while let Some(error) = reason {
        eprintln!("  because: {error}");
        reason = error.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let federation = arguments.next().ok_or("name the federation's folder: FOLDER DEPARTMENT [PEER]")?;
    let department = arguments.next().ok_or("name a department: FOLDER DEPARTMENT [PEER]")?;
    let peer: Option<DeviceUri> = arguments.next().map(|peer| peer.parse()).transpose()?;

    // Certificates and keys of one application (each department of a minted federation has app-1 and app-2), and a folder
    // for its sealed state. The same folder later is the same device: channels, unread messages and whatever waited to be
    // sent are still there. The key that opens it lies beside it, in `state-….key`.
    let config = Config::from_certs_dev(federation.as_ref(), &department, "app-2", format!("state-{department}"))?;
    let client = Client::open(config).await?;
    // Waits up to a minute for the gateway; `client.events()` tells at once what is wrong.
    client.connected().await?;
    println!("I am {}", client.device().as_str());

    match peer {
        Some(peer) => ask(&client, peer).await?,
        None => answer(&client).await?,
    }
    client.close().await?;
    Ok(())
}

/// Creates a channel that names two departments and no other, invites, asks, and waits for the answer.
async fn ask(client: &Client, peer: DeviceUri) -> Result<()> {
    let label = Label::new(Classification::General3, "联合核查", "审计法第三十七条", None)?;
    let departments = [client.device().department().clone(), peer.department().clone()];
    let channel = client.create(label, &departments).await?;
    channel.invite(&[peer]).await?;
    // The receipt says: durable, in order, audited. If the gateway dies now, nothing is lost.
    let receipt = channel.send("请提供三月份台账。").await?;
    println!("event {} of the channel, leaf {} of the audit log", receipt.sequence.0, receipt.leaf_index);
    let message = channel.receive().next().await.ok_or("closed")??;
    println!("{}: {}", message.sender.department(), message.text().unwrap_or("(not text)"));
    Ok(())
}

/// Waits for an invitation, looks at who is there, and answers.
async fn answer(client: &Client) -> Result<()> {
    let invitation = client.invitations().next().await.ok_or("closed")??;
    let channel = client.accept(invitation).await?;
    for member in channel.info().await?.members {
        println!("in the channel: {}", member.as_str());
    }
    let message = channel.receive().next().await.ok_or("closed")??;
    println!("{}: {}", message.sender.department(), message.text().unwrap_or("(not text)"));
    channel.send("已收到，稍后提供。").await?;
    Ok(())
}
