//! Builds what a run needs to talk to the service: the HTTP client, the signer, and the target that the checkpoint records.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::LocalBoxStream;
use reqwest::Url;
use tokio::time::Instant;

use super::flags::ConnectionFlags;
use super::quota;
use super::settings::{Connection, Environment, Identity, ServiceAddress, named_app};
use crate::domain::account::UserId;
use crate::domain::target::{SANDBOX, Target};
use crate::flow::dispatch::{Clocks, DispatchDependencies};
use crate::io::api::http::{HttpApi, HttpSettings, HttpSetupError};
use crate::io::api::usersig::{Credential, Signer, read_claims};
use crate::io::gate::{GateSettings, Rate};
use crate::io::quota::QuotaSettings;
use crate::sandbox::{CustomFields, Sandbox, SandboxSettings};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::causes;

/// The client for the service and everything that requests need.
pub(super) struct ServiceClient {
    pub(super) api: Rc<HttpApi>,
    identity: Identity,
    /// Where requests go.
    pub(super) endpoint: Url,
    pub(super) target: Target,
    /// The limits that other processes share.
    pub(super) quota: Option<Arc<QuotaSettings>>,
    /// The end of a signature that cannot be renewed.
    pub(super) expires_at: Option<SystemTime>,
    /// The sandbox, which lives as long as the run.
    pub(super) sandbox: Option<Sandbox>,
}

/// The name of the target; no request is sent.
pub(super) fn target(service: &ServiceAddress) -> Target {
    match service {
        ServiceAddress::Sandbox => Target { endpoint: SANDBOX.to_owned(), sdkappid: 0, api: "account_import".to_owned() },
        ServiceAddress::Remote { endpoint, identity } => target_at(endpoint, identity.sdkappid),
    }
}

fn target_at(endpoint: &Url, sdkappid: u64) -> Target {
    let (host, port) = (endpoint.host_str().unwrap_or_default(), endpoint.port_or_known_default().unwrap_or_default());
    Target { endpoint: format!("{}://{host}:{port}", endpoint.scheme()), sdkappid, api: "account_import".to_owned() }
}

/// Where the flags lead, if that is known; no key is read for it.
pub(super) fn named_target(flags: &ConnectionFlags, environment: Environment) -> Option<Target> {
    if flags.sandbox {
        return Some(target(&ServiceAddress::Sandbox));
    }
    named_app(flags, environment).map(|(endpoint, sdkappid)| target_at(&endpoint, sdkappid))
}

/// The limits of a sandbox that is served for a run alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct SandboxLimits {
    /// Of `account_import`; without one, nothing has a limit.
    pub(super) imports: Rate,
    /// Of `portrait_set`.
    pub(super) profiles: Rate,
}

/// Builds the client and the first signature, and looks at the store of the quota. If the target is the sandbox, starts it with these
/// limits. No request is sent.
pub(super) fn build_client(connection: &Connection, limits: SandboxLimits) -> Result<ServiceClient, ExitMessage> {
    let target = target(&connection.service);
    let (sandbox, endpoint, identity) = match &connection.service {
        ServiceAddress::Remote { endpoint, identity } => (None, endpoint.clone(), identity.clone()),
        ServiceAddress::Sandbox => sandbox(limits)?,
    };
    let expires_at = match &identity.credential {
        Credential::Key(_) => None,
        Credential::Ready(usersig) => read_claims(usersig).ok().map(|claims| claims.expires_at),
    };
    let settings = HttpSettings {
        endpoint: endpoint.clone(),
        sdkappid: identity.sdkappid,
        identifier: identity.identifier.clone(),
        timeout: connection.timeout,
        connections: connection.in_flight,
        ca_pem: connection.ca_pem.clone(),
        proxy: connection.proxy().cloned(),
    };
    let api = HttpApi::new(&settings).map_err(|error| no_client(&error))?;
    let quota = connection.quota.as_ref().map(|quota| quota.settings(identity.sdkappid));
    quota.as_ref().map(quota::first_look).transpose()?;
    let quota = quota.map(Arc::new);
    Ok(ServiceClient { api: Rc::new(api), identity, endpoint, target, quota, expires_at, sandbox })
}

impl ServiceClient {
    /// The administrator that signs requests: an account that should exist.
    pub(super) fn admin(&self) -> UserId {
        UserId::parse(self.identity.identifier.as_bytes()).expect("an identifier was checked when it was given")
    }

    /// The same gates, which take part in the quota if there is one. Those to a sandbox of this process open at once: no process has called
    /// it before.
    pub(super) fn sharing(&self, gates: GateSettings) -> GateSettings {
        let opens_at = gates.opens_at.filter(|_| self.sandbox.is_none());
        GateSettings { quota: self.quota.clone(), opens_at, ..gates }
    }

    /// The dependencies of a run that starts now.
    pub(super) fn dependencies(&self, signals: LocalBoxStream<'static, ()>) -> DispatchDependencies<Rc<HttpApi>> {
        let clocks = Clocks { wall: Box::new(SystemTime::now), jitter: Box::new(fastrand::f64) };
        DispatchDependencies { api: Rc::clone(&self.api), signer: self.signer(), clocks, signals }
    }

    /// A signer for a run that starts now.
    pub(super) fn signer(&self) -> Signer {
        let Identity { sdkappid, identifier, credential } = &self.identity;
        Signer::new(credential.clone(), *sdkappid, identifier, Instant::now(), SystemTime::now())
    }
}

fn sandbox(limits: SandboxLimits) -> Result<(Option<Sandbox>, Url, Identity), ExitMessage> {
    let cannot = |error: std::io::Error| {
        ExitMessage::new(Exit::Fatal, format!("cannot start the sandbox: {error}"), "it needs a free port on 127.0.0.1")
    };
    let mut settings = SandboxSettings::ephemeral().map_err(cannot)?;
    settings.limit_per_s = match limits.imports {
        Rate::PerSecond(limit) => Some(limit),
        Rate::Unlimited => None,
    };
    settings.portrait_set_per_s = match limits.profiles {
        Rate::PerSecond(limit) => Some(limit),
        Rate::Unlimited => None,
    };
    // There is no console in which a rehearsal could create them.
    settings.custom_fields = CustomFields::Any;
    let credential = Credential::Key(settings.key.clone());
    let identity = Identity { sdkappid: settings.sdkappid, identifier: settings.identifier.clone(), credential };
    let sandbox = Sandbox::start(settings).map_err(cannot)?;
    let endpoint = Url::parse(&sandbox.endpoint()).expect("the sandbox's address is a valid URL");
    Ok((Some(sandbox), endpoint, identity))
}

fn no_client(error: &HttpSetupError) -> ExitMessage {
    match error {
        HttpSetupError::CaFile(_) => {
            ExitMessage::yours(causes(error), "--ca-file takes certificates in PEM form (-----BEGIN CERTIFICATE-----)")
        }
        HttpSetupError::Client(_) | HttpSetupError::Random(_) | HttpSetupError::Tls(_) => {
            ExitMessage::new(Exit::Fatal, causes(error), "this is a fault of the machine; the same command resumes")
        }
    }
}
