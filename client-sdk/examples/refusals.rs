//! What can go wrong, and what an application does about it: four requests that cannot be granted, and how each answer is told apart by
//! its type and its reason code, never by its text.
//!
//! ```text
//! cargo run -p lianxin-sdk --example refusals -- FEDERATION jiwei lianxin://waibu/…     # some device of another department
//! ```
#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;

use lianxin_sdk::{ChannelId, Classification, Client, ClientError, Config, DeviceUri, Label, ReasonCode};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let federation = arguments.next().ok_or("name the federation's folder: FOLDER DEPARTMENT STRANGER")?;
    let department = arguments.next().ok_or("name a department: FOLDER DEPARTMENT STRANGER")?;
    let stranger: DeviceUri = arguments.next().ok_or("name a device of another department")?.parse()?;
    let config = Config::from_certs_dev(federation.as_ref(), &department, "app-2", format!("state-{department}"))?;
    let client = Client::open(config).await?;
    client.connected().await?;

    let label = Label::new(Classification::General3, "内部讨论", "审计法第三十七条", None)?;
    let own = client.device().department().clone();
    let channel = client.create(label.clone(), std::slice::from_ref(&own)).await?;
    tell("invite a department that the channel does not name", channel.invite(&[stranger]).await);
    tell("send more than 64 KiB", channel.send(vec![0; 65_537]).await);
    tell("send where one is no member", client.channel(ChannelId([0; 16])).send("有人吗？").await);
    tell("name a department that does not exist", client.create(label, &[own, "nobody".parse()?]).await);
    client.close().await?;
    Ok(())
}

fn tell<T>(what: &str, outcome: Result<T, ClientError>) {
    match outcome {
        Ok(_) => println!("{what}: done"),
        Err(error) => println!("{what}: failed: {error}: {}", advice(&error)),
    }
}

/// What the application does next. `Problem` prints as the text for people; decide by its code.
fn advice(error: &ClientError) -> String {
    match error {
        ClientError::Refused(problem) => match problem.code {
            ReasonCode::DepartmentNotNamed => "open a channel that names it".to_owned(),
            ReasonCode::NoKeyPackage => "that device has not been there yet; try later".to_owned(),
            ReasonCode::NotMember => "stop; somebody may invite this device again".to_owned(),
            // A newer gateway may have codes that this SDK does not know: they say by themselves whether trying again helps.
            code if problem.try_again => format!("try later ({})", code.as_str_name()),
            code => format!("{problem} ({})", code.as_str_name()),
        },
        ClientError::TooLarge { bytes_max, .. } => format!("cut it into pieces of {bytes_max} bytes"),
        ClientError::NotMember => "wait for an invitation".to_owned(),
        // Nobody decides here: the SDK goes on trying, and what was to be sent waits.
        ClientError::Offline | ClientError::Connect(_) | ClientError::OutboxFull => {
            "wait for the connection".to_owned()
        }
        // The local state or the engine said no, before anything was sent.
        other => other.source().map_or_else(|| "a fault of this program".to_owned(), ToString::to_string),
    }
}
