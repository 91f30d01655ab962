//! Signatures made again over what was changed (RFC 9420 sections 5.1.2, 6.1, 7.2, 10).

use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_mutation::{Content, Frame, Piece};

/// What is signed is: a label and the content, each behind its length.
fn sign(key: &SigningKey, label: &str, content: Vec<u8>) -> Vec<u8> {
    let label = Piece::leaf("label", Frame::Vector, format!("MLS 1.0 {label}").as_bytes());
    let content = Piece::leaf("content", Frame::Vector, &content);
    key.sign(&[label.encode(), content.encode()].concat()).to_bytes().to_vec()
}

/// Who signs a handshake, and for what.
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a SigningKey,
    /// The group context of the epoch in which it is sent.
    pub(crate) context: &'a [u8],
    /// The leaf that a path is for, where the message itself does not say so.
    pub(crate) leaf: u32,
}

/// Sender types that sign without the group context: an external sender, and a proposal of who is no member yet (RFC 9420
/// section 6.1).
const WITHOUT_CONTEXT: [u8; 2] = [2, 3];

/// Signs every part of a handshake again that `signer` may sign: the leaf in its path, then the message.
pub(crate) fn sign_again(message: &mut Piece, signer: &Signer<'_>) -> Option<()> {
    let Signer { key, context, leaf } = *signer;
    let Content::Pieces(pieces) = &mut message.content else { return None };
    let [version, format, public] = &mut pieces[..] else { return None };
    let group = child(public, "group_id")?.encode();
    let sender = child(public, "sender_index").map_or(leaf.to_be_bytes().to_vec(), |index| index.encode());
    let with_context = child(public, "sender_type")?.encode().iter().all(|kind| !WITHOUT_CONTEXT.contains(kind));
    if let Some(leaf) = find(public, &["commit", "path", "update_path", "leaf_node"]) {
        let mut content = until(leaf, "leaf_signature")?;
        content.extend(group);
        content.extend(sender);
        let signature = sign(key, "LeafNodeTBS", content);
        child(leaf, "leaf_signature")?.content = Content::Bytes(signature);
    }
    let mut content = [version.encode(), format.encode()].concat();
    content.extend(until(public, "signature")?);
    if with_context {
        content.extend(context);
    }
    let signature = sign(key, "FramedContentTBS", content);
    child(public, "signature")?.content = Content::Bytes(signature);
    Some(())
}

/// The group context in a GroupInfo, encoded.
pub(crate) fn context_of(info: &Piece) -> Option<Vec<u8>> {
    let mut info = info.clone();
    find(&mut info, &["group_info", "group_context"]).map(|context| context.encode())
}

fn child<'tree>(piece: &'tree mut Piece, name: &str) -> Option<&'tree mut Piece> {
    let Content::Pieces(pieces) = &mut piece.content else { return None };
    pieces.iter_mut().find(|one| one.name == name)
}

fn find<'tree>(piece: &'tree mut Piece, path: &[&str]) -> Option<&'tree mut Piece> {
    path.iter().try_fold(piece, |piece, name| child(piece, name))
}

/// The encoded pieces in front of the one called `name`.
fn until(piece: &Piece, name: &str) -> Option<Vec<u8>> {
    let end = piece.inner().iter().position(|one| one.name == name)?;
    Some(piece.inner()[..end].iter().flat_map(Piece::encode).collect())
}
