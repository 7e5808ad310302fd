//! Checks a UserSig as the service does. It reads TLSSigAPIv2 with code of its own, so that a bug of the client's code is found.

use std::collections::HashMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use super::envelope::RequestQuery;
use super::reply::RequestRefusal;

/// Tolerance for signatures dated in the future, in seconds. Chosen: clocks without NTP may differ by that much.
const CLOCK_SKEW_S: u64 = 300;
/// Largest JSON inside a signature that is accepted, in bytes; ordinary ones have about 200.
const CLAIMS_MAX_BYTES: u64 = 4096;
/// Signatures whose check is cached; if there are more, the cache is emptied.
const REMEMBERED_MAX: usize = 256;

/// Checks signatures and caches the results, so that a run of a million requests computes one HMAC.
#[derive(Debug)]
pub(super) struct Signatures {
    key: SecretString,
    sdkappid: u64,
    identifier: String,
    remembered: HashMap<Box<str>, Result<SignatureClaims, UnreadableSignature>>,
    /// Signatures made before this Unix time are invalid.
    void_before: u64,
}

/// The content of a UserSig.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct SignatureClaims {
    #[serde(rename = "TLS.ver")]
    version: String,
    #[serde(rename = "TLS.identifier")]
    identifier: String,
    #[serde(rename = "TLS.sdkappid")]
    sdkappid: u64,
    #[serde(rename = "TLS.expire")]
    expire: u64,
    #[serde(rename = "TLS.time")]
    time: u64,
    /// What the app has added for its own use, in base64.
    #[serde(rename = "TLS.userbuf", default)]
    userbuf: Option<String>,
    #[serde(rename = "TLS.sig")]
    sig: String,
    #[serde(skip)]
    hmac: HmacCheck,
}

/// Whether the HMAC was made with this app's key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum HmacCheck {
    #[default]
    Foreign,
    Ours,
}

/// The text of a signature cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UnreadableSignature;

impl Signatures {
    pub(super) fn new(key: SecretString, sdkappid: u64, identifier: String) -> Self {
        Self { key, sdkappid, identifier, remembered: HashMap::new(), void_before: 0 }
    }

    /// Checks that the request is signed by the app's administrator.
    ///
    /// # Errors
    /// [`RequestRefusal`] with the documented code.
    pub(super) fn check(&mut self, envelope: &RequestQuery<'_>, unix_s: u64) -> Result<(), RequestRefusal> {
        let void_before = self.void_before;
        if envelope.sdkappid != self.sdkappid {
            return Err(RequestRefusal::content(70020, "no such SDKAppID"));
        }
        let from_admin = *envelope.identifier == *self.identifier;
        let Ok(claims) = self.read(&envelope.usersig) else {
            return Err(RequestRefusal::content(70003, "the UserSig is malformed or truncated"));
        };
        if claims.sdkappid != envelope.sdkappid {
            return Err(RequestRefusal::content(70014, "the UserSig is of another SDKAppID"));
        }
        if claims.identifier != envelope.identifier {
            return Err(RequestRefusal::content(70013, "the UserSig is of another identifier"));
        }
        if claims.hmac == HmacCheck::Foreign {
            return Err(RequestRefusal::content(70009, "the UserSig was not made with this app's key"));
        }
        if claims.time > unix_s.saturating_add(CLOCK_SKEW_S) {
            return Err(RequestRefusal::content(70003, "the UserSig is dated in the future"));
        }
        if unix_s > claims.time.saturating_add(claims.expire) {
            return Err(RequestRefusal::content(70001, "the UserSig is expired"));
        }
        if claims.time < void_before {
            return Err(RequestRefusal::content(70052, "the UserSig is invalid since the user was kicked"));
        }
        if !from_admin {
            return Err(RequestRefusal::content(60010, "the identifier is not an administrator of the app"));
        }
        Ok(())
    }

    fn is_admin(&self, user: &str) -> bool {
        user == self.identifier
    }

    /// Invalidates the signatures of `user` that were made before `unix_s`.
    pub(super) fn void(&mut self, user: &str, unix_s: u64) {
        if self.is_admin(user) {
            self.void_before = unix_s;
        }
    }

    fn read(&mut self, usersig: &str) -> &Result<SignatureClaims, UnreadableSignature> {
        if !self.remembered.contains_key(usersig) {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
            let read =
                unpack(usersig).map(|claims| SignatureClaims { hmac: check_hmac(&claims, &self.key), ..claims }).ok_or(UnreadableSignature);
            self.remembered.insert(usersig.into(), read);
        }
        &self.remembered[usersig]
    }
}

fn unpack(usersig: &str) -> Option<SignatureClaims> {
    let standard: String = usersig
        .chars()
        .map(|letter| match letter {
            '*' => Some('+'),
            '-' => Some('/'),
            '_' => Some('='),
            '+' | '/' | '=' => None,
            other => Some(other),
        })
        .collect::<Option<_>>()?;
    let packed = STANDARD.decode(standard).ok()?;
    let mut json = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice()).take(CLAIMS_MAX_BYTES).read_to_end(&mut json).ok()?;
    let claims: SignatureClaims = serde_json::from_slice(&json).ok()?;
    (claims.version == "2.0").then_some(claims)
}

fn check_hmac(claims: &SignatureClaims, key: &SecretString) -> HmacCheck {
    let SignatureClaims { identifier, sdkappid, time, expire, userbuf, .. } = claims;
    let userbuf = userbuf.as_ref().map_or_else(String::new, |userbuf| format!("TLS.userbuf:{userbuf}\n"));
    let text = format!("TLS.identifier:{identifier}\nTLS.sdkappid:{sdkappid}\nTLS.time:{time}\nTLS.expire:{expire}\n{userbuf}");
    let genuine = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).is_ok_and(|mut mac| {
        mac.update(text.as_bytes());
        STANDARD.decode(&claims.sig).is_ok_and(|sig| mac.verify_slice(&sig).is_ok())
    });
    if genuine { HmacCheck::Ours } else { HmacCheck::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::api::usersig::sign;
    use crate::io::api::wire::Command;
    use std::time::{Duration, UNIX_EPOCH};

    /// The public sample key of Tencent's signing libraries.
    const SAMPLE_KEY: &str = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e";
    const DAY: u64 = 86_400;
    const MADE_AT: u64 = 1_700_000_000;

    fn signatures() -> Signatures {
        Signatures::new(SAMPLE_KEY.into(), 1_400_000_000, "administrator".to_owned())
    }

    fn envelope<'a>(sdkappid: u64, identifier: &'a str, usersig: &'a str) -> RequestQuery<'a> {
        RequestQuery { command: Command::AccountImport, sdkappid, identifier: identifier.into(), usersig: usersig.into(), random: 1 }
    }

    #[test]
    fn the_official_librarys_vectors_are_accepted() {
        let check = |sdkappid, identifier: &str, expire, time, sig: &str, expected| {
            let claims = SignatureClaims {
                version: "2.0".to_owned(),
                identifier: identifier.to_owned(),
                sdkappid,
                expire,
                time,
                userbuf: None,
                sig: sig.to_owned(),
                hmac: HmacCheck::Foreign,
            };
            assert_eq!(check_hmac(&claims, &SAMPLE_KEY.into()), expected, "{identifier}");
        };
        check(1_400_000_000, "xiaojun", 15_552_000, 1_700_000_000, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4=", HmacCheck::Ours);
        check(20_000_001, "im_admin-01", 604_800, 1_735_689_600, "DZlkp48A382JsKPGEitq3fXLmboRyRin4sLpIGTBiBo=", HmacCheck::Ours);
        check(1_400_000_000, "0", 15_552_000, 1_569_910_200, "CpjuBdQs9ZwnuGAJR8onoOeI9fweX2vIMMY94iOJWJY=", HmacCheck::Ours);
        check(1_400_000_000, "0", 15_552_001, 1_569_910_200, "CpjuBdQs9ZwnuGAJR8onoOeI9fweX2vIMMY94iOJWJY=", HmacCheck::Foreign);
        let official = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDKAAKpdaUZBZlAqUsTAzgQuWZOaChAzN0RQXZ6aDLKn0cUzVLjcPD00NLS1MCrPM0A*JMLcoNTLMD3HP1M60jCowLDUOKMiLNDOwVaoFAD4PNPI_";
        assert_eq!(signatures().check(&envelope(1_400_000_000, "administrator", official), MADE_AT), Ok(()));
        let with_userbuf = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDKAAKpdaUZBZlAqUsTAzgQuWZOaChAzN0RSXFqcWJZWmgSxKzrUsSwp2NPBNt7WF25OZDpKyzA8LSAlOdop0z8kPyTcpqMzRL-YKLDeuMPN1rtSuCMnI8-TIdraIjHIutlWqBQA8PT7x";
        assert_eq!(signatures().check(&envelope(1_400_000_000, "administrator", with_userbuf), MADE_AT), Ok(()));
    }

    #[test]
    fn each_kind_of_invalid_signature_has_its_code() {
        let mut signatures = signatures();
        let mut check = |signed: (u64, &str, &str), called: (u64, &str), unix_s: u64, expected: Result<(), i64>| {
            let (app, identifier, key) = signed;
            let usersig = sign(&key.into(), app, identifier, UNIX_EPOCH + Duration::from_secs(MADE_AT), Duration::from_secs(DAY));
            let verdict = signatures.check(&envelope(called.0, called.1, usersig.expose_secret()), unix_s);
            assert_eq!(verdict.map_err(|refusal| refusal.code), expected, "{signed:?} {called:?} {unix_s}");
        };
        let (app, admin) = (1_400_000_000, "administrator");
        check((app, admin, SAMPLE_KEY), (app, admin), MADE_AT, Ok(()));
        check((app, admin, SAMPLE_KEY), (app, admin), MADE_AT + DAY, Ok(()));
        check((app, admin, SAMPLE_KEY), (app, admin), MADE_AT + DAY + 1, Err(70001));
        check((app, admin, SAMPLE_KEY), (app, admin), MADE_AT - CLOCK_SKEW_S, Ok(()));
        check((app, admin, SAMPLE_KEY), (app, admin), MADE_AT - CLOCK_SKEW_S - 1, Err(70003));
        check((app, admin, "another"), (app, admin), MADE_AT, Err(70009));
        check((app, "bob", SAMPLE_KEY), (app, admin), MADE_AT, Err(70013));
        check((app + 1, admin, SAMPLE_KEY), (app, admin), MADE_AT, Err(70014));
        check((app, admin, SAMPLE_KEY), (app + 1, admin), MADE_AT, Err(70020));
        check((app, "bob", SAMPLE_KEY), (app, "bob"), MADE_AT, Err(60010));
        for junk in ["", "eJw", "AAAA", "not base64 at all!"] {
            let verdict = signatures.check(&envelope(app, admin, junk), MADE_AT);
            assert_eq!(verdict.map_err(|refusal| refusal.code), Err(70003), "{junk}");
        }
    }
}
