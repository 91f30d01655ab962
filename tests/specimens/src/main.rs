//! `lianxin-specimens FOLDER`: writes valid bytes for every parser, one folder each. For: the fuzzer's first corpus
//! (`tests/fuzz/README.md`).

use std::io::Write as _;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("name a folder: lianxin-specimens FOLDER")?;
    let count = lianxin_specimens::write_corpus(folder.as_ref())?;
    writeln!(std::io::stdout(), "{count} files in {}", folder.display())?;
    Ok(())
}
