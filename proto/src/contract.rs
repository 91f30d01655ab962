//! Tests over the contract itself: everything in it is documented, and it only ever grows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::{FILE_DESCRIPTOR_SET, ROWS};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("build.rs wrote it");
    set.file.into_iter().filter(|file| file.package().starts_with("lianxin.")).collect()
}

/// What a comment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Message,
    Field(Shape),
    Oneof,
    Enum,
    Value,
    Service,
    Call,
}

/// What of a field its comment must speak of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Plain,
    Bytes,
    Repeated,
}

fn shape(field: &FieldDescriptorProto) -> Shape {
    match (field.label(), field.r#type()) {
        (Label::Repeated, _) => Shape::Repeated,
        (_, Type::Bytes) => Shape::Bytes,
        _ => Shape::Plain,
    }
}

/// Full name, what it is, comment: of everything in the contract.
fn documented() -> Vec<(String, What, String)> {
    let mut all = Vec::new();
    for file in files() {
        let info = file.source_code_info.as_ref().expect("compiled with source info");
        let comments: BTreeMap<&[i32], &str> =
            info.location.iter().map(|place| (place.path.as_slice(), place.leading_comments())).collect();
        let mut push = |path: &[i32], name: String, what: What| {
            let comment = comments.get(path).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
            all.push((name, what, comment.unwrap_or_default()));
        };
        let package = file.package();
        for (i, message) in (0..).zip(&file.message_type) {
            assert!(message.nested_type.is_empty() && message.enum_type.is_empty(), "nested types are not walked here");
            let name = format!("{package}.{}", message.name());
            push(&[4, i], name.clone(), What::Message);
            for (j, field) in (0..).zip(&message.field) {
                push(&[4, i, 2, j], format!("{name}.{}", field.name()), What::Field(shape(field)));
            }
            for (j, oneof) in (0..).zip(&message.oneof_decl) {
                push(&[4, i, 8, j], format!("{name}.{}", oneof.name()), What::Oneof);
            }
        }
        for (i, kind) in (0..).zip(&file.enum_type) {
            push(&[5, i], format!("{package}.{}", kind.name()), What::Enum);
            for (j, value) in (0..).zip(&kind.value) {
                push(&[5, i, 2, j], format!("{package}.{}", value.name()), What::Value);
            }
        }
        for (i, service) in (0..).zip(&file.service) {
            let name = format!("{package}.{}", service.name());
            push(&[6, i], name.clone(), What::Service);
            for (j, method) in (0..).zip(&service.method) {
                push(&[6, i, 2, j], format!("{name}.{}", method.name()), What::Call);
            }
        }
    }
    all
}

/// What is wrong with a comment, if anything.
fn fault(name: &str, what: What, comment: &str) -> Option<&'static str> {
    let speaks_of = |words: &[&str]| words.iter().any(|word| comment.contains(word));
    if comment.is_empty() {
        return Some("has no comment");
    }
    match what {
        What::Call if !speaks_of(&["Errors", "Refusals"]) => Some("does not say its errors"),
        What::Field(_) if name.ends_with("_us") && !speaks_of(&["microseconds"]) => Some("does not say its unit"),
        What::Field(Shape::Bytes) if !speaks_of(&["bytes", "MLS", "RFC", "signed note"]) => {
            Some("does not say what the bytes are")
        }
        What::Field(Shape::Repeated) if !speaks_of(&["at most", "1 to ", "for each", "PROTOCOL 12"]) => {
            Some("does not say how many")
        }
        _ => None,
    }
}

#[test]
fn a_bad_comment_is_found() {
    assert_eq!(fault("a", What::Message, ""), Some("has no comment"));
    assert_eq!(fault("a", What::Call, "Does it."), Some("does not say its errors"));
    assert_eq!(fault("a.b_us", What::Field(Shape::Plain), "When."), Some("does not say its unit"));
    assert_eq!(fault("a.b", What::Field(Shape::Bytes), "The id."), Some("does not say what the bytes are"));
    assert_eq!(fault("a.b", What::Field(Shape::Repeated), "The ids."), Some("does not say how many"));
    assert_eq!(fault("a.b", What::Field(Shape::Bytes), "16 bytes."), None);
}

#[test]
fn everything_is_documented() {
    let all = documented();
    assert!(all.len() > 150, "only {} found", all.len());
    let faults: Vec<_> = all
        .iter()
        .filter_map(|(name, what, comment)| Some(format!("{name} {}", fault(name, *what, comment)?)))
        .collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn comments_name_only_reasons_that_exist() {
    let known: BTreeSet<_> = ROWS.iter().map(crate::ReasonRow::name).collect();
    for (name, _, comment) in documented() {
        let words = comment.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        for word in words.filter(|word| word.len() > 3 && word.contains('_')) {
            assert!(known.contains(word), "{name} speaks of {word}");
        }
    }
}

/// One line for everything that must never change.
fn listing(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in files {
        let package = file.package();
        file.message_type.iter().for_each(|message| list_message(&mut lines, package, message));
        file.enum_type.iter().for_each(|kind| list_enum(&mut lines, package, kind));
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                lines.insert(format!(
                    "call {package}.{}.{} ({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type(),
                ));
            }
        }
    }
    lines
}

fn list_message(lines: &mut BTreeSet<String>, package: &str, message: &DescriptorProto) {
    lines.insert(format!("message {package}.{}", message.name()));
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        lines.insert(format!(
            "field {package}.{} {} {} {repeated}{}{}{}",
            message.name(),
            field.number(),
            field.name(),
            field.r#type().as_str_name(),
            field.type_name(),
            oneof.map(|oneof| format!(" in {}", oneof.name())).unwrap_or_default(),
        ));
    }
}

fn list_enum(lines: &mut BTreeSet<String>, package: &str, kind: &EnumDescriptorProto) {
    for value in &kind.value {
        lines.insert(format!("value {package}.{} {} {}", kind.name(), value.number(), value.name()));
    }
}

const RELEASED_HEAD: &str = "# The released contract. Lines are only ever added; see \"Versions\" in README.md.\n";

#[test]
fn the_contract_is_an_addition_to_the_released_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("released.txt");
    let present = listing(&files());
    let text = fs::read_to_string(&path).unwrap_or_default();
    let released: BTreeSet<_> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let gone: Vec<_> = released.difference(&present).collect();
    assert_eq!(gone, [""; 0], "removed or changed since the release: add a field, value, call or a v2 instead");
    if std::env::var_os("LIANXIN_RELEASE").is_some() {
        let lines: Vec<_> = present.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, format!("{RELEASED_HEAD}{}", lines.concat())).expect("the repository can be written");
        return;
    }
    assert!(!released.is_empty(), "{} is missing or empty: LIANXIN_RELEASE=1 writes it", path.display());
}

#[test]
fn a_removed_renumbered_or_retyped_thing_shows() {
    let released = listing(&files());
    let is_addition = |change: fn(&mut FileDescriptorProto)| {
        let mut changed = files();
        change(changed.iter_mut().find(|file| file.package() == "lianxin.messages.v1").expect("the package exists"));
        listing(&changed).is_superset(&released)
    };
    assert!(!is_addition(|file| drop(file.message_type[0].field.remove(0))), "removed field");
    assert!(!is_addition(|file| drop(file.message_type.remove(0))), "removed message");
    assert!(!is_addition(|file| drop(file.enum_type[0].value.remove(1))), "removed value");
    assert!(!is_addition(|file| drop(file.service[0].method.remove(0))), "removed call");
    assert!(!is_addition(|file| file.message_type[0].field[0].number = Some(99)), "renumbered field");
    assert!(!is_addition(|file| file.message_type[0].field[0].set_type(Type::String)), "retyped field");
    assert!(!is_addition(|file| file.message_type[0].field[0].set_label(Label::Repeated)), "repeated field");
    assert!(!is_addition(|file| file.enum_type[0].value[1].number = Some(99)), "renumbered value");
    assert!(!is_addition(|file| file.service[0].method[0].server_streaming = None), "call without its stream");
    assert!(is_addition(|file| {
        let mut field = file.message_type[0].field[0].clone();
        field.name = Some("later".into());
        field.number = Some(99);
        file.message_type[0].field.push(field);
    }));
}

#[test]
fn reflection_serves_the_contract_as_written() {
    let line =
        "field lianxin.messages.v1.ReceiveResponse 1 events TYPE_MESSAGE.lianxin.messages.v1.EventBatch in frame";
    assert!(listing(&files()).contains(line));
}
