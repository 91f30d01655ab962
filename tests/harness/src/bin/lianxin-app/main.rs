//! An example of a department's application: opens an SDK client and does what JSON lines on standard input ask for.
//!
//! For: the demo and the end-to-end stories, which need applications in processes of their own; and for whoever wants to try
//! the SDK by hand. The lines are described in `lianxin_harness`'s `calls.rs`.

mod answers;
mod desk;

use std::process::ExitCode;

use clap::Parser;

/// Example application of a department. Reads one JSON call per line, answers one JSON object per line.
#[derive(Debug, Parser)]
#[command(
    name = "lianxin-app",
    version,
    after_help = "Example:\n  {\"id\":1,\"call\":\"open\",\"federation\":\"federation\",\"department\":\"jiwei\",\"app\":\"app-1\",\"state\":\"state\"}\n  {\"id\":2,\"call\":\"connected\"}\n  {\"id\":3,\"call\":\"close\"}"
)]
struct CommandLine {}

/// One thread: calls are begun in the order of their lines.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let CommandLine {} = CommandLine::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match desk::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            answers::complain(&format!("lianxin-app: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
