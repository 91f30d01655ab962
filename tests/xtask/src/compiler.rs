//! The C compiler that the TLS library and SQLite are built with.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::packages;

/// Makes sure that a C compiler with its headers is there. Installs one with apt-get where we may (as root).
///
/// # Errors
/// Says what is missing and how to get it.
pub(crate) fn ensure() -> Result<()> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if compiles(&compiler) {
        return Ok(());
    }
    if packages::install("no working C compiler", "gcc libc6-dev")? && compiles(&compiler) {
        return Ok(());
    }
    bail!(
        "`{compiler}` cannot compile a C program: a C compiler or the C library's headers are missing.\n\
         Install them, then run this again:\n  \
         Debian, Ubuntu   sudo apt-get install gcc libc6-dev\n  \
         Fedora, openEuler, Kylin   sudo dnf install gcc glibc-devel\n  \
         macOS   xcode-select --install"
    )
}

/// Whether `compiler` compiles a program that includes a header of the C library.
fn compiles(compiler: &str) -> bool {
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-fsyntax-only", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that does not read its input says so by its exit code.
        drop(std::io::Write::write_all(&mut stdin, b"#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n"));
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_not_there_or_does_not_compile_is_noticed() {
        assert!(!compiles("no-such-compiler"));
        assert!(!compiles("false"));
        assert!(compiles("cc"), "Rust links with cc, so this machine has it");
    }
}
