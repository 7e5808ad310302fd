//! TLS with certificates of one's own: which servers are trusted where a CA file is given.
//!
//! Everything that the machine trusts stays trusted. The file adds CAs, and servers whose certificate it holds byte for byte, as most test
//! services have one that is nobody else's.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

use crate::domain::verdict::CertificateFlaw;

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

/// First second that has no date of four digits in its year: 10000-01-01.
const DATES_END: u64 = 253_402_300_800;

/// Why a certificate is not trusted, in words.
pub(super) fn words(why: &CertificateError) -> String {
    match why {
        _ if is_ca_as_server(why) => {
            "the server shows a certificate that signs itself or others (CA:TRUE), and no --ca-file has it".to_owned()
        }
        CertificateError::UnknownIssuer => "nobody that this machine or a --ca-file trusts has signed it".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired on {}", day(not_after.as_secs())),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is valid from {} on only; is this machine's clock right?", day(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it has no name of a server (no subjectAltName): make it with one (openssl req -addext subjectAltName=DNS:NAME or =IP:ADDRESS)"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            format!("it has the name {}, not {}", names.join(", "), expected.to_str())
        }
        other => other.to_string(),
    }
}

/// What kind of flaw that is.
pub(super) const fn flaw(why: &CertificateError) -> CertificateFlaw {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => CertificateFlaw::Name,
        _ => CertificateFlaw::Other,
    }
}

/// The day of a UNIX time, in UTC.
fn day(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(DATES_END - 1));
    humantime::format_rfc3339_seconds(time).to_string().chars().take("2000-01-01".len()).collect()
}

/// A name of a certificate without what the library puts around it: `DnsName("example.org")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_refused_in_words_with_dates_and_plain_names() {
        let check = |why: CertificateError, expected: &str| assert_eq!(words(&why), expected);
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        check(CertificateError::ExpiredContext { time: at(1), not_after: at(0) }, "it expired on 1970-01-01");
        let far = CertificateError::NotValidYetContext { time: at(1), not_before: at(u64::MAX) };
        check(far, "it is valid from 9999-12-31 on only; is this machine's clock right?");
        let named = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("chat.example").unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        check(named(&["DnsName(\"example.org\")", "IpAddress(127.0.0.1)"]), "it has the name example.org, 127.0.0.1, not chat.example");
        assert!(words(&named(&[])).contains("no subjectAltName"));
    }
}
