//! The one function that every text of a support bundle goes through: what looks like an identity, a key, a channel, an
//! address or bytes is replaced by a word in brackets.
//!
//! It is the second wall. The first is that nothing secret is collected at all; this one is for what other hands wrote into
//! a log, a file name or an error. So it rather hides too much: a long word in mixed letters is hidden whatever it is.
//! Department names stay (organisations are public, as logs have it), so do ports, loopback addresses, times, reason codes.

mod shapes;

use std::borrow::Cow;

/// Who wrote a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This program, from its own words.
    Ours,
    /// Anybody: a log, a name of a file, an error that quotes its input. Our own logs are ASCII, so whatever is not may be
    /// the name of a person or somebody's words, and is hidden.
    Foreign,
}

/// What a rule hides: how many bytes of the text's beginning, and what stands there instead.
type Hidden = (usize, Cow<'static, str>);

/// Looks at the beginning of a text, and the letter before it.
type Rule = fn(Option<char>, &str) -> Option<Hidden>;

/// The first rule that finds something wins.
const RULES: &[Rule] = &[
    shapes::identity,
    shapes::byte_literal,
    shapes::byte_list,
    shapes::escaped_bytes,
    shapes::spelt_hex,
    shapes::named_secret,
    shapes::mail,
    shapes::address,
    shapes::word,
];

/// `text` without what may not leave the house.
pub(crate) fn redacted(text: &str, origin: Origin) -> String {
    let text = shapes::without_pem(text);
    let mut shown = String::with_capacity(text.len());
    let (mut rest, mut before) = (text.as_str(), None);
    while let Some(letter) = rest.chars().next() {
        let hidden = foreign(rest, origin).or_else(|| RULES.iter().find_map(|rule| rule(before, rest)));
        let (length, replacement) = match hidden {
            Some((length, replacement)) => (length, replacement),
            None if letter.is_control() && letter != '\n' && letter != '\t' => (letter.len_utf8(), "?".into()),
            None => (letter.len_utf8(), rest[..letter.len_utf8()].to_owned().into()),
        };
        before = rest[..length].chars().next_back();
        shown.push_str(&replacement);
        rest = &rest[length..];
    }
    shown
}

fn foreign(rest: &str, origin: Origin) -> Option<Hidden> {
    let length = rest.find(|letter: char| letter.is_ascii()).unwrap_or(rest.len());
    (origin == Origin::Foreign && length > 0).then(|| (length, "[text]".into()))
}

#[cfg(test)]
mod tests;
