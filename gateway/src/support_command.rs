//! The command `support-bundle`: what it is asked, and what it says.

use std::path::PathBuf;

use anyhow::Context as _;
use lianxin_gateway::{SupportRequest, write_support_bundle};
use lianxin_types::SystemClock;

/// Arguments of the command.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  lianxin-gateway support-bundle --config gateway.toml --out support.tar\n  lianxin-gateway support-bundle --config gateway.toml --out support.tar --log /var/log/lianxin.log --log-lines 500\n  journalctl -u lianxin-gateway > gateway.log   # a log that goes into the journal\n\nIt works beside a running gateway and on a broken zone. Look through the archive before you send it: tar -xOf support.tar | less"
)]
pub(crate) struct SupportCommand {
    /// The gateway's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// The archive to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// The gateway's log, if it goes into a file.
    #[arg(long)]
    log: Option<PathBuf>,
    /// So many of the log's last lines; at most 100000.
    #[arg(long, default_value_t = 2_000)]
    log_lines: usize,
}

impl SupportCommand {
    /// Writes the archive and says what is in it.
    #[expect(clippy::print_stdout, reason = "the command's result")]
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let request =
            SupportRequest { config: self.config, out: self.out, log: self.log, log_lines_max: self.log_lines };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        let entries = runtime.block_on(write_support_bundle(&request, &SystemClock))?;
        println!("{}", request.out.display());
        for entry in entries {
            println!("  {:<36} {:>8} bytes", entry.name, entry.bytes);
        }
        println!("Look through it before you send it: tar -xOf {} | less", request.out.display());
        Ok(())
    }
}
