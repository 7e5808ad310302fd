//! Turns flags, environment and configuration file into settings that are ready to use, and reports whatever is wrong with them.
//!
//! The environment is passed in as a function, so that tests need not change their process's environment.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use encoding_rs::UTF_8;
use reqwest::Url;

use super::access::{is_out_of_files, why_denied};
use super::config_file::ConnectionDefaults;
use super::encoding::label;
use super::flags::{ConnectionFlags, InputFlags, UserIdsFlag};
use super::quota::QuotaChoice;
use super::secret::{self, read_secret};
use super::url_source::UrlSource;
use super::{proxy, quota, small_file};
use crate::domain::account::{UserId, UserIds};
use crate::domain::cells::{CellEnds, CellRules, Uuids};
use crate::io::api::proxy::ProxySettings;
use crate::io::api::region::Region;
use crate::io::api::usersig::{Credential, read_claims};
use crate::io::gate::{Headroom, Rate};
use crate::io::roster::{DelimiterFrom, Format, Multiline, NoHeader};
use crate::shell::exit::{ExitMessage, MORE_FILES};

/// Calls in flight unless told otherwise: 200 a second hold at a latency of 1.2 s.
const IN_FLIGHT: u32 = 256;
/// Most calls in flight that can be asked for. Chosen: each is a socket, and a process commonly has 1,024 of them.
const IN_FLIGHT_MAX: u32 = 900;
const MAX_ATTEMPTS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_OUTAGE: Duration = Duration::from_secs(6 * 3600);
/// The administrator that every app is born with. Source: Tencent's documentation.
const IDENTIFIER: &str = "administrator";

/// Everything that a command which calls the API needs.
#[derive(Debug)]
pub struct Connection {
    pub service: ServiceAddress,
    pub rate: Option<Rate>,
    pub headroom: Headroom,
    pub in_flight: usize,
    pub max_attempts: u32,
    pub timeout: Duration,
    pub max_outage: Duration,
    pub ca_pem: Option<Vec<u8>>,
    proxy: Option<ProxySettings>,
    /// The limit that other processes share.
    pub(super) quota: Option<QuotaChoice>,
}

/// What is called, and as whom.
#[derive(Debug)]
pub enum ServiceAddress {
    /// The mock service inside this process; it brings its own credentials.
    Sandbox,
    Remote {
        endpoint: Url,
        identity: Identity,
    },
}

impl ServiceAddress {
    fn is_loopback(&self) -> bool {
        match self {
            ServiceAddress::Sandbox => true,
            ServiceAddress::Remote { endpoint, .. } => is_loopback(endpoint),
        }
    }
}

/// How the input is read: commas separate its fields, tabs those of `*.tsv`, unless the flags say otherwise.
#[must_use]
pub fn format(flags: &InputFlags) -> Format {
    let is_called = |name: &Path, ending: &str| name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    let is_compressed = is_called(&flags.file, "gz") || is_called(&flags.file, "zst");
    let name = if is_compressed { flags.file.with_extension("") } else { flags.file.clone() };
    let is_tsv = is_called(&name, "tsv");
    let usual = if is_tsv { b'\t' } else { b',' };
    let delimiter_from = if flags.delimiter.is_some() { DelimiterFrom::Asked } else { DelimiterFrom::Usual };
    let multiline = if flags.multiline { Multiline::Taken } else { Multiline::Judged };
    Format {
        delimiter: flags.delimiter.unwrap_or(usual),
        delimiter_from,
        map: flags.map.clone(),
        tags: flags.profile.clone(),
        words: flags.value.clone(),
        multiline,
        escape: flags.escape,
        no_header: NoHeader::Refused,
        cells: cell_rules(flags),
        encoding: flags.encoding.filter(|encoding| *encoding != UTF_8).map(label),
    }
}

fn cell_rules(flags: &InputFlags) -> CellRules {
    CellRules {
        ends: if flags.trim { CellEnds::Trimmed } else { CellEnds::Kept },
        nulls: flags.null.clone(),
        user_ids: flags.user_ids.map_or(UserIds::Ascii, |UserIdsFlag::Any| UserIds::Any),
        uuids: if flags.compact_uuid { Uuids::Compact } else { Uuids::Kept },
    }
}

/// Reads an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

struct Sources<'a> {
    flags: &'a ConnectionFlags,
    environment: Environment<'a>,
    config: &'a ConnectionDefaults,
}

/// The rate that is given for a run, for a forecast; 0: no limit.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 if it is no number.
pub(super) fn given_rate(flags: &ConnectionFlags, environment: Environment) -> Result<Option<u32>, ExitMessage> {
    Sources { flags, environment, config: &flags.defaults }.given_rate()
}

/// The address and the app, if both are given.
pub(super) fn named_app(flags: &ConnectionFlags, environment: Environment) -> Option<(Url, u64)> {
    let sources = Sources { flags, environment, config: &flags.defaults };
    Some((sources.endpoint().ok()??, sources.sdkappid().ok()?))
}

/// As whom calls are signed.
#[derive(Debug, Clone)]
pub struct Identity {
    pub sdkappid: u64,
    pub identifier: String,
    pub credential: Credential,
}

impl Connection {
    /// Resolves flags, environment and configuration file, in this order.
    ///
    /// # Errors
    /// The last word (exit code 2) for whatever is missing, contradictory or unreadable.
    pub fn resolve(flags: &ConnectionFlags, environment: Environment) -> Result<Self, ExitMessage> {
        let sources = Sources { flags, environment, config: &flags.defaults };
        let endpoint = if flags.sandbox { None } else { sources.endpoint()? };
        // Where none is given yet, it may be any.
        let is_loopback = endpoint.as_ref().is_none_or(is_loopback);
        // What is wrong is told before what is missing.
        let (rate, ca_pem) = (sources.rate(is_loopback)?, sources.ca_pem()?);
        Ok(Self {
            quota: if flags.sandbox { sources.no_quota()? } else { sources.quota(rate, ca_pem.as_ref())? },
            rate,
            headroom: sources.headroom()?,
            in_flight: sources.in_flight()?,
            max_attempts: positive("--max-attempts", flags.max_attempts.or(sources.config.max_attempts).unwrap_or(MAX_ATTEMPTS))?,
            timeout: sources.timeout()?,
            max_outage: sources.max_outage()?,
            ca_pem,
            proxy: sources.proxy()?,
            service: if flags.sandbox { ServiceAddress::Sandbox } else { sources.remote(endpoint)? },
        })
    }

    /// Whether the service is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.service.is_loopback()
    }

    /// What connections to the service go through; those to the sandbox are this process's own.
    #[must_use]
    pub fn proxy(&self) -> Option<&ProxySettings> {
        match &self.service {
            ServiceAddress::Sandbox => None,
            ServiceAddress::Remote { .. } => self.proxy.as_ref(),
        }
    }

    /// As whom calls are made.
    #[must_use]
    pub fn identifier(&self) -> &str {
        match &self.service {
            ServiceAddress::Sandbox => IDENTIFIER,
            ServiceAddress::Remote { identity, .. } => &identity.identifier,
        }
    }

    /// Resolves the part of it that signatures are made from.
    ///
    /// # Errors
    /// As [`Connection::resolve`].
    pub fn identity(flags: &ConnectionFlags, environment: Environment) -> Result<Identity, ExitMessage> {
        Sources { flags, environment, config: &flags.defaults }.identity()
    }
}

impl Sources<'_> {
    fn variable(&self, name: &str) -> Result<Option<String>, ExitMessage> {
        variable(self.environment, name)
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ExitMessage> {
        let text = self.variable(name)?;
        text.map(|text| text.trim().parse())
            .transpose()
            .map_err(|_| ExitMessage::yours(format!("{name} is not a number"), format!("correct {name}")))
    }

    fn remote(&self, endpoint: Option<Url>) -> Result<ServiceAddress, ExitMessage> {
        let identity = self.identity()?;
        let endpoint = endpoint.ok_or_else(no_region)?;
        Ok(ServiceAddress::Remote { identity, endpoint })
    }

    fn sdkappid(&self) -> Result<u64, ExitMessage> {
        let sdkappid = self.flags.sdkappid.map_or_else(|| self.number("CHATLIFT_SDKAPPID"), |flag| Ok(Some(flag)))?;
        let sdkappid = sdkappid.or(self.config.sdkappid).ok_or_else(|| {
            ExitMessage::yours("no SDKAppID is given", "give --sdkappid N (the console shows it), or rehearse with --sandbox")
        })?;
        if sdkappid == 0 {
            return Err(ExitMessage::yours("0 is no SDKAppID", "give --sdkappid N (the console shows it), or rehearse with --sandbox"));
        }
        Ok(sdkappid)
    }

    fn identity(&self) -> Result<Identity, ExitMessage> {
        let sdkappid = self.sdkappid()?;
        let identifier = self.identifier()?;
        let credential = self.credential()?;
        check_claims(&credential, sdkappid, &identifier)?;
        Ok(Identity { sdkappid, identifier, credential })
    }

    fn identifier(&self) -> Result<String, ExitMessage> {
        let given = self.flags.identifier.clone().map_or_else(|| self.variable("CHATLIFT_IDENTIFIER"), |flag| Ok(Some(flag)))?;
        let identifier = given.or_else(|| self.config.identifier.clone()).unwrap_or_else(|| IDENTIFIER.to_owned());
        UserId::parse(identifier.as_bytes())
            .map_err(|why| ExitMessage::yours(format!("the identifier cannot be one: {why}"), "correct --identifier"))?;
        Ok(identifier)
    }

    /// A flag beats the environment, which beats the configuration file; a key beats a ready-made signature.
    fn credential(&self) -> Result<Credential, ExitMessage> {
        if let Some(path) = &self.flags.secret_key_file {
            return Ok(Credential::Key(read_secret(path)?));
        }
        if let Some(key) = self.variable("CHATLIFT_SECRET_KEY")? {
            return Ok(Credential::Key(secret::parse("CHATLIFT_SECRET_KEY", key.as_bytes())?));
        }
        if let Some(usersig) = self.variable("CHATLIFT_USERSIG")? {
            return Ok(Credential::Ready(secret::parse("CHATLIFT_USERSIG", usersig.as_bytes())?));
        }
        match &self.config.secret_key_file {
            Some(path) => Ok(Credential::Key(read_secret(path)?)),
            None => Err(ExitMessage::yours(
                "no credentials are given",
                "give --secret-key-file FILE, CHATLIFT_SECRET_KEY or CHATLIFT_USERSIG, or rehearse with --sandbox",
            )),
        }
    }

    /// What is given, if anything is.
    fn endpoint(&self) -> Result<Option<Url>, ExitMessage> {
        if let Some(url) = &self.flags.endpoint {
            return parse_endpoint(url).map(Some);
        }
        if let Some(region) = self.flags.region {
            return region_endpoint(region).map(Some);
        }
        let (url, region) = (self.variable("CHATLIFT_ENDPOINT")?, self.variable("CHATLIFT_REGION")?);
        if let Some(endpoint) = one_of(url.as_deref(), region.as_deref(), "CHATLIFT_ENDPOINT and CHATLIFT_REGION")? {
            return Ok(Some(endpoint));
        }
        one_of(self.config.endpoint.as_deref(), self.config.region.as_deref(), "endpoint and region of the configuration file")
    }

    fn rate(&self, is_loopback: bool) -> Result<Option<Rate>, ExitMessage> {
        match self.given_rate()?.map(NonZeroU32::new) {
            None => Ok(None),
            Some(Some(rate)) => Ok(Some(Rate::PerSecond(rate))),
            Some(None) if is_loopback => Ok(Some(Rate::Unlimited)),
            Some(None) => Err(ExitMessage::yours(
                "--rate 0 (no limit) is for a loopback endpoint only",
                "leave --rate out: the default is the API's documented limit",
            )),
        }
    }

    /// The rate as it is given; 0: no limit.
    fn given_rate(&self) -> Result<Option<u32>, ExitMessage> {
        let given = self.flags.rate.map_or_else(|| self.number("CHATLIFT_RATE"), |flag| Ok(Some(flag)))?;
        Ok(given.or(self.config.rate))
    }

    fn headroom(&self) -> Result<Headroom, ExitMessage> {
        let Some(percent) = self.flags.headroom.or(self.config.headroom) else { return Ok(Headroom::DEFAULT) };
        Headroom::percent(percent).ok_or_else(|| {
            ExitMessage::yours(format!("--headroom {percent} leaves next to nothing"), "it takes a whole number from 0 to 90")
        })
    }

    fn in_flight(&self) -> Result<usize, ExitMessage> {
        let given = positive("--in-flight", self.flags.in_flight.or(self.config.in_flight).unwrap_or(IN_FLIGHT))?;
        if given > IN_FLIGHT_MAX {
            return Err(ExitMessage::yours(
                format!("--in-flight {given} is more than {IN_FLIGHT_MAX}"),
                "256 carry 200 requests a second at a latency of 1.2 s",
            ));
        }
        Ok(given as usize)
    }

    fn timeout(&self) -> Result<Duration, ExitMessage> {
        let config = self.config.timeout.map(|seconds| super::flags::seconds(&seconds.to_string())).transpose();
        let config = config.map_err(|why| ExitMessage::yours(format!("timeout: {why}"), "correct the configuration file"))?;
        Ok(self.flags.timeout.or(config).unwrap_or(TIMEOUT))
    }

    fn max_outage(&self) -> Result<Duration, ExitMessage> {
        let config = self.config.max_outage.as_deref().map(super::flags::duration).transpose();
        let config = config.map_err(|why| ExitMessage::yours(format!("max-outage: {why}"), "write it like \"6h\" or \"30min\""))?;
        Ok(self.flags.max_outage.or(config).unwrap_or(MAX_OUTAGE))
    }

    fn ca_pem(&self) -> Result<Option<Vec<u8>>, ExitMessage> {
        let given = self
            .flags
            .ca_file
            .clone()
            .map_or_else(|| self.variable("CHATLIFT_CA_FILE").map(|v| v.map(PathBuf::from)), |flag| Ok(Some(flag)))?;
        let Some(path) = given.or_else(|| self.config.ca_file.clone()) else { return Ok(None) };
        let pem = small_file::read(&path).map_err(|why| cannot_read("the CA file", &path, &why))?;
        Ok(Some(pem))
    }

    /// A rehearsal inside this process draws on nothing that is shared.
    fn no_quota(&self) -> Result<Option<QuotaChoice>, ExitMessage> {
        if self.flags.quota.quota.is_some() || self.config.quota.is_some() || self.variable(quota::VARIABLE)?.is_some() {
            tracing::info!("a rehearsal with --sandbox leaves the quota alone: the limit is not shared");
        }
        Ok(None)
    }

    fn quota(&self, rate: Option<Rate>, ca_pem: Option<&Vec<u8>>) -> Result<Option<QuotaChoice>, ExitMessage> {
        let variable = self.variable(quota::VARIABLE)?;
        let mut flags = self.flags.quota.clone();
        flags.quota_rate = quota::rates(&flags.quota_rate, &self.config.quota_rate)?;
        if let (None, Some(text)) = (flags.quota_lost, &self.config.quota_lost) {
            flags.quota_lost = Some(text.parse().map_err(|why: String| quota::wrong_in_file("quota-lost", &why))?);
        }
        flags.quota_key = flags.quota_key.or_else(|| self.config.quota_key.clone());
        let password_file = flags.quota_password_file.clone().or_else(|| self.config.quota_password_file.clone());
        let url = UrlSource::first(self.flags.quota.quota.as_ref(), variable.as_ref(), self.config.quota.as_ref());
        let choice = quota::resolve(&quota::Given { url, flags: &flags, password_file: password_file.as_deref(), ca_pem })?;
        if choice.is_some() {
            quota::allows("--rate", rate)?;
        }
        Ok(choice)
    }

    fn proxy(&self) -> Result<Option<ProxySettings>, ExitMessage> {
        let password_file = self.flags.proxy_password_file.as_ref().or(self.config.proxy_password_file.as_ref());
        let variable = self.variable(proxy::VARIABLE)?;
        let given = UrlSource::first(self.flags.proxy.as_ref(), variable.as_ref(), self.config.proxy.as_ref());
        proxy::resolve(given, password_file.map(PathBuf::as_path))
    }
}

pub(super) fn variable(environment: Environment, name: &str) -> Result<Option<String>, ExitMessage> {
    let Some(value) = environment(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.into_string();
    text.map(Some).map_err(|_| ExitMessage::yours(format!("{name} is not UTF-8"), format!("correct {name}")))
}

fn one_of(url: Option<&str>, region: Option<&str>, both: &str) -> Result<Option<Url>, ExitMessage> {
    match (url, region) {
        (Some(_), Some(_)) => Err(ExitMessage::yours(format!("{both} are both set"), "set one of them")),
        (Some(url), None) => parse_endpoint(url).map(Some),
        (None, Some(name)) => match Region::from_str(name, false) {
            Ok(region) => region_endpoint(region).map(Some),
            Err(_) => Err(ExitMessage::yours(format!("{name:?} is no region"), format!("give one of {}", region_names()))),
        },
        (None, None) => Ok(None),
    }
}

fn region_names() -> String {
    let names = Region::value_variants().iter().filter_map(Region::to_possible_value).map(|value| value.get_name().to_owned());
    names.collect::<Vec<_>>().join(", ")
}

fn no_region() -> ExitMessage {
    let hint = format!("give --region NAME, one of {} (the console shows the app's data center)", region_names());
    ExitMessage::yours("no region is given", hint)
}

fn region_endpoint(region: Region) -> Result<Url, ExitMessage> {
    parse_endpoint(&format!("https://{}", region.host()))
}

fn parse_endpoint(text: &str) -> Result<Url, ExitMessage> {
    let wrong = |why: &str| Err(ExitMessage::yours(format!("the endpoint {why}"), "write it like https://adminapisgp.im.qcloud.com"));
    let Ok(url) = Url::parse(text) else { return wrong("is not a URL") };
    if url.host_str().is_none() || !["https", "http"].contains(&url.scheme()) {
        return wrong("must be an https:// URL");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return wrong("must be scheme, host and port alone");
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return wrong("may be http:// only with a loopback address such as 127.0.0.1");
    }
    Ok(url)
}

/// Whether the host is a loopback address literal; a name could resolve to anything.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A ready-made signature must be for this app and this administrator: that can be seen before the first call.
fn check_claims(credential: &Credential, sdkappid: u64, identifier: &str) -> Result<(), ExitMessage> {
    let Credential::Ready(usersig) = credential else { return Ok(()) };
    let claims = read_claims(usersig).map_err(|why| ExitMessage::yours(format!("CHATLIFT_USERSIG: {why}"), "make a new one"))?;
    if claims.sdkappid != sdkappid || claims.identifier != identifier {
        return Err(ExitMessage::yours(
            format!("CHATLIFT_USERSIG was made for {} of the app {}", claims.identifier, claims.sdkappid),
            "--sdkappid and --identifier must be those that it was made for",
        ));
    }
    if claims.expires_at <= std::time::SystemTime::now() {
        let when = humantime::format_rfc3339_seconds(claims.expires_at);
        return Err(ExitMessage::yours(format!("CHATLIFT_USERSIG expired at {when}"), "make a new one, or give --secret-key-file instead"));
    }
    Ok(())
}

fn positive(flag: &str, number: u32) -> Result<u32, ExitMessage> {
    if number == 0 {
        Err(ExitMessage::yours(format!("{flag} must be at least 1"), format!("leave {flag} out for the default")))
    } else {
        Ok(number)
    }
}

pub(super) fn cannot_read(what: &str, path: &Path, why: &std::io::Error) -> ExitMessage {
    let hint = if is_out_of_files(why) { MORE_FILES } else { "check the path and its permissions" };
    ExitMessage::yours(format!("cannot read {what} {}: {why}{}", path.display(), why_denied(path, why)), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_follows_from_the_name_unless_it_is_given() {
        let check = |file: &str, delimiter: Option<u8>, expected: u8| {
            let flags = InputFlags { delimiter, ..InputFlags::bare(file.into()) };
            assert_eq!(format(&flags).delimiter, expected, "{file}");
        };
        check("users.csv", None, b',');
        check("users.TSV", None, b'\t');
        check("-", None, b',');
        check("users.tsv", Some(b';'), b';');
    }
}
