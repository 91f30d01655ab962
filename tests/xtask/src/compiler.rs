//! The C compiler that the TLS library and SQLite are built with.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::program;

/// Makes sure that a C compiler with its headers is there. Installs one with apt-get where we may (as root).
///
/// # Errors
/// Says what is missing and how to get it.
pub(crate) fn ensure() -> Result<()> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if compiles(&compiler) {
        return Ok(());
    }
    if is_root() && succeeds(Command::new("apt-get").arg("--version")) {
        program::tell("no working C compiler: installing gcc and libc6-dev with apt-get");
        let mut apt = Command::new("sh");
        apt.arg("-c")
            .arg("apt-get update && apt-get install --yes gcc libc6-dev")
            .env("DEBIAN_FRONTEND", "noninteractive");
        program::run(&mut apt)?;
        if compiles(&compiler) {
            return Ok(());
        }
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

fn is_root() -> bool {
    program::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
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
