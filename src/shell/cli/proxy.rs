//! Determines the proxy and its password.

use std::path::Path;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::secret::read_password;
use super::url_source::UrlSource;
use crate::io::api::proxy::ProxySettings;
use crate::shell::exit::ExitMessage;

/// The environment variable for the proxy's URL, which may contain its password.
pub(super) const VARIABLE: &str = "CHATLIFT_PROXY";

/// The name of the place where its URL was given.
fn name(from: UrlSource) -> String {
    from.name("proxy", VARIABLE)
}

/// The proxy that the user has chosen, if any.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 for an invalid URL, or a password in a place that others can read. No message shows the URL, because
/// it may contain a password.
pub(super) fn resolve(given: Option<(&String, UrlSource)>, password_file: Option<&Path>) -> Result<Option<ProxySettings>, ExitMessage> {
    let Some((text, from)) = given else {
        return match password_file {
            Some(_) => Err(ExitMessage::yours("a password of the proxy is given, and no proxy", "give --proxy http://NAME@HOST:PORT too")),
            None => Ok(None),
        };
    };
    let address = parse(text, from)?;
    let user = decoded(address.username(), from)?;
    let password = match (address.password(), password_file) {
        (Some(_), _) if from != UrlSource::Variable => {
            return Err(ExitMessage::yours(
                format!("{} holds a password: others can read it there", name(from)),
                "leave it out of the URL, and give --proxy-password-file FILE, or put the whole URL into CHATLIFT_PROXY",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(ExitMessage::yours(format!("{VARIABLE} and --proxy-password-file both hold a password"), "give one of them"));
        }
        (Some(password), None) => Some(SecretString::from(decoded(password, from)?)),
        (None, Some(file)) if user.is_empty() => {
            return Err(ExitMessage::yours(
                format!("{} names nobody whose password {} could be", name(from), file.display()),
                "write it like http://NAME@HOST:PORT",
            ));
        }
        (None, Some(file)) => Some(read_password(file)?),
        (None, None) => None,
    };
    let is_named = password.is_some() || !user.is_empty();
    let credentials = is_named.then(|| format!("{user}:{}", password.as_ref().map_or("", |password| password.expose_secret())).into());
    Ok(Some(ProxySettings { address: bare(address), credentials }))
}

fn parse(text: &str, from: UrlSource) -> Result<Url, ExitMessage> {
    let wrong = |why: &str| Err(ExitMessage::yours(format!("{} {why}", name(from)), "write it like http://proxy.example.com:3128"));
    let Ok(url) = Url::parse(text.trim()) else { return wrong("is not a URL") };
    if url.host_str().is_none_or(str::is_empty) || !["http", "https"].contains(&url.scheme()) {
        return wrong("must be an http:// or https:// URL");
    }
    if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return wrong("must be scheme, host and port alone");
    }
    Ok(url)
}

/// A user name or password without URL escapes.
fn decoded(text: &str, from: UrlSource) -> Result<String, ExitMessage> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    let decoded = decoded
        .map_err(|_| ExitMessage::yours(format!("{} is not UTF-8", name(from)), "escape what is no plain character as in any URL"))?;
    Ok(decoded.into_owned())
}

/// The URL without user name and password.
fn bare(mut url: Url) -> Url {
    // Both can fail only for a URL without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}
