//! UserSig (TLSSigAPIv2): creates, renews and reads signatures.
//!
//! Source: Tencent's signing libraries; the tests compare with their vectors. The key and the signatures never appear in Debug output.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::Sha256;
use thiserror::Error;
use tokio::time::Instant;

use crate::domain::halt_reason::HaltReason;

/// How long a signature is valid. Source: Tencent advises at least 24 hours.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);
/// The age at which a signature is renewed: half its life, so that a clock that is wrong by hours does no harm.
const RENEW_AT: Duration = Duration::from_secs(12 * 3600);
/// If the wall clock steps back by more than this, a new signature is made, because the old one would be dated in the future.
const STEP_BACK: Duration = Duration::from_secs(60);
/// Largest JSON inside a signature that is accepted, in bytes. Ordinary ones have about 200; the bound protects against a zip bomb.
const CLAIMS_MAX_BYTES: u64 = 4096;

/// Makes a UserSig for `identifier`, valid for `life` from `made_at`.
///
/// # Panics
/// Never: HMAC takes keys of any length, and writing to a `Vec` cannot fail.
#[must_use]
pub fn sign(key: &SecretString, sdkappid: u64, identifier: &str, made_at: SystemTime, life: Duration) -> SecretString {
    let time = made_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expire = life.as_secs();
    let claims = format!("TLS.identifier:{identifier}\nTLS.sdkappid:{sdkappid}\nTLS.time:{time}\nTLS.expire:{expire}\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(claims.as_bytes());
    let sig = STANDARD.encode(mac.finalize().into_bytes());
    let json = serde_json::json!({
        "TLS.ver": "2.0", "TLS.identifier": identifier, "TLS.sdkappid": sdkappid, "TLS.expire": expire, "TLS.time": time, "TLS.sig": sig,
    });
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(json.to_string().as_bytes()).expect("a Vec takes any bytes");
    let packed = STANDARD.encode(zlib.finish().expect("a Vec takes any bytes"));
    packed.replace('+', "*").replace('/', "-").replace('=', "_").into()
}

/// The content of a UserSig; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub identifier: String,
    pub sdkappid: u64,
    pub made_at: SystemTime,
    pub expires_at: SystemTime,
}

/// Reads a UserSig without the key.
///
/// # Errors
/// [`NotAUserSig`] if the text is not a UserSig.
pub fn read_claims(usersig: &SecretString) -> Result<Claims, NotAUserSig> {
    let fields = unpack(usersig.expose_secret()).ok_or(NotAUserSig)?;
    let number = |name: &str| fields.get(name).and_then(Value::as_u64).ok_or(NotAUserSig);
    let time = |seconds: u64| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(NotAUserSig);
    let made = number("TLS.time")?;
    let expires = made.checked_add(number("TLS.expire")?).ok_or(NotAUserSig)?;
    Ok(Claims {
        identifier: fields.get("TLS.identifier").and_then(Value::as_str).ok_or(NotAUserSig)?.to_owned(),
        sdkappid: number("TLS.sdkappid")?,
        made_at: time(made)?,
        expires_at: time(expires)?,
    })
}

fn unpack(usersig: &str) -> Option<BTreeMap<String, Value>> {
    let packed = STANDARD.decode(usersig.replace('*', "+").replace('-', "/").replace('_', "=")).ok()?;
    let mut json = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice()).take(CLAIMS_MAX_BYTES).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The text is not a UserSig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is not a UserSig (TLSSigAPIv2)")]
pub struct NotAUserSig;

/// The proof that the caller is an administrator of the app.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The SecretKey, with which signatures are made and renewed.
    Key(SecretString),
    /// A ready-made UserSig, which cannot be renewed.
    Ready(SecretString),
}

/// A signature for requests. `generation` counts the signatures of this run.
#[derive(Debug, Clone)]
pub struct Signature {
    pub usersig: Arc<SecretString>,
    pub generation: u32,
}

/// A text must repeat this many characters of a signature to be hidden. Chosen: all signatures begin alike, and no words of a language do.
const TELLING_CHARS: usize = 12;
/// The replacement for a signature in an answer.
const HIDDEN: &[u8] = b"***";

/// Removes the signature from an answer that repeats it, complete or cut off, with or without percent-encoding.
#[must_use]
pub fn hide(usersig: &SecretString, answer: Vec<u8>) -> Vec<u8> {
    let usersig = usersig.expose_secret().as_bytes();
    let Some(start) = usersig.get(..4) else { return answer };
    let (mut left, mut shown) = (answer.as_slice(), Vec::new());
    while let Some(at) = memchr::memmem::find(left, start) {
        let repeated = repeated(usersig, &left[at..]);
        let (before, found) = left.split_at(at);
        shown.extend_from_slice(before);
        if repeated.chars >= TELLING_CHARS.min(usersig.len()) {
            shown.extend_from_slice(HIDDEN);
            left = &found[repeated.bytes..];
        } else {
            shown.extend_from_slice(start);
            left = &found[start.len()..];
        }
    }
    if shown.is_empty() {
        return answer;
    }
    shown.extend_from_slice(left);
    shown
}

/// How many characters of a signature a text repeats, and the bytes that they take.
struct Repeated {
    chars: usize,
    bytes: usize,
}

fn repeated(usersig: &[u8], text: &[u8]) -> Repeated {
    let mut repeated = Repeated { chars: 0, bytes: 0 };
    for byte in usersig {
        let left = &text[repeated.bytes..];
        let encoded = format!("%{byte:02X}");
        let is_encoded = || left.get(..encoded.len()).is_some_and(|found| found.eq_ignore_ascii_case(encoded.as_bytes()));
        repeated.bytes += match left.first() {
            Some(first) if first == byte => 1,
            Some(b'%') if is_encoded() => encoded.len(),
            Some(_) | None => break,
        };
        repeated.chars += 1;
    }
    repeated
}

/// Holds the current signature and decides when to renew it.
#[derive(Debug)]
pub struct Signer {
    sdkappid: u64,
    identifier: String,
    credential: Credential,
    current: Signature,
    made_at: Instant,
    made_at_wall: SystemTime,
    trust: SignatureTrust,
}

/// Whether the service may still accept the current signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignatureTrust {
    /// The service has not rejected it.
    NotRejected,
    /// It replaces a rejected one and has not been accepted yet.
    LastChance,
}

impl Signer {
    #[must_use]
    pub fn new(credential: Credential, sdkappid: u64, identifier: &str, now: Instant, wall: SystemTime) -> Self {
        let usersig = match &credential {
            Credential::Key(key) => sign(key, sdkappid, identifier, wall, LIFE),
            Credential::Ready(usersig) => usersig.clone(),
        };
        let current = Signature { usersig: Arc::new(usersig), generation: 1 };
        let identifier = identifier.to_owned();
        Self { sdkappid, identifier, credential, current, made_at: now, made_at_wall: wall, trust: SignatureTrust::NotRejected }
    }

    /// The signature for a request that leaves now; it is renewed at half its life.
    pub fn current(&mut self, now: Instant, wall: SystemTime) -> Signature {
        let age_by_wall = wall.duration_since(self.made_at_wall).unwrap_or_default();
        let stepped_back = wall + STEP_BACK < self.made_at_wall;
        if now - self.made_at >= RENEW_AT || age_by_wall >= RENEW_AT || stepped_back {
            self.renew(now, wall);
        }
        self.current.clone()
    }

    /// Records that the service rejected the signature of this generation. Returns `Ok` if there is a new signature to try.
    ///
    /// # Errors
    /// [`HaltReason`] if a new signature was rejected as well, or there is no key to make one.
    pub fn on_rejected(&mut self, generation: u32, now: Instant, wall: SystemTime) -> Result<(), HaltReason> {
        if matches!(self.credential, Credential::Ready(_)) {
            return Err(HaltReason::FixedSignature);
        }
        if generation < self.current.generation {
            return Ok(());
        }
        if self.trust == SignatureTrust::LastChance {
            return Err(HaltReason::Signature);
        }
        self.renew(now, wall);
        self.trust = SignatureTrust::LastChance;
        Ok(())
    }

    /// Records that the service accepted the signature of this generation.
    pub fn on_accepted(&mut self, generation: u32) {
        if generation == self.current.generation {
            self.trust = SignatureTrust::NotRejected;
        }
    }

    fn renew(&mut self, now: Instant, wall: SystemTime) {
        if let Credential::Key(key) = &self.credential {
            let generation = self.current.generation + 1;
            // Two signatures of the same second would be equal, and a rejected one must not be sent again. So their lives differ.
            let life = LIFE + Duration::from_secs(u64::from(generation % 60));
            let usersig = sign(key, self.sdkappid, &self.identifier, wall, life);
            self.current = Signature { usersig: Arc::new(usersig), generation };
            self.made_at = now;
            self.made_at_wall = wall;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public sample key of Tencent's signing libraries.
    const SAMPLE_KEY: &str = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e";

    fn at(unix: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(unix)
    }

    #[test]
    fn signatures_equal_those_of_the_official_libraries() {
        let check = |sdkappid, identifier, expire, time, expected| {
            let usersig = sign(&SAMPLE_KEY.into(), sdkappid, identifier, at(time), Duration::from_secs(expire));
            assert_eq!(unpack(usersig.expose_secret()).unwrap()["TLS.sig"], expected);
            let claims = Claims { identifier: identifier.to_owned(), sdkappid, made_at: at(time), expires_at: at(time + expire) };
            assert_eq!(read_claims(&usersig), Ok(claims));
        };
        check(1_400_000_000, "xiaojun", 15_552_000, 1_700_000_000, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4=");
        check(1_400_000_000, "administrator", 86_400, 1_700_000_000, "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60=");
        check(20_000_001, "im_admin-01", 604_800, 1_735_689_600, "DZlkp48A382JsKPGEitq3fXLmboRyRin4sLpIGTBiBo=");
        check(1_400_000_000, "0", 15_552_000, 1_569_910_200, "CpjuBdQs9ZwnuGAJR8onoOeI9fweX2vIMMY94iOJWJY=");
    }

    #[test]
    fn a_signature_of_the_official_library_is_read() {
        let official = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDKAAKpdaUZBZlAqUsTAzgQuWZOaChAzN0RQXZ6aDLKn0cUzVLjcPD00NLS1MCrPM0A*JMLcoNTLMD3HP1M60jCowLDUOKMiLNDOwVaoFAD4PNPI_";
        let claims = read_claims(&official.into()).unwrap();
        assert_eq!((claims.identifier.as_str(), claims.sdkappid, claims.expires_at), ("administrator", 1_400_000_000, at(1_700_086_400)));
    }

    #[test]
    fn a_text_that_is_no_signature_is_refused() {
        for text in ["", "eJw", "not base64 at all!", "AAAA"] {
            assert_eq!(read_claims(&text.into()), Err(NotAUserSig), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signature_is_renewed_at_half_its_life_and_when_the_clock_steps_back() {
        let now = Instant::now();
        let mut signer = Signer::new(Credential::Key(SAMPLE_KEY.into()), 1, "a", now, at(1_000_000));
        let hours = |n: u64| Duration::from_secs(n * 3600);
        assert_eq!(signer.current(now + hours(11), at(1_000_000) + hours(11)).generation, 1);
        assert_eq!(signer.current(now + hours(12), at(1_000_000) + hours(12)).generation, 2);
        assert_eq!(signer.current(now + hours(12), at(1_000_000) + hours(26)).generation, 3, "the wall clock jumped ahead");
        assert_eq!(signer.current(now + hours(12), at(1_000_000)).generation, 4, "the wall clock stepped back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_signature_is_renewed_once() {
        let (now, wall) = (Instant::now(), at(1_000_000));
        let mut signer = Signer::new(Credential::Key(SAMPLE_KEY.into()), 1, "a", now, wall);
        let first = signer.current(now, wall);
        assert_eq!(signer.on_rejected(1, now, wall), Ok(()));
        assert_ne!(signer.current(now, wall).usersig.expose_secret(), first.usersig.expose_secret());
        assert_eq!(signer.on_rejected(1, now, wall), Ok(()), "a request that still carried the old one");
        signer.on_accepted(2);
        assert_eq!(signer.on_rejected(2, now, wall), Ok(()), "it had been accepted in between");
        assert_eq!(signer.on_rejected(3, now, wall), Err(HaltReason::Signature));
        let mut ready = Signer::new(Credential::Ready("x".into()), 1, "a", now, wall);
        assert_eq!(ready.on_rejected(1, now, wall), Err(HaltReason::FixedSignature));
    }

    #[test]
    fn no_secret_shows_in_debug_output() {
        let signer = Signer::new(Credential::Key(SAMPLE_KEY.into()), 1, "a", Instant::now(), at(1_000_000));
        let shown = format!("{signer:?}");
        assert!(!shown.contains("5bd2850f") && !shown.contains("eJ"), "{shown}");
    }

    #[test]
    fn a_signature_that_an_answer_repeats_is_hidden() {
        let usersig: SecretString = "eJyrVgrx*dYrSy1S-lJQ_tIz".into();
        let check = |answer: &str, expected: &str| {
            let hidden = hide(&usersig, answer.as_bytes().to_vec());
            assert_eq!(String::from_utf8(hidden).unwrap(), expected, "{answer}");
        };
        check("", "");
        check(r#"{"ErrorCode":0}"#, r#"{"ErrorCode":0}"#);
        check("eJyrVgrx*dYrSy1S-lJQ_tIz", "***");
        check("?usersig=eJyrVgrx*dYrSy1S-lJQ_tIz&random=1", "?usersig=***&random=1");
        check("eJyrVgrx%2AdYrSy1S%2dlJQ%5FtIz, eJyrVgrx*dYrSy1S-lJQ_tIzeJyrVgrx*dYrSy1S", "***, ******");
        check("eJyrVgrx*dYrSy", "***");
        check("eJyr eJyrVgrx%2AdYeJ", "eJyr eJyrVgrx%2AdYeJ");
        check("eJyrVgrx%2", "eJyrVgrx%2");
    }
}
