//! Proposals and commits (RFC 9420 section 12).

use super::leaf::{extensions, key_package, leaf_node};
use super::reading::Reading;
use crate::{Frame, Piece};

pub(super) fn proposal(reading: &mut Reading<'_>) -> Option<Piece> {
    let (kind, value) = reading.number("proposal_type", 2)?;
    let mut pieces = vec![kind];
    pieces.push(match value {
        1 => key_package(reading)?,
        2 => leaf_node(reading)?,
        3 => reading.fixed("removed", 4)?,
        6 => reading.opaque("kem_output")?,
        7 => extensions("context_extensions", reading)?,
        // The profile allows no other, and a message that has one is mutated as bytes.
        _ => return None,
    });
    Some(Piece::list("proposal", Frame::Bare, pieces))
}

pub(super) fn commit(reading: &mut Reading<'_>) -> Option<Piece> {
    let proposals = reading.vector("proposals", |reading| {
        let (kind, value) = reading.number("proposal_or_ref", 1)?;
        let inner = if value == 1 { proposal(reading)? } else { reading.opaque("reference")? };
        Some(Piece::list("proposal_or_ref", Frame::Bare, vec![kind, inner]))
    })?;
    let path = reading.optional("path", |reading| {
        let leaf = leaf_node(reading)?;
        let nodes = reading.vector("path_nodes", |reading| {
            let key = reading.opaque("node_key")?;
            let secrets = reading.vector("encrypted_path_secret", ciphertext)?;
            Some(Piece::list("path_node", Frame::Bare, vec![key, secrets]))
        })?;
        Some(Piece::list("update_path", Frame::Bare, vec![leaf, nodes]))
    })?;
    Some(Piece::list("commit", Frame::Bare, vec![proposals, path]))
}

/// HPKECiphertext.
pub(super) fn ciphertext(reading: &mut Reading<'_>) -> Option<Piece> {
    let pieces = vec![reading.opaque("kem_output")?, reading.opaque("hpke_ciphertext")?];
    Some(Piece::list("hpke", Frame::Bare, pieces))
}
