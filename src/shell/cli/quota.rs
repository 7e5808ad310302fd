//! Determines the shared quota: the store with its password, the key, and the limits.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::flags::{QuotaFlags, QuotaLostFlag, QuotaRateFlag};
use super::secret::read_password;
use super::settings::{Environment, variable};
use super::url_source::UrlSource;
use crate::domain::command::{Command, PerCommand};
use crate::flow::check::Rates;
use crate::io::gate::Rate;
use crate::io::quota::{self, IfLost, QuotaError, QuotaRefusal, QuotaSettings, StoreAddress, Transport};
use crate::shell::exit::ExitMessage;

/// The environment variable for the URL, which may contain its password.
pub(super) const VARIABLE: &str = "CHATLIFT_QUOTA";
/// Source: the servers' documentation.
const PORT: u16 = 6379;
/// How long the first look at the store may take. Chosen: a run waits for a lost store anyway.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// The name of the place where its URL was given.
fn name(from: UrlSource) -> String {
    from.name("quota", VARIABLE)
}

/// The quota that the user has chosen, before it is known for which app.
#[derive(Debug, Clone)]
pub(super) struct QuotaChoice {
    store: StoreAddress,
    key: Option<String>,
    rates: Vec<QuotaRateFlag>,
    lost: Option<QuotaLostFlag>,
}

/// What is given besides the URL.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) url: Option<(&'a String, UrlSource)>,
    pub(super) flags: &'a QuotaFlags,
    pub(super) password_file: Option<&'a Path>,
    pub(super) ca_pem: Option<&'a Vec<u8>>,
}

/// # Errors
/// An [`ExitMessage`] with exit code 2 for an invalid URL, or a password in a place that others can read. No message shows the URL, because
/// it may contain a password.
pub(super) fn resolve(given: &Given) -> Result<Option<QuotaChoice>, ExitMessage> {
    let flags = given.flags;
    let Some((text, from)) = given.url else {
        let has_more = flags.quota_key.is_some() || !flags.quota_rate.is_empty() || flags.quota_lost.is_some();
        return if has_more || given.password_file.is_some() { Err(without_a_quota()) } else { Ok(None) };
    };
    makes_sense(flags)?;
    let mut store = parse(text, from)?;
    holds_no_password(&store, from)?;
    match (&store.password, given.password_file) {
        (Some(_), Some(_)) => {
            return Err(ExitMessage::yours(format!("{VARIABLE} and --quota-password-file both hold a password"), "give one of them"));
        }
        (Some(_) | None, None) => {}
        (None, Some(file)) => store.password = Some(read_password(file)?),
    }
    if store.user.is_some() && store.password.is_none() {
        return Err(ExitMessage::yours(
            format!("{} names a user, and there is no password", name(from)),
            format!(
                "if it is a password, it stands behind a colon: redis://:PASSWORD@HOST:PORT/DB, in {VARIABLE} alone; else give \
                     --quota-password-file FILE"
            ),
        ));
    }
    if store.transport == Transport::Tls {
        store.ca_pem = given.ca_pem.cloned();
    }
    Ok(Some(QuotaChoice { store, key: flags.quota_key.clone(), rates: flags.quota_rate.clone(), lost: flags.quota_lost }))
}

/// Whether what is said of a quota can be meant.
fn makes_sense(flags: &QuotaFlags) -> Result<(), ExitMessage> {
    let rates = &flags.quota_rate;
    if let Some((_, twice)) = rates.iter().enumerate().find(|(place, given)| rates[..*place].iter().any(|other| other.api == given.api)) {
        let api = twice.api.name();
        return Err(ExitMessage::yours(format!("--quota-rate names {api} twice"), format!("give --quota-rate {api}=N once")));
    }
    if flags.quota_key.as_ref().is_some_and(|key| key.trim().is_empty()) {
        return Err(ExitMessage::yours("--quota-key is empty", "leave it out: the default has the app's number"));
    }
    let Some(QuotaLostFlag(share)) = flags.quota_lost else { return Ok(()) };
    if let Some(given) = rates.iter().find(|given| given.per_s < share) {
        let (api, limit) = (given.api.name(), given.per_s);
        return Err(ExitMessage::yours(
            format!("--quota-lost share={share} is more than all may send together: {api} has {limit} requests/s"),
            format!("give a part of it, such as share={}", limit.get().div_ceil(4)),
        ));
    }
    let most = Command::ALL.map(|command| rate_of(rates, command)).into_iter().max();
    match most.filter(|most| *most < share) {
        Some(most) => Err(ExitMessage::yours(
            format!("--quota-lost share={share} is more than all may send together: no API has more than {most} requests/s"),
            "give the part of this process alone",
        )),
        None => Ok(()),
    }
}

/// The requests per second that all may send together.
fn rate_of(given: &[QuotaRateFlag], command: Command) -> NonZeroU32 {
    given.iter().find(|given| given.api == command).map_or(command.spec().calls_per_s, |given| given.per_s)
}

/// What is given of a quota for a forecast, which asks no server.
#[derive(Debug)]
pub(super) struct GivenForForecast<'a> {
    pub(super) flag: Option<&'a String>,
    pub(super) config: Option<&'a String>,
    pub(super) rates: Vec<QuotaRateFlag>,
}

/// What a forecast knows of a shared limit.
#[derive(Debug)]
pub(super) struct ForecastQuota {
    pub(super) words: String,
    limits: PerCommand<NonZeroU32>,
}

impl ForecastQuota {
    /// The same rates, but no more than all processes share.
    pub(super) fn bounds(&self, rates: Rates) -> Rates {
        Rates {
            single: rates.single.min(self.limits[Command::AccountImport]),
            batch: rates.batch.min(self.limits[Command::MultiaccountImport]),
            profile: rates.profile.min(self.limits[Command::PortraitSet]),
        }
    }
}

/// # Errors
/// As [`resolve`]; nothing is said of a password, because none is needed.
pub(super) fn for_forecast(given: GivenForForecast, environment: Environment) -> Result<Option<ForecastQuota>, ExitMessage> {
    let variable = variable(environment, VARIABLE)?;
    let flags = QuotaFlags { quota_rate: given.rates, ..QuotaFlags::default() };
    let Some((text, from)) = UrlSource::first(given.flag, variable.as_ref(), given.config) else {
        return if flags.quota_rate.is_empty() { Ok(None) } else { Err(without_a_quota()) };
    };
    makes_sense(&flags)?;
    let store = parse(text, from)?;
    holds_no_password(&store, from)?;
    let limits = PerCommand::new(|command| rate_of(&flags.quota_rate, command));
    let words = format!("quota: the limit is shared through {store}: that holds while nobody else uses it");
    Ok(Some(ForecastQuota { words, limits }))
}

/// The limits as the configuration file has them, if the command line has none.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 if one is malformed.
pub(super) fn rates(flags: &[QuotaRateFlag], config: &[String]) -> Result<Vec<QuotaRateFlag>, ExitMessage> {
    if !flags.is_empty() {
        return Ok(flags.to_vec());
    }
    config.iter().map(|text| text.parse().map_err(|why: String| wrong_in_file("quota-rate", &why))).collect()
}

/// What is wrong with a key of the configuration file.
pub(super) fn wrong_in_file(key: &str, why: &str) -> ExitMessage {
    ExitMessage::yours(format!("{key} of the configuration file: {why}"), format!("write it as --{key} takes it; --help shows it"))
}

fn without_a_quota() -> ExitMessage {
    ExitMessage::yours("more is said of a quota, and no quota is given", "give --quota redis://HOST:PORT/DB too")
}

fn holds_no_password(store: &StoreAddress, from: UrlSource) -> Result<(), ExitMessage> {
    match (&store.password, from) {
        (Some(_), UrlSource::Flag | UrlSource::ConfigFile) => Err(ExitMessage::yours(
            format!("{} holds a password: others can read it there", name(from)),
            format!("leave it out of the URL, and give --quota-password-file FILE, or put the whole URL into {VARIABLE}"),
        )),
        (Some(_), UrlSource::Variable) | (None, _) => Ok(()),
    }
}

fn parse(text: &str, from: UrlSource) -> Result<StoreAddress, ExitMessage> {
    let wrong = |why: &str| ExitMessage::yours(format!("{} {why}", name(from)), "write it like redis://quota.example.com:6379/0");
    let url = Url::parse(text.trim()).map_err(|_| wrong("is not a URL"))?;
    let transport = match url.scheme() {
        "redis" => Transport::Plain,
        "rediss" => Transport::Tls,
        _ => return Err(wrong("must be a redis:// or rediss:// URL")),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no server"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must be scheme, host, port and database alone"));
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().ok().filter(|number| *number >= 0).ok_or_else(|| wrong("must name the database by its number"))?,
    };
    let decoded = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).map_err(|_| wrong("is not UTF-8"))
    };
    let user = decoded(url.username())?;
    Ok(StoreAddress {
        transport,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(PORT),
        database,
        user: (!user.is_empty()).then_some(user),
        password: url.password().map(decoded).transpose()?.map(SecretString::from),
        ca_pem: None,
    })
}

/// A shared limit is one, so nothing may be sent without one. `flag` sets the rate.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2.
pub(super) fn allows(flag: &str, rate: Option<Rate>) -> Result<(), ExitMessage> {
    match rate {
        Some(Rate::Unlimited) => Err(ExitMessage::yours(
            format!("{flag} 0 (no limit) and a quota contradict each other"),
            format!("leave {flag} out, or leave --quota out"),
        )),
        Some(Rate::PerSecond(_)) | None => Ok(()),
    }
}

impl QuotaChoice {
    /// The requests per second that all processes may send together.
    pub(super) fn limits(&self) -> PerCommand<NonZeroU32> {
        PerCommand::new(|command| rate_of(&self.rates, command))
    }

    /// The quota of this app.
    pub(super) fn settings(&self, sdkappid: u64) -> QuotaSettings {
        QuotaSettings {
            store: self.store.clone(),
            key: self.key.clone().unwrap_or_else(|| format!("chatlift:{{{sdkappid}}}")),
            limits: self.limits(),
            if_lost: self.lost.map_or(IfLost::Wait, |QuotaLostFlag(per_s): QuotaLostFlag| IfLost::Alone(per_s)),
        }
    }
}

/// Looks at the store before anything is sent. A store that does not answer is waited for by the run itself.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 if this process may not take part.
pub(super) fn first_look(settings: &QuotaSettings) -> Result<(), ExitMessage> {
    let runtime = super::run::runtime("the same command resumes")?;
    match runtime.block_on(quota::check(settings, &Command::ALL, FIRST_LOOK)) {
        Ok(others) => {
            let with = match others {
                0 => "no other process draws on it now".to_owned(),
                1 => "1 other process draws on it now".to_owned(),
                others => format!("{others} other processes draw on it now"),
            };
            tracing::info!("the limits are shared through {} ({}); {with}", settings.store, settings.key);
            Ok(())
        }
        Err(QuotaError::Refused(refusal)) => Err(refused(&refusal, "nothing was sent")),
        Err(QuotaError::Lost(why)) => {
            tracing::warn!("{}", quota::lost_words(&settings.store, settings.if_lost, &why));
            Ok(())
        }
    }
}

/// The exit message of a process that may not take part.
pub(super) fn refused(refusal: &QuotaRefusal, so_far: &str) -> ExitMessage {
    let hint = match refusal {
        QuotaRefusal::Password(_) => {
            format!("give the password with --quota-password-file FILE, or in {VARIABLE} (redis://NAME:PASSWORD@HOST:PORT/DB)")
        }
        QuotaRefusal::Untrusted(_) => {
            "--ca-file takes the certificate that signed it; the machine's are trusted too without that flag".to_owned()
        }
        QuotaRefusal::NoDatabase(_) => {
            "the number behind the last slash of the URL is the database; servers usually have 0 to 15".to_owned()
        }
        QuotaRefusal::WrongType(_) => "another program uses this key: give another --quota-key PREFIX, or another database".to_owned(),
        QuotaRefusal::Forbidden(_) => "docs/QUOTA.md lists what the user of the store must be allowed to do".to_owned(),
        QuotaRefusal::Version { .. } => "use the same version of chatlift everywhere, or another --quota-key".to_owned(),
        QuotaRefusal::Rate { api, stored, .. } => {
            format!("all processes must name the same limit: --quota-rate {}={stored}, or another --quota-key", api.name())
        }
    };
    ExitMessage::yours(format!("{refusal}; {so_far}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_store() {
        let check = |text: &str, expected: &str| assert_eq!(parse(text, UrlSource::Flag).unwrap().to_string(), expected);
        check("redis://127.0.0.1", "redis://127.0.0.1:6379/0");
        check("redis://quota.example.com:7000/3", "redis://quota.example.com:7000/3");
        check("rediss://name@quota.example.com/", "rediss://quota.example.com:6379/0");
        for wrong in
            ["quota.example.com", "http://h/0", "redis:///0", "redis://h/a", "redis://h/-1", "redis://h/0?x=1", "rediss://h/0#insecure"]
        {
            assert!(parse(wrong, UrlSource::Flag).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_stands_in_the_environment_or_in_a_file() {
        let flags = QuotaFlags::default();
        let url = "redis://:very-secret@h/0".to_owned();
        let with = |from| resolve(&Given { url: Some((&url, from)), flags: &flags, password_file: None, ca_pem: None });
        assert!(with(UrlSource::Variable).unwrap().unwrap().store.password.is_some());
        for from in [UrlSource::Flag, UrlSource::ConfigFile] {
            let word = with(from).unwrap_err().to_string();
            assert!(word.contains("holds a password") && !word.contains("very-secret"), "{word}");
        }
    }

    #[test]
    fn the_key_is_the_apps_and_limits_are_the_documented_ones() {
        let flags = QuotaFlags { quota_rate: vec!["portrait_get=150".parse().unwrap()], ..QuotaFlags::default() };
        let url = "redis://h/0".to_owned();
        let given = Given { url: Some((&url, UrlSource::Flag)), flags: &flags, password_file: None, ca_pem: None };
        let settings = resolve(&given).unwrap().unwrap().settings(1_400_000_000);
        assert_eq!(settings.key, "chatlift:{1400000000}");
        let limits =
            [Command::AccountImport, Command::MultiaccountImport, Command::PortraitGet].map(|command| settings.limits[command].get());
        assert_eq!(limits, [200, 100, 150]);
    }
}
