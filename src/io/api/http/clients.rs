//! How connections are made: reqwest's client, the certificates that it trusts, and the proxy.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::ClientConfig;

use super::{HttpSettings, HttpSetupError};
use crate::io::api::keep_alive::ConnectionChoice;
use crate::io::api::proxy::{ProxyLayer, ProxySettings};
use crate::io::api::tls;

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
    /// `None` where the machine's certificates are enough.
    tls: Option<ClientConfig>,
    proxy: Option<ProxyLayer>,
}

impl Clients {
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, HttpSetupError> {
        let own = settings.ca_pem.as_deref().map(tls::certificates).transpose()?;
        let tls = own.map(|own| tls::config(&own)).transpose()?;
        let proxy = settings.proxy.as_ref().map(|proxy| proxy_layer(proxy, settings, tls.as_ref())).transpose()?;
        let kept = client(settings, tls.as_ref(), proxy.as_ref(), settings.connections)?;
        Ok(Self { kept, fresh: OnceCell::new(), settings: settings.clone(), tls, proxy })
    }

    pub(super) fn of(&self, choice: ConnectionChoice) -> &Client {
        match choice {
            ConnectionChoice::Kept | ConnectionChoice::Trial => &self.kept,
            // Creating it worked for the other client, so it fails only if the certificates have disappeared. Then the other client serves.
            ConnectionChoice::Fresh => {
                let fresh = || client(&self.settings, self.tls.as_ref(), self.proxy.as_ref(), 0);
                self.fresh.get_or_init(|| fresh().unwrap_or_else(|_| self.kept.clone()))
            }
        }
    }
}

/// A client that keeps up to `kept` connections.
fn client(settings: &HttpSettings, tls: Option<&ClientConfig>, proxy: Option<&ProxyLayer>, kept: usize) -> Result<Client, HttpSetupError> {
    let plain = || {
        // Who wants to know something of the certificate uses a fresh connection; it would be copied with every answer.
        let plain = plain(settings).pool_max_idle_per_host(kept).tls_info(kept == 0);
        match proxy {
            Some(layer) => plain.unix_socket(layer.socket()).connector_layer(layer.clone()),
            None => plain,
        }
    };
    let client = if settings.endpoint.scheme() == "http" {
        plain().tls_certs_only(std::iter::empty()).build()
    } else if let Some(tls) = tls {
        plain().tls_backend_preconfigured(tls.clone()).build()
    } else {
        plain().build().or_else(|error| {
            tracing::warn!(%error, "this machine has no certificate store; using the roots that Mozilla ships");
            plain().tls_certs_only(tls::mozilla_roots().filter_map(|der| Certificate::from_der(der).ok())).build()
        })
    };
    client.map_err(HttpSetupError::Client)
}

/// Trusts the same certificates for the proxy as for the service.
fn proxy_layer(proxy: &ProxySettings, settings: &HttpSettings, tls: Option<&ClientConfig>) -> Result<ProxyLayer, HttpSetupError> {
    let with_proxy = || tls.map_or_else(|| tls::config(&[]), |tls| Ok(tls.clone())).map(Arc::new);
    let tls = if proxy.address.scheme() == "https" { Some(with_proxy()?) } else { None };
    Ok(ProxyLayer::new(proxy, &settings.endpoint, tls)?)
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
