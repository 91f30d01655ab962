//! MLSMessage and what it holds (RFC 9420 sections 6 and 12.4.3).

use super::leaf::{extensions, key_package};
use super::proposal::{ciphertext, commit, proposal};
use super::reading::Reading;
use crate::{Frame, Piece};

const APPLICATION: u64 = 1;
const PROPOSAL: u64 = 2;
const COMMIT: u64 = 3;
const MEMBER: u64 = 1;
const EXTERNAL: u64 = 2;

pub(super) fn message(reading: &mut Reading<'_>) -> Option<Vec<Piece>> {
    let version = reading.fixed("version", 2)?;
    let (format, value) = reading.number("wire_format", 2)?;
    let body = match value {
        1 => public_message(reading)?,
        2 => private_message(reading)?,
        3 => welcome(reading)?,
        4 => group_info(reading)?,
        5 => key_package(reading)?,
        _ => return None,
    };
    Some(vec![version, format, body])
}

fn public_message(reading: &mut Reading<'_>) -> Option<Piece> {
    let mut pieces = vec![reading.opaque("group_id")?, reading.fixed("epoch", 8)?];
    let (sender, sender_type) = reading.number("sender_type", 1)?;
    pieces.push(sender);
    if sender_type == MEMBER || sender_type == EXTERNAL {
        pieces.push(reading.fixed("sender_index", 4)?);
    }
    pieces.push(reading.opaque("authenticated_data")?);
    let (content, content_type) = reading.number("content_type", 1)?;
    pieces.push(content);
    pieces.push(match content_type {
        APPLICATION => reading.opaque("application_data")?,
        PROPOSAL => proposal(reading)?,
        COMMIT => commit(reading)?,
        _ => return None,
    });
    pieces.push(reading.opaque("signature")?);
    if content_type == COMMIT {
        pieces.push(reading.opaque("confirmation_tag")?);
    }
    if sender_type == MEMBER {
        pieces.push(reading.opaque("membership_tag")?);
    }
    Some(Piece::list("public_message", Frame::Bare, pieces))
}

fn private_message(reading: &mut Reading<'_>) -> Option<Piece> {
    let pieces = vec![
        reading.opaque("group_id")?,
        reading.fixed("epoch", 8)?,
        reading.fixed("content_type", 1)?,
        reading.opaque("authenticated_data")?,
        reading.opaque("encrypted_sender_data")?,
        reading.opaque("ciphertext")?,
    ];
    Some(Piece::list("private_message", Frame::Bare, pieces))
}

fn welcome(reading: &mut Reading<'_>) -> Option<Piece> {
    let suite = reading.fixed("cipher_suite", 2)?;
    let secrets = reading.vector("secrets", |reading| {
        let member = reading.opaque("new_member")?;
        Some(Piece::list("group_secrets", Frame::Bare, vec![member, ciphertext(reading)?]))
    })?;
    let info = reading.opaque("encrypted_group_info")?;
    Some(Piece::list("welcome", Frame::Bare, vec![suite, secrets, info]))
}

fn group_info(reading: &mut Reading<'_>) -> Option<Piece> {
    let context = vec![
        reading.fixed("context_version", 2)?,
        reading.fixed("cipher_suite", 2)?,
        reading.opaque("group_id")?,
        reading.fixed("epoch", 8)?,
        reading.opaque("tree_hash")?,
        reading.opaque("confirmed_transcript_hash")?,
        extensions("context_extensions", reading)?,
    ];
    let pieces = vec![
        Piece::list("group_context", Frame::Bare, context),
        extensions("group_info_extensions", reading)?,
        reading.opaque("confirmation_tag")?,
        reading.fixed("signer", 4)?,
        reading.opaque("group_info_signature")?,
    ];
    Some(Piece::list("group_info", Frame::Bare, pieces))
}
