//! Until when a certificate is valid. The crate that verifies certificates does not tell, and nothing else of them is read.

use std::time::SystemTime;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which is left out in the first one.
const VERSION: u8 = 0xa0;

/// The end of a certificate in DER; `None` if it is no certificate. Source of the form: RFC 5280, section 4.1.
pub(super) fn ends(certificate: &[u8]) -> Option<SystemTime> {
    let (signed, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(signed, SEQUENCE)?;
    let after_version = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, after_serial) = element(after_version, INTEGER)?;
    let (_, after_algorithm) = element(after_serial, SEQUENCE)?;
    let (_, after_issuer) = element(after_algorithm, SEQUENCE)?;
    let (validity, _) = element(after_issuer, SEQUENCE)?;
    let (_, end) = time(validity)?;
    time(end).map(|(end, _)| end)
}

/// The content of the first element, which has this tag, and what comes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // A long form: so many bytes are the length. More than four would be no certificate.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        0x80 | 0x85.. => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// The first element as a time, and what comes behind it. Both forms are in UTC and to the second.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let read = |tag: u8, century: fn(&str) -> &'static str| {
        let (text, rest) = element(der, tag)?;
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let digits = format!("{}{}", century(text), text.strip_suffix('Z')?);
        let part = |from: usize| digits.get(from..from + 2);
        let (year, month, day) = (digits.get(..4)?, part(4)?, part(6)?);
        let rfc3339 = format!("{year}-{month}-{day}T{}:{}:{}Z", part(8)?, part(10)?, part(12)?);
        humantime::parse_rfc3339(&rfc3339).ok().map(|time| (time, rest))
    };
    // Of two digits, those from 50 on are of the last century.
    read(UTC_TIME, |text| if text >= "50" { "19" } else { "20" }).or_else(|| read(GENERALIZED_TIME, |_| ""))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_is_read_in_both_forms_and_of_nothing_else() {
        let key = KeyPair::generate().unwrap();
        let certificate = |year: i32| {
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 2, 28);
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let check = |der: &[u8], expected: Option<&str>| {
            assert_eq!(ends(der), expected.map(|time| humantime::parse_rfc3339(time).unwrap()));
        };
        check(&certificate(2031), Some("2031-02-28T00:00:00Z"));
        check(&certificate(2087), Some("2087-02-28T00:00:00Z"));
        let der = certificate(2031);
        // Cut anywhere, it is none, or its end has come already; nothing panics.
        for length in 0..der.len() {
            let _ = ends(&der[..length]);
        }
        check(b"", None);
        check(b"\x30\x84\xff\xff\xff\xff", None);
        check(&certificate(2031)[4..], None);
    }
}
