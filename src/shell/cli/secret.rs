//! Reads secrets from a file or the environment and removes what editors and copying put around them.
//!
//! No message shows any part of a secret: it says what is wrong and where.

use std::path::Path;

use secrecy::SecretString;

use super::command_line::file_word;
use super::settings::cannot_read;
use super::small_file;
use crate::shell::exit::ExitMessage;

/// Longest secret in bytes. Chosen: a UserSig has some hundred.
const MAX_BYTES: usize = 4096;

/// Reads a key from a file that nobody else may read.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 if the file is unreadable, readable by others, empty, or not a key.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, ExitMessage> {
    parse(&format!("the key file {}", path.display()), &read_alone(path, "key")?)
}

/// Reads a password from a file that nobody else may read. It may be of any characters: one line, as it is.
///
/// # Errors
/// As [`read_secret`]'s.
pub(super) fn read_password(path: &Path) -> Result<SecretString, ExitMessage> {
    parse_line(&format!("the password file {}", path.display()), &read_alone(path, "password")?)
}

/// Reads the file of a `what`, which nobody else may be able to read.
fn read_alone(path: &Path, what: &str) -> Result<Vec<u8>, ExitMessage> {
    use std::os::unix::fs::PermissionsExt;
    if looks_like_key(path) {
        return Err(ExitMessage::yours(
            format!("what is given as the {what} file looks like the {what} itself"),
            format!("write the {what} into a file, chmod 600, and give its path; a {what} that was on a command line should be replaced"),
        ));
    }
    let metadata = std::fs::metadata(path).map_err(|why| cannot_read(&format!("the {what} file"), path, &why))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        // Nobody should change the mode of a device or a folder for it.
        let hint =
            if metadata.is_file() { format!("chmod 600 {}", file_word(path)) } else { "name a file that only you can read".to_owned() };
        return Err(ExitMessage::yours(format!("the {what} file {} can be read by others", path.display()), hint));
    }
    small_file::read(path).map_err(|why| cannot_read(&format!("the {what} file"), path, &why))
}

/// Whether the path looks like the key itself, which no message may show then. Tencent's keys are 64 hexadecimal digits.
fn looks_like_key(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit)
}

/// Returns the secret in `bytes` without a BOM, spaces and line ends around it. `place` names the source in messages.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 that says what `bytes` contains instead.
pub(super) fn parse(place: &str, bytes: &[u8]) -> Result<SecretString, ExitMessage> {
    let refused = |what: &str, hint: &str| {
        Err(ExitMessage::yours(format!("{place} does not hold one word, the secret alone: {what}"), hint.to_owned()))
    };
    let alone = "put the secret alone into it";
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return refused("it is UTF-16, or binary", "save it as UTF-8 or plain ASCII text");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return refused("it is not UTF-8", "save it as plain ASCII text") };
    let text = text.trim_matches(|char: char| char.is_whitespace() || char == '\u{feff}');
    let lines = text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).count();
    match lines {
        0 => return refused("it is empty", alone),
        1 => {}
        2 => return refused("it holds two lines", alone),
        more => return refused(&format!("it holds {more} lines"), alone),
    }
    if is_assignment(text) {
        return refused("it has the form NAME=secret", "leave out the name and the equals sign: put the secret alone into it");
    }
    if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        return refused("it is in quotes", "leave out the quotes: put the secret alone into it");
    }
    if text.contains(char::is_whitespace) {
        return refused("it holds several words", alone);
    }
    if text.len() > MAX_BYTES {
        return refused(&format!("it has more than {MAX_BYTES} bytes"), alone);
    }
    Ok(text.into())
}

/// Returns the one line of `bytes`, without a BOM and its line end.
fn parse_line(place: &str, bytes: &[u8]) -> Result<SecretString, ExitMessage> {
    let refused = |what: &str| Err(ExitMessage::yours(format!("{place} does not hold one line: {what}"), "put the password alone into it"));
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')) else { return refused("it is not UTF-8") };
    let line = text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
    match line {
        "" => refused("it is empty"),
        line if line.contains(['\n', '\r']) => refused("it holds several"),
        line if line.len() > MAX_BYTES => refused(&format!("it has more than {MAX_BYTES} bytes")),
        line => Ok(line.into()),
    }
}

/// Quotation marks that people and word processors put around a value.
const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '‘', '’', '«', '»'];

/// Whether the text has the form `NAME=…` or `export NAME=…`. A key in base64 may end with equals signs itself.
fn is_assignment(text: &str) -> bool {
    let text = text.strip_prefix("export ").map_or(text, str::trim_start);
    let Some((name, value)) = text.split_once('=') else { return false };
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '-';
    let name = name.trim_end();
    let names_something = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_') && name.chars().all(is_name);
    names_something && !value.chars().all(|char| char == '=')
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const KEY: &str = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e";

    #[test]
    fn text_around_a_secret_is_removed() {
        let check = |before: &str, after: &str| {
            let bytes = format!("{before}{KEY}{after}");
            assert_eq!(parse("it", bytes.as_bytes()).unwrap().expose_secret(), KEY, "{bytes:?}");
        };
        check("", "");
        check("", "\n");
        check("\u{feff}", "\r\n");
        check(" \t\u{a0}", " \n\n\n");
        check("\n\r\n", "\u{feff} \r");
        let base64 = "QUJDREVGR0g=";
        assert_eq!(parse("it", base64.as_bytes()).unwrap().expose_secret(), base64);
        assert_eq!(parse("it", b"a/b+c=d").unwrap().expose_secret(), "a/b+c=d", "a name contains no slash");
    }

    #[test]
    fn a_password_is_its_line_as_it_is() {
        for password in ["one two", " spaces around ", "\"quoted\"", "NAME=value", "päss wörd"] {
            for (before, after) in [("", ""), ("\u{feff}", "\r\n"), ("", "\n")] {
                let read = parse_line("it", format!("{before}{password}{after}").as_bytes()).unwrap();
                assert_eq!(read.expose_secret(), password);
            }
        }
        for wrong in [&b""[..], b"\n", b"one\ntwo", b"a\0b", b"\xff\xfea\0"] {
            assert!(parse_line("it", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn messages_name_the_problem_and_never_the_secret() {
        let check = |bytes: &[u8], what: &str| {
            let word = parse("the key file k", bytes).unwrap_err().to_string();
            assert!(word.contains(what) && word.contains("the key file k"), "{what}: {word}");
            assert!(!word.contains("5bd2") && !word.contains("bb93"), "{word}");
        };
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        check(b"", "empty");
        check("\u{feff} \n".as_bytes(), "empty");
        check(&utf16(KEY), "UTF-16");
        check(&utf16(&format!("\u{feff}{KEY}\n")), "UTF-16");
        check(b"5bd2\xff", "not UTF-8");
        check(format!("\"{KEY}\"\n").as_bytes(), "quotes");
        check(format!("'{KEY}'").as_bytes(), "quotes");
        check(format!("“{KEY}”").as_bytes(), "quotes");
        check(format!("CHATLIFT_SECRET_KEY={KEY}\n").as_bytes(), "NAME=");
        check(format!("export secret-key = \"{KEY}\"\n").as_bytes(), "NAME=");
        check(format!("{KEY}\n{KEY}\n").as_bytes(), "two lines");
        check(format!("{KEY}\r\n\r\n# of the app\n").as_bytes(), "two lines");
        check(format!("a\n{KEY}\n{KEY}\n").as_bytes(), "3 lines");
        check(format!("{KEY} {KEY}").as_bytes(), "several words");
        check(KEY.repeat(65).as_bytes(), "4096 bytes");
    }
}
