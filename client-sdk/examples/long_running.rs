//! An application that runs for months: it accepts whoever invites it, answers every message, tells what happens, and closes in order when
//! it is asked to (Ctrl-C, or SIGTERM from whatever supervises it).
//!
//! ```text
//! cargo run -p lianxin-sdk --example long_running -- FEDERATION shenji
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to people")]

use std::error::Error;

use lianxin_sdk::{Channel, Client, ClientError, Config, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let federation = arguments.next().ok_or("name the federation's folder: FOLDER DEPARTMENT")?;
    let department = arguments.next().ok_or("name a department: FOLDER DEPARTMENT")?;
    let config = Config::from_certs_dev(federation.as_ref(), &department, "app-2", format!("state-{department}"))?;
    // Opening needs no connection: what is there can be read, and what is sent waits until there is one.
    let client = Client::open(config).await?;
    println!("I am {}", client.device().as_str());

    let mut stop = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = serve(&client) => ended?,
        _ = stop.recv() => println!("asked to stop"),
        _ = tokio::signal::ctrl_c() => println!("asked to stop"),
    }
    // Stores how far was read, and lets go of the state folder. Without it nothing is lost either: the last messages come again.
    client.close().await?;
    println!("closed");
    Ok(())
}

/// Everything that the application does; returns when the client is closed.
async fn serve(client: &Client) -> Result<(), ClientError> {
    let mut channels = JoinSet::new();
    // Those of before: what came while this was not running is given first.
    for channel in client.channels().await? {
        channels.spawn(answer(channel));
    }
    let mut invitations = client.invitations();
    let watching = watch(client);
    let accepting = async {
        while let Some(invitation) = invitations.next().await {
            let invitation = invitation?;
            println!("invited by {}", invitation.inviter.as_str());
            match client.accept(invitation).await {
                Ok(channel) => drop(channels.spawn(answer(channel))),
                // One that is not what it says, or not open any more, is no reason to stop.
                Err(error) => eprintln!("failed: {error}"),
            }
        }
        Ok(())
    };
    tokio::try_join!(watching, accepting).map(|_| ())
}

/// Answers whatever comes. A message counts as read when the next one is asked for, so nothing that is not answered is lost.
async fn answer(channel: Channel) {
    let mut messages = channel.receive();
    while let Some(message) = messages.next().await {
        let Ok(message) = message else { return };
        println!("{}: {}", message.sender.department(), message.text().unwrap_or("(not text)"));
        let reply = format!("收到第 {} 号。", message.sequence.0);
        if let Err(error) = channel.send(reply).await {
            // Not a member any more, for example; the SDK tries again what may be tried again.
            eprintln!("failed: {error}");
        }
    }
}

async fn watch(client: &Client) -> Result<(), ClientError> {
    let mut events = client.events();
    while let Some(event) = events.next().await {
        match event? {
            Event::MemberJoined { device, by, .. } => println!("{} came, let in by {}", device.as_str(), by.as_str()),
            Event::MemberLeft { device, .. } => println!("{} is gone", device.as_str()),
            Event::Violation { detail, .. } => println!("something is wrong: {detail}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
