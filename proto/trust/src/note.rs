//! The shape of a signed note (C2SP signed-note): a text, a blank line, signature lines.
//!
//! ```text
//! <text, ends in a newline>
//! <empty line>
//! — <key name> <base64(key hash, 4 bytes || Ed25519 signature, 64 bytes)>
//! ```
//!
//! The dash is U+2014, the base64 is RFC 4648 section 4 with padding, every line ends in one newline. The **signature** is
//! over the ASCII label of the thing, a zero byte, and the text with its last newline (PROTOCOL 9): that differs from the
//! specification's Ed25519 notes, so the **key hash** has a signature type of its own: the first four bytes of
//! `SHA-256(key name || 0x0A || 0xFF || label || public key)`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

/// Longest note in bytes, signatures included.
pub const NOTE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most signature lines of a note (C2SP leaves the bound to the reader).
pub const NOTE_SIGNATURES_MAX: usize = 64;

const LINE_START: &str = "\u{2014} ";

/// A note taken apart; nothing is verified yet.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// The text with its last newline, exactly as received.
    pub(crate) text: &'a str,
    /// The signature lines in their order.
    pub(crate) signatures: Vec<NoteSignature<'a>>,
}

/// One signature line.
#[derive(Debug)]
pub(crate) struct NoteSignature<'a> {
    /// The name that the line gives.
    pub(crate) name: &'a str,
    /// Which of that name's keys, and which kind of signature.
    pub(crate) key_hash: [u8; 4],
    /// The rest of the line: 64 bytes if it is one of ours.
    pub(crate) signature: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Takes a note apart; `None` if the bytes are not one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > NOTE_BYTES_MAX || bytes.iter().any(|byte| *byte < 0x20 && *byte != b'\n') {
            return None;
        }
        let note = std::str::from_utf8(bytes).ok()?;
        // The last blank line separates: a text may hold blank lines, signature lines never do.
        let split = note.rfind("\n\n")? + 1;
        let (text, lines) = (&note[..split], note[split + 1..].strip_suffix('\n')?);
        let signatures: Vec<_> =
            lines.split('\n').take(NOTE_SIGNATURES_MAX + 1).map(NoteSignature::parse).collect::<Option<_>>()?;
        (signatures.len() <= NOTE_SIGNATURES_MAX).then_some(Self { text, signatures })
    }
}

impl<'a> NoteSignature<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        let decoded = BASE64.decode(encoded).ok()?;
        let (key_hash, signature) = decoded.split_first_chunk::<4>()?;
        (is_key_name(name) && !signature.is_empty()).then(|| Self {
            name,
            key_hash: *key_hash,
            signature: signature.to_vec(),
        })
    }
}

/// Whether `name` can stand in a signature line.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// The four bytes that tell a name's keys and kinds of signature apart.
pub(crate) fn key_hash(label: &str, name: &str, key: &[u8; 32]) -> [u8; 4] {
    let hash =
        Sha256::new().chain_update(name).chain_update([b'\n', 0xff]).chain_update(label).chain_update(key).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What a signature under `label` is over.
pub(crate) fn signed_bytes(label: &str, text: &str) -> Vec<u8> {
    [label.as_bytes(), &[0], text.as_bytes()].concat()
}

/// The note over `text`, which ends in a newline, with one line per signer in the order given.
pub(crate) fn sign(label: &str, text: &str, signers: &[(&str, &SigningKey)]) -> Vec<u8> {
    let mut note = format!("{text}\n");
    let message = signed_bytes(label, text);
    for (name, key) in signers {
        let hash = key_hash(label, name, key.verifying_key().as_bytes());
        let line = BASE64.encode([&hash[..], &key.sign(&message).to_bytes()].concat());
        note.push_str(&format!("{LINE_START}{name} {line}\n"));
    }
    note.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_note_is_refused() {
        for bytes in [
            "",
            "\n",
            "text\n",
            "text\n\n",
            "text\n\n\n",
            "text\n\n— a AAAAAAA=",
            "text\n\n- a AAAAAAA=\n",
            "text\n\n— a AAAA\n",
            "text\n\n— a AAAAAA==\n",
            "text\n\n— AAAAAAA=\n",
            "text\n\n— a+b AAAAAAA=\n",
            "text\n\n— a AAAAAAA=\nmore\n",
            "te\txt\n\n— a AAAAAAA=\n",
        ] {
            assert!(Note::parse(bytes.as_bytes()).is_none(), "{bytes:?}");
        }
        assert!(Note::parse(b"te\xfft\n\n\xe2\x80\x94 a AAAAAAA=\n").is_none());
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let note = |lines: usize| format!("text\n\n{}", "— a AAAAAAA=\n".repeat(lines));
        assert!(Note::parse(note(NOTE_SIGNATURES_MAX).as_bytes()).is_some());
        assert!(Note::parse(note(NOTE_SIGNATURES_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn text_and_lines_are_told_apart_at_the_last_blank_line() {
        let note = Note::parse("one\n\ntwo\n\n— 根.example AQIDBAU=\n".as_bytes()).expect("a note");
        assert_eq!(note.text, "one\n\ntwo\n");
        let line = &note.signatures[0];
        assert_eq!((line.name, line.key_hash, &line.signature[..]), ("根.example", [1, 2, 3, 4], &[5][..]));
    }
}
