//! Other programs, started from the project's root, and the one place that writes to the terminal.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The project's root folder, found from this crate's place in it.
pub(crate) fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}

/// The Cargo that started us, or the one in the path.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` with our terminal.
///
/// # Errors
/// If it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = written(command);
    let status = command.status().with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// What `command` prints on its standard output.
///
/// # Errors
/// If it cannot be started, does not succeed, or prints something else than UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = written(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of `{name}`"))
}

/// Runs `command`, passes on each line that it prints and shows it to `watch`.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_watched(command: &mut Command, mut watch: impl FnMut(&str)) -> Result<()> {
    let name = written(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{name}`"))?;
    let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
    for line in lines.into_iter().flatten() {
        let line = line.with_context(|| format!("read the output of `{name}`"))?;
        say(&line);
        watch(&line);
    }
    let status = child.wait().with_context(|| format!("wait for `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// One line on standard output. A closed pipe is the reader's wish.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// One line on standard error.
pub(crate) fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// The command as one would type it.
fn written(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    command.get_args().fold(program, |text, argument| format!("{text} {}", argument.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest");
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_name() {
        let error = run(&mut Command::new("false")).expect_err("it fails");
        assert!(error.to_string().starts_with("`false` failed"), "{error}");
    }

    #[test]
    fn watched_lines_arrive_whole() {
        let mut lines = Vec::new();
        run_watched(Command::new("printf").arg("a\\nb\\n"), |line| lines.push(line.to_owned())).expect("it runs");
        assert_eq!(lines, ["a", "b"]);
    }
}
