//! What sits in a tree: leaves, parents, key packages (RFC 9420 sections 7 and 10).

use super::reading::Reading;
use crate::{Frame, Piece};

/// `optional<Node>`.
pub(super) fn node(reading: &mut Reading<'_>) -> Option<Piece> {
    reading.optional("node", |reading| {
        let (kind, value) = reading.number("node_type", 1)?;
        let mut pieces = vec![kind];
        if value == 1 {
            pieces.push(leaf_node(reading)?);
        } else {
            pieces.push(reading.opaque("encryption_key")?);
            pieces.push(reading.opaque("parent_hash")?);
            pieces.push(reading.vector("unmerged_leaves", |reading| reading.fixed("leaf_index", 4))?);
        }
        Some(Piece::list("tree_node", Frame::Bare, pieces))
    })
}

pub(super) fn leaf_node(reading: &mut Reading<'_>) -> Option<Piece> {
    let mut pieces = vec![reading.opaque("encryption_key")?, reading.opaque("signature_key")?];
    let (kind, value) = reading.number("credential_type", 2)?;
    pieces.push(kind);
    pieces.push(match value {
        2 => reading.vector("certificates", |reading| reading.opaque("cert_data"))?,
        _ => reading.opaque("identity")?,
    });
    for name in ["versions", "cipher_suites", "extension_types", "proposal_types", "credential_types"] {
        pieces.push(reading.vector(name, |reading| reading.fixed("code_point", 2))?);
    }
    let (source, value) = reading.number("leaf_node_source", 1)?;
    pieces.push(source);
    match value {
        1 => pieces.extend([reading.fixed("not_before", 8)?, reading.fixed("not_after", 8)?]),
        3 => pieces.push(reading.opaque("parent_hash")?),
        _ => {}
    }
    pieces.push(extensions("leaf_extensions", reading)?);
    pieces.push(reading.opaque("leaf_signature")?);
    Some(Piece::list("leaf_node", Frame::Bare, pieces))
}

pub(super) fn extensions(name: &'static str, reading: &mut Reading<'_>) -> Option<Piece> {
    reading.vector(name, |reading| {
        let pieces = vec![reading.fixed("extension_type", 2)?, reading.opaque("extension_data")?];
        Some(Piece::list("extension", Frame::Bare, pieces))
    })
}

pub(super) fn key_package(reading: &mut Reading<'_>) -> Option<Piece> {
    let pieces = vec![
        reading.fixed("key_package_version", 2)?,
        reading.fixed("cipher_suite", 2)?,
        reading.opaque("init_key")?,
        leaf_node(reading)?,
        extensions("key_package_extensions", reading)?,
        reading.opaque("key_package_signature")?,
    ];
    Some(Piece::list("key_package", Frame::Bare, pieces))
}
