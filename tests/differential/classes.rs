//! The mutants of one handshake, each with the name of its class.

use lianxin_mutation::{Content, Frame, MlsKind, Piece, Seeded, mls};

use crate::signing::{Signer, sign_again};

/// What mutants may be made of.
pub(crate) struct Stock<'a> {
    /// The sender.
    pub(crate) signer: Signer<'a>,
    /// An older handshake of the same channel.
    pub(crate) older: Option<&'a [u8]>,
    /// Leaves of the group.
    pub(crate) leaves: &'a [u32],
}

/// Mutants of `bytes` with their classes. One bit is drawn for each kind of field.
pub(crate) fn mutants(bytes: &[u8], stock: &Stock<'_>, random: &mut Seeded) -> Vec<(String, Vec<u8>)> {
    let message = mls(MlsKind::Message, bytes);
    let mut made = Vec::new();
    let mut trees = changed_fields(&message, random);
    trees.extend(changed_lists(&message));
    trees.extend(changed_sender(&message, stock));
    trees.extend(stock.older.map(|older| exchanged(&message, &mls(MlsKind::Message, older))).unwrap_or_default());
    for (class, tree) in trees {
        let mut signed = tree.clone();
        made.push((class.clone(), tree.encode()));
        // What is behind the signature or is one itself does not become another thing by signing.
        let beyond = ["signature", "confirmation_tag", "membership_tag", "version", "wire_format"];
        let signable = !beyond.iter().any(|name| class.ends_with(name));
        if signable && sign_again(&mut signed, &stock.signer).is_some() {
            made.push((format!("{class}, signed again"), signed.encode()));
        }
    }
    made.push(("one byte behind".to_owned(), [bytes, &[0]].concat()));
    made.push(("cut in half".to_owned(), bytes[..bytes.len() / 2].to_vec()));
    made.extend(stock.older.map(|older| ("an older handshake".to_owned(), older.to_vec())));
    made.retain(|(_, mutant)| mutant != bytes);
    made
}

/// Places with the names of what they are in: a leaf in the path is another thing than one that is added.
fn named(message: &Piece) -> Vec<(usize, String)> {
    fn visit(piece: &Piece, inside: &str, place: &mut usize, found: &mut Vec<(usize, String)>) {
        let inside = match piece.name {
            "update_path" => "path ",
            "key_package" => "added ",
            _ => inside,
        };
        found.push((*place, format!("{inside}{}", piece.name)));
        *place += 1;
        let is_code_point = |inner: &Piece| inner.name == "code_point";
        // Which list a code point is in makes all the difference.
        let within = if piece.inner().iter().any(is_code_point) {
            format!("{inside}{} ", piece.name)
        } else {
            inside.to_owned()
        };
        piece.inner().iter().for_each(|inner| visit(inner, &within, place, found));
    }
    let mut found = Vec::new();
    visit(message, "", &mut 0, &mut found);
    found
}

fn changed_fields(message: &Piece, random: &mut Seeded) -> Vec<(String, Piece)> {
    let mut by_name: std::collections::BTreeMap<String, Vec<usize>> = std::collections::BTreeMap::new();
    for (place, name) in named(message) {
        by_name.entry(name).or_default().push(place);
    }
    let mut made = Vec::new();
    for (name, places) in by_name {
        let place = places[random.below(places.len())];
        let mut flipped = message.clone();
        let Some(Piece { content: Content::Bytes(bytes), frame, .. }) = flipped.at_mut(place) else { continue };
        if bytes.is_empty() {
            continue;
        }
        let frame = *frame;
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        made.push((format!("a flipped bit in {name}"), flipped));
        if frame == Frame::Vector {
            let mut emptied = message.clone();
            if let Some(piece) = emptied.at_mut(place) {
                piece.content = Content::Bytes(Vec::new());
            }
            made.push((format!("an empty {name}"), emptied));
        }
    }
    made
}

fn changed_lists(message: &Piece) -> Vec<(String, Piece)> {
    let lists =
        ["proposals", "path_nodes", "encrypted_path_secret", "leaf_extensions", "extension_types", "certificates"];
    let mut made = Vec::new();
    for (place, name) in named(message) {
        if !lists.iter().any(|list| name.ends_with(list)) {
            continue;
        }
        let change = |change: &dyn Fn(&mut Vec<Piece>, usize)| {
            let mut tree = message.clone();
            let Content::Pieces(pieces) = &mut tree.at_mut(place)?.content else { return None };
            let at = pieces.len().checked_sub(1)?;
            change(pieces, at);
            Some(tree)
        };
        made.extend(change(&|pieces, at| drop(pieces.remove(at))).map(|tree| (format!("one less in {name}"), tree)));
        let double: &dyn Fn(&mut Vec<Piece>, usize) = &|pieces, at| pieces.insert(at, pieces[at].clone());
        made.extend(change(double).map(|tree| (format!("one twice in {name}"), tree)));
        made.extend(change(&|pieces, _| pieces.reverse()).map(|tree| (format!("{name} in reverse"), tree)));
    }
    // A commit may have many paths of ciphertexts; one of each class is enough.
    let mut seen = std::collections::BTreeSet::new();
    made.retain(|(class, _)| seen.insert(class.clone()));
    for (place, name) in named(message) {
        if name == "path" {
            let mut tree = message.clone();
            if let Some(piece) = tree.at_mut(place).filter(|piece| piece.inner().len() == 2) {
                piece.content = Content::Bytes(vec![0]);
                made.push(("no path".to_owned(), tree));
            }
        }
    }
    made
}

fn changed_sender(message: &Piece, stock: &Stock<'_>) -> Vec<(String, Piece)> {
    let Some(place) = message.places(|piece| piece.name == "sender_index").first().copied() else { return Vec::new() };
    let mut made = Vec::new();
    let mut others: Vec<(&str, u32)> = vec![("a sender outside the tree", 999)];
    let own = message.clone().at_mut(place).map(|piece| piece.encode());
    let other = stock.leaves.iter().find(|leaf| Some(leaf.to_be_bytes().to_vec()) != own);
    others.extend(other.map(|leaf| ("another member as sender", *leaf)));
    for (class, leaf) in others {
        let mut tree = message.clone();
        if let Some(piece) = tree.at_mut(place) {
            piece.content = Content::Bytes(leaf.to_be_bytes().to_vec());
        }
        made.push((class.to_owned(), tree));
    }
    made
}

/// Parts of an older handshake in the place of this one's.
fn exchanged(message: &Piece, older: &Piece) -> Vec<(String, Piece)> {
    let names =
        ["epoch", "authenticated_data", "update_path", "path_nodes", "signature", "confirmation_tag", "membership_tag"];
    let mut made = Vec::new();
    for name in names {
        let from = older.places(|piece| piece.name == name).first().copied();
        let given = from.and_then(|place| older.clone().at_mut(place).cloned());
        let mut tree = message.clone();
        let to = tree.places(|piece| piece.name == name).first().copied();
        if let (Some(given), Some(taken)) = (given, to.and_then(|place| tree.at_mut(place)))
            && *taken != given
        {
            *taken = given;
            // The word at the end says what was exchanged, as in the other classes.
            made.push((format!("an older {name}"), tree));
        }
    }
    made
}
