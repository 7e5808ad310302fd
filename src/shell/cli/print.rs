//! Commands that only print: a UserSig, completions.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::CommandFactory;
use humantime::{format_duration, format_rfc3339_seconds};
use secrecy::{ExposeSecret, SecretString};

use super::environment;
use super::flags::{Cli, UsersigCommand, UsersigFlags};
use super::secret;
use super::settings::{Connection, cannot_read};
use super::small_file;
use super::stdout::print;
use crate::io::api::usersig::{Claims, Credential, read_claims, sign};
use crate::shell::exit::ExitMessage;
use crate::shell::terminal::quoted;

/// The variable with a ready-made UserSig.
const USERSIG: &str = "CHATLIFT_USERSIG";
/// The place of a UserSig that is piped in.
const STDIN: &str = "standard input";

/// Prints a UserSig for the configured app and identifier, or what a given one says.
pub(super) fn usersig(flags: &UsersigFlags) -> ExitMessage {
    match flags.what {
        None => new_usersig(flags),
        Some(UsersigCommand::Decode) => decoded().map_or_else(|word| word, |text| printed(&text)),
    }
}

/// What a UserSig from the environment or standard input says. Neither its key nor its signature is needed or shown.
fn decoded() -> Result<String, ExitMessage> {
    let (place, usersig) = given_usersig()?;
    let claims = read_claims(&usersig).map_err(|why| {
        let hint = "pipe one in, such as chatlift usersig prints it";
        ExitMessage::yours(format!("{place}: {why}"), hint)
    })?;
    Ok(claims_text(place, &claims, SystemTime::now()))
}

/// The UserSig of the environment, else the one on standard input, with the name of its place.
fn given_usersig() -> Result<(&'static str, SecretString), ExitMessage> {
    if let Some(text) = environment(USERSIG).filter(|text| !text.is_empty()) {
        return Ok((USERSIG, secret::parse(USERSIG, text.as_encoded_bytes())?));
    }
    let path = Path::new("/dev/stdin");
    let bytes = small_file::read(path).map_err(|why| cannot_read(STDIN, path, &why))?;
    Ok((STDIN, secret::parse(STDIN, &bytes)?))
}

fn claims_text(place: &str, claims: &Claims, now: SystemTime) -> String {
    let Claims { identifier, sdkappid, made_at, expires_at } = claims;
    let whole_seconds = |time: Duration| format_duration(Duration::from_secs(time.as_secs()));
    let left = expires_at.duration_since(now);
    let when = left.map_or_else(
        |since| format!("expired {} ago", whole_seconds(since.duration())),
        |left| format!("valid for another {}", whole_seconds(left)),
    );
    format!(
        "read from   {place}\nSDKAppID    {sdkappid}\nidentifier  {}\nmade        {}\nexpires     {}, {when}\n",
        quoted(identifier.as_bytes()),
        format_rfc3339_seconds(*made_at),
        format_rfc3339_seconds(*expires_at),
    )
}

fn new_usersig(flags: &UsersigFlags) -> ExitMessage {
    let identity = match Connection::identity(&flags.connection, &environment) {
        Ok(identity) => identity,
        Err(word) => return word,
    };
    let usersig = match &identity.credential {
        Credential::Key(key) => sign(key, identity.sdkappid, &identity.identifier, SystemTime::now(), flags.expire),
        Credential::Ready(usersig) => usersig.clone(),
    };
    printed(&format_args!("{}\n", usersig.expose_secret()))
}

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> ExitMessage {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chatlift", &mut script);
    printed(&String::from_utf8_lossy(&script))
}

fn printed(data: &dyn Display) -> ExitMessage {
    print(data).map_or_else(|word| word, |()| ExitMessage::done(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_whose_it_is_and_how_long_it_is_valid() {
        let at = |unix| SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
        let claims = Claims { identifier: "admin\n".to_owned(), sdkappid: 7, made_at: at(0), expires_at: at(86_400) };
        let text = |now| claims_text("here", &claims, at(now));
        let before = "read from   here\nSDKAppID    7\nidentifier  \"admin\\n\"\nmade        1970-01-01T00:00:00Z\n";
        assert_eq!(text(82_800), format!("{before}expires     1970-01-02T00:00:00Z, valid for another 1h\n"));
        assert_eq!(text(86_460), format!("{before}expires     1970-01-02T00:00:00Z, expired 1m ago\n"));
    }
}
