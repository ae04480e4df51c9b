//! The two facts of a certificate that rustls does not tell: the common name of its subject, and when it
//! ends. Read after rustls has verified (or loaded) it; whatever is not as RFC 5280 says is not there.

use std::time::SystemTime;

use time::{Date, Month, OffsetDateTime};

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const EXPLICIT_VERSION: u8 = 0xA0;

/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Longest common name that is a user name, in characters (RFC 5280, ub-common-name).
const COMMON_NAME_LEN_MAX: usize = 64;

/// Elements of one DER sequence, in order.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (len, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (
                    digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)),
                    rest,
                )
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which has to be of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }
}

/// What stands behind the issuer: validity and subject.
fn validity_and_subject(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut body = Der(Der(Der(certificate).take(SEQUENCE)?).take(SEQUENCE)?);
    match body.next()? {
        (EXPLICIT_VERSION, _) => body.take(INTEGER).map(|_| ())?,
        (INTEGER, _) => {}
        _ => return None,
    }
    let (_algorithm, _issuer) = (body.take(SEQUENCE)?, body.take(SEQUENCE)?);
    Some((body.take(SEQUENCE)?, body.take(SEQUENCE)?))
}

/// The first common name of the subject; none that is empty, too long or holds a control character.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, subject) = validity_and_subject(certificate)?;
    let mut names = Der(subject);
    while let Some(set) = names.take(SET) {
        let mut set = Der(set);
        while let Some(attribute) = set.take(SEQUENCE) {
            let mut attribute = Der(attribute);
            if attribute.take(OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let (UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text) = attribute.next()? else {
                return None;
            };
            let name = std::str::from_utf8(text).ok()?;
            let good = !name.is_empty()
                && name.chars().count() <= COMMON_NAME_LEN_MAX
                && !name.chars().any(char::is_control);
            return good.then(|| name.to_owned());
        }
    }
    None
}

/// The last moment at which the certificate is good.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (validity, _) = validity_and_subject(certificate)?;
    let mut validity = Der(validity);
    validity.next()?;
    let (tag, text) = validity.next()?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            // RFC 5280, 4.1.2.5.1.
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let digits = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let month = Month::try_from(digits(0)?).ok()?;
    let date = Date::from_calendar_date(year, month, digits(2)?).ok()?;
    let moment = date.with_hms(digits(4)?, digits(6)?, digits(8)?).ok()?;
    Some(OffsetDateTime::new_utc(moment.date(), moment.time()).into())
}
