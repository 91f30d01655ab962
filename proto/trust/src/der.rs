//! Reads single fields out of DER that `webpki` has accepted but does not show: validity, key bits, names, a revocation
//! list's number and times. It decides nothing about trust; every refusal of it is "malformed".

use lianxin_types::Timestamp;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The elements of a constructed value, from the front. `None` everywhere means that the bytes are not such DER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag, length and content.
    pub(crate) whole: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(crate) fn new(content: &'a [u8]) -> Self {
        Self { rest: content }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        let (&tag, after_tag) = self.rest.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, after_first) = after_tag.split_first()?;
        let (length, after_length) = match first {
            0..=0x7f => (usize::from(first), after_first),
            0x81..=0x84 => {
                let (bytes, after) = after_first.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0_u64, |length, byte| (length << 8) | u64::from(*byte));
                (usize::try_from(length).ok()?, after)
            }
            _ => return None,
        };
        let (content, rest) = after_length.split_at_checked(length)?;
        let whole = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Some(Element { tag, content, whole })
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.any().filter(|element| element.tag == tag)
    }

    /// The next element if it has this tag; nothing is taken otherwise.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.rest.first() == Some(&tag) { self.any() } else { None }
    }

    /// The next element, which must be a constructed value of this tag, taken apart.
    pub(crate) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.expect(tag).map(|element| Self::new(element.content))
    }

    /// The next element as a time (RFC 5280 section 4.1.2.5).
    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.any().and_then(time)
    }
}

/// The content of the extension with this identifier, out of the elements of an `Extensions` sequence. The outer `None`
/// means malformed, the inner one that it is not there.
pub(crate) fn extension<'a>(mut extensions: Elements<'a>, identifier: &[u8]) -> Option<Option<&'a [u8]>> {
    while !extensions.is_empty() {
        let mut extension = extensions.inside(SEQUENCE)?;
        let found = extension.expect(OBJECT_IDENTIFIER)?.content == identifier;
        extension.optional(BOOLEAN);
        let value = extension.expect(OCTET_STRING)?;
        if found {
            return Some(Some(value.content));
        }
    }
    Some(None)
}

/// The bits of a bit string of whole bytes.
pub(crate) fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

fn time(element: Element<'_>) -> Option<Timestamp> {
    let digits = element.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits.get(range).map(|part| part.iter().fold(0, add_digit));
    let (year, rest) = match (element.tag, digits.len()) {
        // RFC 5280 4.1.2.5.1: two digits mean 1950 to 2049.
        (UTC_TIME, 12) => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let field = |index: usize| number(rest + 2 * index..rest + 2 * index + 2);
    let (month, day, hour, minute, second) = (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_1970(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_seconds(seconds))
}

fn add_digit(number: u64, digit: &u8) -> u64 {
    number * 10 + u64::from(digit - b'0')
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day is the last. `None`
/// before 1970: webpki reads no such time either.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}
