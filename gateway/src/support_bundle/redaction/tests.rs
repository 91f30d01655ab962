//! Hostile examples: each planted secret, as it could be written, must be gone.

use super::*;

fn foreign(text: &str) -> String {
    redacted(text, Origin::Foreign)
}

/// Whatever is around it, `secret` is not in what is left.
fn assert_hidden(secret: &str, whole: &str) {
    for frame in ["{}", "key={} next", "\"{}\"", "({}),", "[{}]", "at {}: failed", "x\n{}\ny", "{\"a\":\"{}\"}"] {
        let text = frame.replace("{}", whole);
        let shown = foreign(&text);
        assert!(!shown.contains(secret), "{text:?} is shown as {shown:?}");
    }
}

#[test]
fn identities_are_hidden_however_they_are_written() {
    let id = "3f2a9c1e5b6d7f80";
    for whole in [
        "lianxin://jiwei/app/3f2a9c1e5b6d7f80/node-1",
        "LIANXIN://jiwei/app/3f2a9c1e5b6d7f80/node-1",
        "lianxin:\\/\\/jiwei\\/app\\/3f2a9c1e5b6d7f80\\/node-1",
        "lianxin%3A%2F%2Fjiwei%2Fapp%2F3f2a9c1e5b6d7f80%2Fnode-1",
        "urn:lianxin://jiwei/app/3f2a9c1e5b6d7f80/node-1?x=1",
        "jiwei/app/3f2a9c1e5b6d7f80/node-1",
        "3f2a9c1e5b6d7f80",
    ] {
        assert_hidden(id, whole);
    }
    assert_hidden("zhangsan", "lianxin://jiwei/person/zhangsan/phone");
    assert_hidden("zhangsan", "jiwei/person/zhangsan/phone");
    assert_hidden("node-1", "lianxin://jiwei/app/3f2a9c1e5b6d7f80/node-1");
    // The words around stay, and so does what a log shows of an identity by design.
    assert_eq!(foreign("caller lianxin://jiwei/app/a/b, refused"), "caller [identity], refused");
    assert_eq!(foreign("caller=jiwei/app/digest:1a2b3c4d refused"), "caller=jiwei/app/digest:1a2b3c4d refused");
}

#[test]
fn keys_and_ids_are_hidden_in_hexadecimal() {
    let hex = "00112233445566778899aabbccddeeff";
    assert_hidden(hex, hex);
    assert_hidden(&hex.to_uppercase(), &hex.to_uppercase());
    assert_hidden("8899aabb", &format!("channel_{hex}"));
    assert_hidden("8899aabb", &format!("0x{hex}"));
    assert_hidden("550e8400", "550e8400-e29b-41d4-a716-446655440000");
    assert_hidden("12345678", "12345678-1234-1234-1234-123456789012");
    assert_hidden("4f:5a", "3a:4f:5a:6b:7c:8d:9e:0f");
    assert_hidden("4F-5A", "3A-4F-5A-6B-7C-8D");
    assert_hidden("4f 5a", "3a 4f 5a 6b 7c 8d 9e 0f 11 12");
    assert_hidden("340282366920938463463374607431768211455", "340282366920938463463374607431768211455");
}

#[test]
fn keys_are_hidden_in_base64() {
    // A long run of keys that look random, in both alphabets, with and without padding.
    let mut state = 1u32;
    for _ in 0..2_000 {
        let mut bytes = [0u8; 32];
        for byte in &mut bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for alphabet in [*b"+/", *b"-_"] {
            for (length, padding) in [(32, "="), (24, ""), (16, "==")] {
                let text = base64(&bytes[..length], alphabet) + padding;
                let shown = foreign(&format!("key {text} end"));
                assert!(!shown.contains(&text[4..18]), "{text} is shown as {shown}");
            }
        }
    }
}

/// Base64 without padding; the last two letters of the alphabet are given.
fn base64(bytes: &[u8], last: [u8; 2]) -> String {
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last).collect();
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| (byte >> bit) & 1)).collect();
    let sextets =
        bits.chunks(6).map(|chunk| chunk.iter().fold(0, |value, bit| (value << 1) | bit) << (6 - chunk.len()));
    sextets.map(|sextet| char::from(alphabet[usize::from(sextet)])).collect()
}

#[test]
fn blocks_and_bytes_are_hidden() {
    let body = "MC4CAQAwBQYDK2VwBCIE\nshort\n";
    for whole in [
        format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN PRIVATE KEY-----\n{body}"),
        format!("-----BEGIN X-----\\n{}-----END X-----", body.replace('\n', "\\n")),
    ] {
        let shown = foreign(&format!("before {whole}and what is behind it"));
        assert!(!shown.contains("MC4C") && !shown.contains("short"), "{shown}");
        assert!(shown.starts_with("before [pem]") && shown.ends_with("and what is behind it"), "{shown}");
    }
    assert_hidden("18, 52", "[18, 52, 255, 0, 1, 2, 3, 4]");
    assert_hidden("52,", "[\n    18,\n    52,\n    255,\n    0,\n    1,\n    2,\n    3,\n    4,\n]");
    assert_hidden("hello", r#"b"hello \"you\" \x12""#);
    assert_hidden("you", r#"b"hello \"you\" \x12""#);
    assert_hidden("hello", r#"b\"hello\""#);
    assert_hidden("xfe", r"\xff\xfe\x00\x11\x22");
    assert_hidden("xfe", r"\\xff\\xfe\\x00\\x11\\x22");
}

#[test]
fn secrets_are_hidden_behind_their_names() {
    for whole in ["password=hunter2", "PassWord : hunter2", r#""token": "hunter2""#, r#"\"secret\":\"hunter2\""#] {
        assert_hidden("hunter2", whole);
    }
    assert_eq!(foreign("Authorization: Bearer abc def\nnext"), "Authorization: [secret]\nnext");
    assert_eq!(foreign("password=a, user=b"), "password=[secret], user=b");
    assert_eq!(foreign("the secret is not 32 bytes"), "the secret is not 32 bytes");
    assert_hidden("zhang.san", "zhang.san@jiwei.gov.cn");
}

#[test]
fn addresses_are_hidden_but_this_machines() {
    for (text, shown) in [
        ("from 10.1.2.3:7443 to 127.0.0.1:9464", "from [address]:7443 to 127.0.0.1:9464"),
        ("bound to 0.0.0.0:7443.", "bound to 0.0.0.0:7443."),
        ("peer [2001:db8::1]:443, own [::1]:443", "peer [[address]]:443, own [::1]:443"),
        ("fe80::1%eth0 and ::ffff:10.0.0.1", "[address]%eth0 and [address]"),
        ("at 01:16:50.123456Z in lianxin_gateway::app::add", "at 01:16:50.123456Z in lianxin_gateway::app::add"),
        ("version 0.34.7", "version 0.34.7"),
    ] {
        assert_eq!(foreign(text), shown);
    }
}

#[test]
fn words_of_other_hands_are_hidden_and_the_terminal_is_safe() {
    assert_eq!(foreign("张三 wrote 线索一号"), "[text] wrote [text]");
    assert_eq!(foreign("\u{1b}[31mred\u{7}"), "?[31mred?");
    assert_eq!(redacted("说明 README", Origin::Ours), "说明 README");
    assert!(!foreign("lian\u{200b}xin://jiwei/app/3f2a9c1e5b6d7f80/node-1").contains("3f2a"));
}

#[test]
fn what_support_needs_stays() {
    for line in [
        "2026-11-26T01:16:50.123456Z  INFO lianxin_operations::guard: refused caller=jiwei/app/digest:1a2b3c4d \
         action=\"send\" reason=\"CHANNEL_NOT_AVAILABLE\"",
        "2026-11-26T01:16:50.123456Z ERROR lianxin_store::reopening: zone does not open again zone=cn-zj-1 \
         error=open zone: held by process 4711",
        "lianxin_revocation_list_expiry_timestamp_seconds 1764116210",
        "lianxin_commit_duration_seconds_bucket{le=\"+Inf\"} 12",
        "lianxin_handshake_refusals_total{reason=\"certificate_other_department\"} 0",
        "buckets/000000000001-0000002968/snap.0000000000123456 524288",
        "epoch Sequence(12) at 1764116210123456 OlderRevocationList X25519MLKEM768",
    ] {
        assert_eq!(foreign(line), line);
    }
}

#[test]
fn no_text_panics() {
    for piece in
        ["-----BEGIN ", "[1,", "b\"", "\\x", "3a:", "lianxin:", "password=", "@", "::", "张", "\u{fffd}%3a", "3a张"]
    {
        for count in [1, 2, 7, 500] {
            let shown = foreign(&piece.repeat(count));
            assert!(shown.len() <= piece.len() * count * 4 + 16, "{piece} {count}: {shown}");
        }
    }
}
