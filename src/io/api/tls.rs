//! TLS with certificates of one's own: which servers are trusted where a CA file is given.
//!
//! Everything that the machine trusts stays trusted. The file adds CAs, and servers whose certificate it holds byte for byte, as most test
//! services have one that is nobody else's.

use std::error::Error as StdError;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

/// Why a CA file is of no use.
#[derive(Debug, Error)]
pub enum CaFileError {
    #[error("the CA file contains no certificate in PEM form")]
    Empty,
    #[error("the CA file contains a certificate that cannot be read")]
    Unreadable(#[source] Box<dyn StdError + Send + Sync>),
}

/// Reads the certificates of a CA file.
///
/// # Errors
/// [`CaFileError`]
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaFileError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| CaFileError::Unreadable(Box::new(error)))?;
    for certificate in &certificates {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| CaFileError::Unreadable(Box::new(error)))?;
    }
    if certificates.is_empty() { Err(CaFileError::Empty) } else { Ok(certificates) }
}

/// TLS that trusts what the machine trusts, and `own`.
///
/// # Errors
/// [`Error`] if there is nothing to trust.
pub(super) fn config(own: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let provider = provider();
    let machine = Verifier::new_with_extra_roots(own.iter().cloned(), Arc::clone(&provider)).or_else(|error| {
        tracing::warn!(%error, "this machine has no certificate store; using the roots that Mozilla ships");
        Verifier::new_with_extra_roots(own.iter().cloned().chain(mozilla_roots().cloned()), Arc::clone(&provider))
    })?;
    let verifier = OwnCertificates { machine, own: own.to_vec() };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn mozilla_roots() -> impl Iterator<Item = &'static CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter()
}

/// Trusts what the machine's verifier trusts, and a server that shows one of these certificates itself.
#[derive(Debug)]
struct OwnCertificates {
    machine: Verifier,
    own: Vec<CertificateDer<'static>>,
}

impl OwnCertificates {
    /// Whether the server shows a certificate of the file, and nothing but its issuer is wrong with it. The verifier judges the validity
    /// before the issuer (tests hold it to that), and the handshake proves that the server has the key.
    fn is_own(&self, shown: &CertificateDer<'_>, error: &Error) -> bool {
        let Error::InvalidCertificate(why) = error else { return false };
        let is_of_issuer = matches!(why, CertificateError::UnknownIssuer | CertificateError::BadSignature) || is_ca_as_server(why);
        is_of_issuer && self.own.iter().any(|own| own == shown)
    }
}

impl ServerCertVerifier for OwnCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.machine.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if self.is_own(end_entity, &error) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.machine.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.machine.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.machine.supported_verify_schemes()
    }
}

/// Whether a certificate is refused only because it may sign others, as that of a self-signed server often may. The verifier has no name of
/// its own for that.
fn is_ca_as_server(why: &CertificateError) -> bool {
    matches!(why, CertificateError::Other(_)) && format!("{why:?}").contains("CaUsedAsEndEntity")
}

/// Why a certificate is not trusted, in words.
pub(super) fn words(why: &CertificateError) -> String {
    if is_ca_as_server(why) {
        return "the server shows a certificate that signs itself or others (CA:TRUE) and is not in the --ca-file".to_owned();
    }
    why.to_string()
}
