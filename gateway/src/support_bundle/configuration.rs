//! The configuration by a list of what may be shown: a key that is not on it is counted, not named.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use toml::{Table, Value};

use super::whole;
use crate::config::{Config, ConfigError};

/// What is shown of a key.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// Its value.
    Value,
    /// What the system says of the file or files that it names.
    File,
}

use Shown::{File, Value as Plain};

/// Keys that are known to be harmless, in the order of the sample.
const KEYS: &[(&str, Shown)] = &[
    ("zone", Plain),
    ("listen", Plain),
    ("drain_seconds_max", Plain),
    ("tls.certificate", File),
    ("tls.key", File),
    ("trust.roots", File),
    ("trust.bundle", File),
    ("trust.bundle_history", File),
    ("trust.revocation_lists", File),
    ("trust.reread_seconds", Plain),
    ("trust.removal_key", File),
    ("store.engine", Plain),
    ("store.folder", File),
    ("store.free_bytes_min", Plain),
    ("store.reserve_bytes", Plain),
    ("audit.pseudonym_key", File),
    ("metrics.listen", Plain),
    ("log.filter", Plain),
    ("log.format", Plain),
    ("strength.connections_max", Plain),
    ("strength.department_connections_max", Plain),
    ("strength.source_connections_burst", Plain),
    ("strength.source_connections_per_second", Plain),
    ("strength.idle_seconds_max", Plain),
    ("strength.connection_seconds_max", Plain),
    ("strength.call_seconds_max", Plain),
    ("strength.message_seconds_max", Plain),
    ("strength.stall_seconds_max", Plain),
];

/// What may be known of the configuration in `path`, read as `config`.
pub(super) fn shown(path: &Path, config: &Result<Config, ConfigError>) -> String {
    let verdict = match config {
        Ok(_) => "it is good\n".to_owned(),
        Err(ConfigError::Value { key, .. }) => format!("it is refused: the value of {key} cannot be used\n"),
        // The parser quotes the line that it does not understand; where it is must do.
        Err(ConfigError::Parse { source, .. }) => match source.span() {
            Some(span) => format!("it is refused: it cannot be parsed from byte {} on\n", span.start),
            None => "it is refused: it cannot be parsed\n".to_owned(),
        },
        Err(error) => format!("it is refused: {}\n", whole(error)),
    };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let values = match text.parse::<Table>() {
        Ok(table) => table_shown(&table, path.parent().unwrap_or(Path::new("."))),
        Err(_) => String::new(),
    };
    verdict + &values
}

fn table_shown(table: &Table, folder: &Path) -> String {
    let lines = KEYS.iter().filter_map(|(key, shown)| {
        let value = match key.split_once('.') {
            Some((section, key)) => table.get(section)?.as_table()?.get(key)?,
            None => table.get(*key)?,
        };
        let said = match shown {
            Plain => plain(value),
            File => files(value, folder),
        };
        Some(format!("{key} = {said}\n"))
    });
    let lines: String = lines.collect();
    let hidden = leaves(table) - lines.lines().count();
    lines + &format!("{hidden} further keys are not shown\n")
}

fn leaves(table: &Table) -> usize {
    table.values().map(|value| value.as_table().map_or(1, leaves)).sum()
}

/// A number, or a text of the letters that addresses, words and filters are made of.
fn plain(value: &Value) -> String {
    let is_harmless = |letter: char| letter.is_ascii_alphanumeric() || "_-:.,=[]".contains(letter);
    match value {
        Value::Integer(number) => number.to_string(),
        Value::String(text) if text.chars().all(is_harmless) => text.clone(),
        _ => "(set)".to_owned(),
    }
}

fn files(value: &Value, folder: &Path) -> String {
    match value {
        Value::String(name) => file(&folder.join(name)),
        Value::Array(names) => {
            let each = names
                .iter()
                .map(|name| name.as_str().map_or("(not a name)".to_owned(), |name| file(&folder.join(name))));
            format!("{} files: [{}]", names.len(), each.collect::<Vec<_>>().join(", "))
        }
        _ => "(not a name)".to_owned(),
    }
}

fn file(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => format!("(a folder, mode {:o})", found.permissions().mode() & 0o7777),
        Ok(found) => format!("(a file, {} bytes, mode {:o})", found.len(), found.permissions().mode() & 0o7777),
        Err(error) => format!("({})", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        let text = "# for zhangsan\nzone = \"cn-zj-1\"\nsurname = \"zhangsan\"\nlisten = \"0.0.0.0:7443\"\n\
                    [tls]\ncertificate = \"zhangsan.pem\"\nkey = \"zhangsan.key\"\npin = \"1234\"\n\
                    [log]\nfilter = \"info [span{who=zhangsan}]\"\n[zhangsan]\na = 1\n";
        std::fs::write(&path, text).expect("written");
        std::fs::write(folder.path().join("zhangsan.key"), "secret").expect("written");
        let shown = shown(&path, &Config::read(&path));
        assert!(!shown.contains("zhangsan") && !shown.contains("1234") && !shown.contains("secret"), "{shown}");
        for line in ["zone = cn-zj-1", "listen = 0.0.0.0:7443", "log.filter = (set)", "3 further keys are not shown"] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        assert!(shown.contains("tls.key = (a file, 6 bytes, mode "), "{shown}");
        assert!(shown.contains("tls.certificate = (entity not found)"), "{shown}");
        assert!(shown.starts_with("it is refused: it cannot be parsed from byte "), "{shown}");
    }
}
