//! What identities, keys and bytes look like in text.

use std::net::{Ipv4Addr, Ipv6Addr};

use lianxin_types::Kind;

use super::Hidden;

/// Longest distance between the marks of one PEM block; beyond it a beginning has no end.
const PEM_BYTES_MAX: usize = 64 * 1024;
/// From this length on a word of mixed letters and digits is taken for a key.
const TOKEN_CHARS_MIN: usize = 20;
/// So much of such a word must be of mixed kind.
const MIXED_CHARS_MIN: usize = 8;
/// The same where it has `+` or ends in `=`, as no other word does.
const MIXED_CHARS_MIN_BASE64: usize = 4;
/// From 8 bytes on: as long as the opaque ids in identities.
const HEX_DIGITS_MIN: usize = 16;
/// Microseconds since 1970 have 16 digits.
const DIGITS_MIN: usize = 18;

/// `lianxin://…`, in any case, also percent-encoded or with escaped slashes.
pub(super) fn identity(_: Option<char>, rest: &str) -> Option<Hidden> {
    const SCHEME: &str = "lianxin";
    let begins = |text: &str, with: &str| text.get(..with.len()).is_some_and(|at| at.eq_ignore_ascii_case(with));
    if !begins(rest, SCHEME) {
        return None;
    }
    let mut behind = &rest[SCHEME.len()..];
    for spellings in [&[":", "%3a"][..], &["/", "\\/", "%2f"], &["/", "\\/", "%2f"]] {
        let found = spellings.iter().find(|spelling| begins(behind, spelling))?;
        behind = &behind[found.len()..];
    }
    let ends = |letter: char| letter.is_whitespace() || letter.is_control() || "\"'`<>()[]{},;|".contains(letter);
    let length = behind.find(ends).unwrap_or(behind.len());
    Some((rest.len() - behind.len() + length, "[identity]".into()))
}

/// `b"…"` as Rust prints byte strings, also inside JSON.
pub(super) fn byte_literal(before: Option<char>, rest: &str) -> Option<Hidden> {
    if before.is_some_and(is_word) {
        return None;
    }
    let (quote, body) = match (rest.strip_prefix("b\""), rest.strip_prefix("b\\\"")) {
        (Some(body), _) => ("\"", body),
        (None, Some(body)) => ("\\\"", body),
        (None, None) => return None,
    };
    let mut at = 0;
    let end = loop {
        let Some(found) = body[at..].find(quote) else { break body.len() };
        let end = at + found + quote.len();
        // A quote with an odd number of backslashes before it belongs to the bytes.
        let escapes = body[..at + found].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if escapes % 2 == 0 {
            break end;
        }
        at = end;
    };
    Some((rest.len() - body.len() + end, "[bytes]".into()))
}

/// `[18, 52, 255, …]` as Rust prints byte arrays, on one line or many.
pub(super) fn byte_list(_: Option<char>, rest: &str) -> Option<Hidden> {
    const NUMBERS_MIN: usize = 8;
    let body = rest.strip_prefix('[')?;
    let length =
        body.find(|letter: char| !(letter.is_ascii_digit() || letter == ',' || letter.is_ascii_whitespace()))?;
    let numbers: Vec<&str> = body[..length].split(',').map(str::trim).filter(|number| !number.is_empty()).collect();
    let is_bytes = numbers.len() >= NUMBERS_MIN && numbers.iter().all(|number| number.parse::<u8>().is_ok());
    (is_bytes && body[length..].starts_with(']')).then(|| (length + 2, "[bytes]".into()))
}

/// `\x12\xff…`, with any number of backslashes.
pub(super) fn escaped_bytes(_: Option<char>, rest: &str) -> Option<Hidden> {
    const BYTES_MIN: usize = 4;
    let (mut behind, mut count) = (rest, 0);
    while let Some(more) = behind.strip_prefix('\\') {
        let Some(digits) = more.trim_start_matches('\\').strip_prefix('x') else { break };
        if !starts_with_hex_pair(digits) {
            break;
        }
        behind = &digits[2..];
        count += 1;
    }
    (count >= BYTES_MIN).then(|| (rest.len() - behind.len(), "[bytes]".into()))
}

/// `3a:4f:…`, `3a-4f-…`, `3a 4f …`: serial numbers, fingerprints, hardware addresses.
pub(super) fn spelt_hex(before: Option<char>, rest: &str) -> Option<Hidden> {
    if before.is_some_and(|letter| letter.is_ascii_alphanumeric()) {
        return None;
    }
    let separator = rest.chars().nth(2).filter(|separator| ":- ".contains(*separator))?;
    let (mut at, mut count) = (0, 0);
    while starts_with_hex_pair(&rest[at..]) {
        count += 1;
        at += 2;
        match rest[at..].chars().next() {
            Some(letter) if letter == separator => at += 1,
            Some(letter) if letter.is_ascii_alphanumeric() => return None,
            _ => break,
        }
    }
    let needed = if separator == ' ' { 8 } else { 6 };
    let length = rest[..at].trim_end_matches(separator).len();
    (count >= needed).then(|| (length, "[hex]".into()))
}

fn starts_with_hex_pair(text: &str) -> bool {
    text.len() >= 2 && text.bytes().take(2).all(|digit| digit.is_ascii_hexdigit())
}

/// The value behind a word for a secret: `password=…`, `"token": "…"`, `Authorization: …`.
pub(super) fn named_secret(before: Option<char>, rest: &str) -> Option<Hidden> {
    const WORDS: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "api_key"];
    const WHOLE_LINE: [&str; 2] = ["authorization", "cookie"];
    const QUOTES: [char; 3] = ['"', '\'', '\\'];
    if before.is_some_and(|letter| letter.is_ascii_alphanumeric()) {
        return None;
    }
    let mut names = WORDS.iter().chain(&WHOLE_LINE);
    let name = names.find(|name| rest.get(..name.len()).is_some_and(|at| at.eq_ignore_ascii_case(name)))?;
    let behind = rest[name.len()..].trim_start_matches(QUOTES).trim_start_matches(' ');
    let value = behind.strip_prefix(['=', ':'])?.trim_start_matches(' ').trim_start_matches(QUOTES);
    let whole_line = WHOLE_LINE.contains(name);
    let ends = |letter: char| match letter {
        '\n' | '"' | '\'' => true,
        ',' | ';' => !whole_line,
        letter => letter.is_whitespace() && !whole_line,
    };
    let length = value.find(ends).unwrap_or(value.len());
    let head = rest.len() - value.len();
    (length > 0).then(|| (head + length, format!("{}[secret]", &rest[..head]).into()))
}

/// `somebody@somewhere.cn`.
pub(super) fn mail(before: Option<char>, rest: &str) -> Option<Hidden> {
    let is_local = |letter: char| letter.is_ascii_alphanumeric() || "._%+-".contains(letter);
    if before.is_some_and(is_local) {
        return None;
    }
    let local = rest.find(|letter| !is_local(letter))?;
    let host = rest[local..].strip_prefix('@')?;
    let end = host.find(|letter: char| !(letter.is_ascii_alphanumeric() || ".-".contains(letter)));
    let end = end.unwrap_or(host.len());
    (local > 0 && host[..end].contains('.')).then(|| (local + 1 + end, "[mail]".into()))
}

/// Network addresses but those that mean this machine.
pub(super) fn address(before: Option<char>, rest: &str) -> Option<Hidden> {
    if before.is_some_and(|letter| is_word(letter) || letter == '.' || letter == ':') {
        return None;
    }
    let run = |of: fn(char) -> bool| &rest[..rest.find(|letter| !of(letter)).unwrap_or(rest.len())];
    let four = run(|letter| letter.is_ascii_digit() || letter == '.').trim_end_matches('.');
    if let Ok(address) = four.parse::<Ipv4Addr>() {
        return hidden_unless(address.is_loopback() || address.is_unspecified(), four.len());
    }
    let six = run(|letter| letter.is_ascii_hexdigit() || letter == ':' || letter == '.');
    let six = six.strip_suffix(['.', ':']).filter(|shorter| shorter.parse::<Ipv6Addr>().is_ok()).unwrap_or(six);
    let parsed = six.parse::<Ipv6Addr>().ok().filter(|_| !rest[six.len()..].starts_with(is_word))?;
    hidden_unless(parsed.is_loopback() || parsed.is_unspecified(), six.len())
}

fn hidden_unless(is_this_machine: bool, length: usize) -> Option<Hidden> {
    (!is_this_machine).then(|| (length, "[address]".into()))
}

/// Hexadecimal, base64 and other long words that are no words, and identities without their scheme.
pub(super) fn word(before: Option<char>, rest: &str) -> Option<Hidden> {
    let is_token = |letter: char| letter.is_ascii_alphanumeric() || "+/_=-".contains(letter);
    if before.is_some_and(is_token) {
        return None;
    }
    let length = rest.find(|letter| !is_token(letter)).unwrap_or(rest.len());
    let token = &rest[..length];
    let hidden = |what: &'static str| Some((length, what.into()));
    let segments: Vec<&str> = token.split('/').collect();
    if let [_, kind, _, _] = segments[..]
        && Kind::ALL.iter().any(|known| known.as_str() == kind)
    {
        return hidden("[identity]");
    }
    let pieces = || token.split(['+', '/', '_', '=', '-']);
    if pieces().any(is_hex) || token.split(['+', '/', '_', '=']).any(is_uuid) {
        return hidden("[hex]");
    }
    if pieces().any(|piece| piece.len() >= DIGITS_MIN && piece.bytes().all(|byte| byte.is_ascii_digit())) {
        return hidden("[number]");
    }
    let mixed: usize = pieces().filter(|piece| !is_plain(piece)).map(str::len).sum();
    let is_base64 = token.contains('+') || token.ends_with('=');
    let needed = if is_base64 { MIXED_CHARS_MIN_BASE64 } else { MIXED_CHARS_MIN };
    if length >= TOKEN_CHARS_MIN && mixed >= needed { hidden("[token]") } else { None }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Long enough to be one, and with a letter, or it would be a number.
fn is_hex(piece: &str) -> bool {
    piece.len() >= HEX_DIGITS_MIN
        && piece.bytes().all(|byte| byte.is_ascii_hexdigit())
        && piece.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn is_uuid(token: &str) -> bool {
    let pieces: Vec<&str> = token.split('-').collect();
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    lengths == [8, 4, 4, 4, 12] && pieces.iter().all(|piece| piece.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A number, or a word in lower case, UPPER CASE or CamelCase, with digits at most at its end.
fn is_plain(piece: &str) -> bool {
    let letters = piece.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    if lower(letters) || letters.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return true;
    }
    let mut humps = letters.split(|letter: char| letter.is_ascii_uppercase());
    humps.next() == Some("") && humps.all(|hump| hump.len() >= 2 && lower(hump))
}

/// `text` without PEM blocks. One without an end goes as far as its lines are base64.
pub(super) fn without_pem(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(BEGIN) {
        shown.push_str(&rest[..at]);
        shown.push_str("[pem]");
        rest = &rest[at..];
        rest = &rest[pem_length(rest)..];
    }
    shown.push_str(rest);
    shown
}

/// How long the block is that `rest` begins with.
fn pem_length(rest: &str) -> usize {
    const END: &str = "-----END ";
    const DASHES: &str = "-----";
    let closed = rest.find(END).filter(|at| *at <= PEM_BYTES_MAX).and_then(|at| {
        let label = at + END.len();
        Some(label + rest[label..].find(DASHES)? + DASHES.len())
    });
    closed.unwrap_or_else(|| {
        let is_base64 =
            |line: &&str| line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte));
        let mut lines = rest.split_inclusive('\n');
        let first = lines.next().map_or(0, str::len);
        first + lines.take_while(is_base64).map(str::len).sum::<usize>()
    })
}
