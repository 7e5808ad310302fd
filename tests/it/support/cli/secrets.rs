//! Searches for secrets in everything that a run shows or leaves.

use std::collections::{BTreeSet, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The length of a piece of a UserSig that cannot occur by chance.
const PIECE_BYTES: usize = 24;

/// The secrets, in every spelling.
pub(super) struct Secrets {
    pieces: HashSet<Vec<u8>>,
}

impl Secrets {
    pub(super) fn new(key: &str, usersigs: &BTreeSet<String>) -> Self {
        let mut pieces = HashSet::new();
        for secret in usersigs.iter().map(String::as_str).chain([key]) {
            for spelling in [secret.to_owned(), STANDARD.encode(secret), percent_encoded(secret)] {
                pieces.extend(spelling.as_bytes().windows(PIECE_BYTES).map(<[u8]>::to_vec));
            }
        }
        Self { pieces }
    }

    #[track_caller]
    pub(super) fn must_not_be_in(&self, place: &str, bytes: &[u8]) {
        let found = bytes.windows(PIECE_BYTES).position(|window| self.pieces.contains(window));
        if let Some(at) = found {
            let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
            panic!("a secret is in {place}: {}", String::from_utf8_lossy(around));
        }
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[test]
fn the_search_finds_every_spelling() {
    let usersig = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItk*pqTm-lWSmZUIkElNyM_";
    let secrets = Secrets::new(super::KEY, &BTreeSet::from([usersig.to_owned()]));
    let is_found = |text: &str| std::panic::catch_unwind(|| secrets.must_not_be_in("", text.as_bytes())).is_err();
    for secret in [usersig, super::KEY] {
        for text in [secret.to_owned(), STANDARD.encode(secret), percent_encoded(secret), format!("a {} b", &secret[9..33])] {
            assert!(is_found(&text), "{text}");
        }
    }
    assert!(!is_found(&usersig[..23]));
    assert!(!is_found("/v4/im_open_login_svc/account_import?sdkappid=1400000000&identifier=administrator"));
}
