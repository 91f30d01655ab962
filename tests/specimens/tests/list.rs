//! The list of parsers is whole: every message of the contract, and a fuzz target for each parser.

use std::collections::BTreeSet;
use std::path::Path;

use lianxin_proto::FILE_DESCRIPTOR_SET;
use lianxin_specimens::{Depth, all};
use prost::Message as _;

#[test]
fn every_message_of_a_call_has_its_parser() {
    let parsers: BTreeSet<_> = all().iter().map(|parser| parser.name).collect();
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the contract");
    let mut missing = BTreeSet::new();
    let mut seen = 0;
    for file in &set.file {
        for method in file.service.iter().flat_map(|service| &service.method) {
            for message in [method.input_type(), method.output_type()] {
                if !is_empty(&set, message) && !parsers.contains(name(message).as_str()) {
                    missing.insert(name(message));
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 28, "{seen} messages");
    assert!(missing.is_empty(), "no parser in tests/specimens/src/parsers/wire.rs for {missing:?}");
}

/// `.lianxin.key_packages.v1.ClaimRequest` to `key_packages_claim_request`.
fn name(message: &str) -> String {
    let words: Vec<&str> = message.split('.').collect();
    let [_, _, subject, _, message] = words[..] else { panic!("{message} is not of the contract") };
    let mut name = subject.to_owned();
    for letter in message.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn is_empty(set: &prost_types::FileDescriptorSet, message: &str) -> bool {
    let of = |file: &prost_types::FileDescriptorProto| {
        let found = file.message_type.iter().find(|one| format!(".{}.{}", file.package(), one.name()) == message);
        found.map(|found| found.field.is_empty())
    };
    set.file.iter().find_map(of).expect("a message of the contract")
}

#[test]
fn every_parser_has_its_fuzz_target_and_every_target_its_parser() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("tests/fuzz");
    let parsers: BTreeSet<_> = all().iter().map(|parser| parser.name.to_owned()).collect();
    let is_target = |parser: &&String| {
        let text = std::fs::read_to_string(folder.join("targets").join(format!("{parser}.rs"))).unwrap_or_default();
        text.contains(&format!("parse(\"{parser}\", ")) && manifest.contains(&format!("name = \"{parser}\""))
    };
    let without: Vec<_> = parsers.iter().filter(|parser| !is_target(parser)).collect();
    assert!(without.is_empty(), "give these a file in tests/fuzz/targets and a [[bin]] in its Cargo.toml: {without:?}");
    let targets = std::fs::read_dir(folder.join("targets")).expect("targets").flatten();
    let targets = targets.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let orphans: Vec<_> = targets.filter(|target| !parsers.contains(target)).collect();
    assert!(orphans.is_empty(), "no parser for {orphans:?}");
}

#[test]
fn names_are_unique_and_specimens_are_taken() {
    let parsers = all();
    let names: BTreeSet<_> = parsers.iter().map(|parser| parser.name).collect();
    assert_eq!(names.len(), parsers.len());
    for parser in parsers {
        let specimens = parser.specimens();
        assert!(!specimens.is_empty(), "{}", parser.name);
        for bytes in specimens {
            assert_eq!(parser.parse(&bytes), Depth::Accepted, "{}", parser.name);
            assert_eq!(parser.shape.pieces(&bytes).encode(), bytes, "{} does not come together again", parser.name);
        }
    }
}
