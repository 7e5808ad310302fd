//! Checks a request's method, path and the five query parameters, exactly as documented.
//!
//! The text of a refusal never contains a value of the query, because one of them is the UserSig.

use std::borrow::Cow;

use super::command;
use super::reply::RequestRefusal;
use crate::io::api::wire::Command;

/// The request's URL is malformed. Source: Tencent's error code page.
const BAD_URL: i64 = 60002;
/// No command has this URL. Source: Tencent's error code page.
const NO_SUCH_RESOURCE: i64 = 60009;

/// The query parameters of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestQuery<'a> {
    pub(super) command: Command,
    pub(super) sdkappid: u64,
    pub(super) identifier: Cow<'a, str>,
    pub(super) usersig: Cow<'a, str>,
    pub(super) random: u32,
}

/// The command that a target's path names.
pub(super) fn command(target: &str) -> Option<Command> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    command::by_path(path.strip_prefix("/v4/")?)
}

/// Reads method, path and query.
///
/// # Errors
/// [`RequestRefusal`] for anything that differs from the documentation.
pub(super) fn open<'a>(method: &str, target: &'a str) -> Result<RequestQuery<'a>, RequestRefusal> {
    let command = command(target).ok_or_else(|| {
        let known = Command::ALL.map(|command| command.spec().path).join(", ");
        RequestRefusal::form(NO_SUCH_RESOURCE, format!("the sandbox does not know this command; it knows {known}"))
    })?;
    if method != "POST" {
        return Err(RequestRefusal::form(BAD_URL, "the method must be POST"));
    }
    let [sdkappid, identifier, usersig, random, contenttype] = parameters(target)?;
    if contenttype != "json" {
        return Err(RequestRefusal::form(BAD_URL, "contenttype must be json"));
    }
    Ok(RequestQuery {
        command,
        sdkappid: number(&sdkappid).ok_or_else(|| RequestRefusal::form(BAD_URL, "sdkappid must be a number"))?,
        identifier,
        usersig,
        random: number(&random)
            .and_then(|random| u32::try_from(random).ok())
            .ok_or_else(|| RequestRefusal::form(BAD_URL, "random must be a 32-bit unsigned integer"))?,
    })
}

const NAMES: [&str; 5] = ["sdkappid", "identifier", "usersig", "random", "contenttype"];

/// The values of [`NAMES`], each of which must be given exactly once.
fn parameters(target: &str) -> Result<[Cow<'_, str>; 5], RequestRefusal> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut values: [Option<Cow<'_, str>>; 5] = [const { None }; 5];
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let position = NAMES.into_iter().position(|known| known == name);
        let Some(position) = position else {
            return Err(RequestRefusal::form(BAD_URL, "an undocumented query parameter"));
        };
        let value = percent_decoded(value).ok_or_else(|| RequestRefusal::form(BAD_URL, format!("{} is badly escaped", NAMES[position])))?;
        if values[position].replace(value).is_some() {
            return Err(RequestRefusal::form(BAD_URL, format!("{} is given twice", NAMES[position])));
        }
    }
    if let Some(missing) = values.iter().position(Option::is_none) {
        return Err(RequestRefusal::form(BAD_URL, format!("{} is missing", NAMES[missing])));
    }
    Ok(values.map(Option::unwrap_or_default))
}

/// Reads plain decimal digits without a sign or leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || (text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_its_five_parameters_exactly_once() {
        let check = |method: &str, target: &str, expected: Result<(), i64>| {
            assert_eq!(open(method, target).map(|_| ()).map_err(|refusal| refusal.code), expected, "{method} {target}");
        };
        let path = "/v4/im_open_login_svc/account_import";
        let good = "sdkappid=1400000000&identifier=a%20b&usersig=eJw*-_&random=4294967295&contenttype=json";
        let with = |query: String| format!("{path}?{query}");
        check("POST", &with(good.to_owned()), Ok(()));
        check("POST", &with("contenttype=json&random=0&usersig=x&identifier=a&sdkappid=1".to_owned()), Ok(()));
        check("GET", &with(good.to_owned()), Err(BAD_URL));
        check("POST", path, Err(BAD_URL));
        check("POST", &with(good.replace("&random=4294967295", "")), Err(BAD_URL));
        check("POST", &with(good.replace("4294967295", "4294967296")), Err(BAD_URL));
        check("POST", &with(good.replace("4294967295", "")), Err(BAD_URL));
        check("POST", &with(good.replace("4294967295", "-1")), Err(BAD_URL));
        check("POST", &with(good.replace("contenttype=json", "contenttype=JSON")), Err(BAD_URL));
        check("POST", &with(good.replace("sdkappid", "sdkAppid")), Err(BAD_URL));
        check("POST", &with(good.replace("a%20b", "a%2")), Err(BAD_URL));
        check("POST", &with(format!("{good}&random=1")), Err(BAD_URL));
        check("POST", &with(format!("{good}&more=1")), Err(BAD_URL));
        check("POST", &with(format!("{good}&")), Err(BAD_URL));
        check("POST", &with(good.to_owned()).replace("account_import", "Account_import"), Err(NO_SUCH_RESOURCE));
        check("POST", &with(good.to_owned()).replace("/v4/", "/v5/"), Err(NO_SUCH_RESOURCE));
        check("POST", &with(good.to_owned()).replace("account_import?", "account_import/?"), Err(NO_SUCH_RESOURCE));
    }

    #[test]
    fn no_refusal_repeats_the_usersig() {
        let target = "/v4/im_open_login_svc/account_import?usersig=SECRET&usersig=SECRET&SECRET=1";
        let refusal = open("POST", target).unwrap_err();
        assert!(!refusal.info.contains("SECRET"), "{refusal:?}");
    }
}
