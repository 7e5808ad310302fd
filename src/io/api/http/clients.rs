//! How connections are made: reqwest's client, the certificates that it trusts, and the proxy.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use super::{HttpSettings, HttpSetupError};
use crate::io::api::kept::ConnectionChoice;
use crate::io::api::proxy::{ProxyLayer, ProxySettings};

/// Idle connections are closed after this time. Chosen: less than the 60 to 75 s of common servers, so that no request meets a connection
/// that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a connection. Chosen; the timeout of the attempt applies as well.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// The clients with and without kept connections. The second one is created when it is first needed, because reading the machine's
/// certificates takes time.
#[derive(Debug)]
pub(super) struct Clients {
    kept: Client,
    fresh: OnceCell<Client>,
    settings: HttpSettings,
    own_ca: Vec<Certificate>,
    proxy: Option<ProxyLayer>,
}

impl Clients {
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, HttpSetupError> {
        let own_ca = match &settings.ca_pem {
            Some(pem) => certificates(pem)?,
            None => Vec::new(),
        };
        let proxy = settings.proxy.as_ref().map(|proxy| proxy_layer(proxy, settings)).transpose()?;
        let kept = client(settings, &own_ca, proxy.as_ref(), settings.connections)?;
        Ok(Self { kept, fresh: OnceCell::new(), settings: settings.clone(), own_ca, proxy })
    }

    pub(super) fn of(&self, choice: ConnectionChoice) -> &Client {
        match choice {
            ConnectionChoice::Kept | ConnectionChoice::Trial => &self.kept,
            // Creating it worked for the other client, so it fails only if the certificates have disappeared. Then the other client serves.
            ConnectionChoice::Fresh => {
                let fresh = || client(&self.settings, &self.own_ca, self.proxy.as_ref(), 0);
                self.fresh.get_or_init(|| fresh().unwrap_or_else(|_| self.kept.clone()))
            }
        }
    }
}

/// A client that keeps up to `kept` connections.
fn client(settings: &HttpSettings, own_ca: &[Certificate], proxy: Option<&ProxyLayer>, kept: usize) -> Result<Client, HttpSetupError> {
    let plain = || {
        let plain = plain(settings).pool_max_idle_per_host(kept);
        match proxy {
            Some(layer) => plain.unix_socket(layer.socket()).connector_layer(layer.clone()),
            None => plain,
        }
    };
    let client = if settings.endpoint.scheme() == "http" {
        plain().tls_certs_only(std::iter::empty()).build()
    } else {
        plain().tls_certs_merge(own_ca.to_vec()).build().or_else(|error| {
            tracing::warn!(%error, "this machine has no certificate store; using the roots that Mozilla ships");
            plain().tls_certs_only(mozilla_roots().chain(own_ca.to_vec())).build()
        })
    };
    client.map_err(HttpSetupError::Client)
}

fn proxy_layer(proxy: &ProxySettings, settings: &HttpSettings) -> Result<ProxyLayer, HttpSetupError> {
    let tls = if proxy.address.scheme() == "https" { Some(proxy_tls(settings.ca_pem.as_deref().unwrap_or_default())?) } else { None };
    Ok(ProxyLayer::new(proxy, &settings.endpoint, tls)?)
}

/// Trusts the same certificates for the proxy as for the service.
fn proxy_tls(ca_pem: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = CertificateDer::pem_slice_iter(ca_pem).filter_map(Result::ok).collect::<Vec<_>>();
    let verifier = Verifier::new_with_extra_roots(own.clone(), Arc::clone(&provider))
        .or_else(|_| Verifier::new_with_extra_roots(own.into_iter().chain(mozilla_der().cloned()), Arc::clone(&provider)))?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, HttpSetupError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| HttpSetupError::CaFile(error.without_url()))?;
    if certificates.is_empty() { Err(HttpSetupError::NoCertificate) } else { Ok(certificates) }
}

fn mozilla_roots() -> impl Iterator<Item = Certificate> {
    mozilla_der().filter_map(|der| Certificate::from_der(der).ok())
}

fn mozilla_der() -> impl Iterator<Item = &'static CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter()
}

fn plain(settings: &HttpSettings) -> ClientBuilder {
    // If a provider is installed already, this is refused, which does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("chatlift/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .timeout(settings.timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
        .pool_idle_timeout(IDLE_TIMEOUT)
}
