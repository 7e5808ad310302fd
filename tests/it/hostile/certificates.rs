//! TLS with certificates that must not be trusted, and with one that may be.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::CliFixture;
use crate::support::server::{Server, imported};

/// A certificate authority of this test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn certify(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        config(certificate.der().clone(), &key)
    }
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

fn self_signed() -> Arc<ServerConfig> {
    signs_itself(&named("127.0.0.1")).0
}

/// A server's certificate that is signed by nobody else, and the same as a file.
fn signs_itself(params: &CertificateParams) -> (Arc<ServerConfig>, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (config(certificate.der().clone(), &key), certificate.pem())
}

/// As tools make them by default: it may sign others, too.
fn as_ca(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    params
}

/// A server's certificate, and the certificate of the authority that makes it valid.
pub(crate) fn trusted() -> (Arc<ServerConfig>, String) {
    let authority = Authority::new();
    (authority.certify(&named("127.0.0.1")), authority.pem)
}

/// What helps where nobody vouches for a certificate, and where it is for another name, which no trust changes.
const CA_FILE: &str = "--ca-file";
const OTHER_NAME: &str = "names the server by a name that its certificate has";

/// The certificate must be refused before any part of a request leaves.
#[track_caller]
fn check(config: Arc<ServerConfig>, ca: Option<&str>, (words, hint): (&str, &str)) {
    let bench = CliFixture::with_users(3);
    let server = Server::with_tls(config, |_| imported());
    let mut call = bench.import(&server).at_any_rate();
    if let Some(pem) = ca {
        bench.write("ca.pem", pem);
        call = call.args(&["--ca-file", "ca.pem"]);
    }
    let run = call.run().exits(5).because("not trusted").because(words).hints(hint);
    assert!(run.rows.is_empty());
    assert_eq!(server.calls(), 0);
}

#[test]
fn an_untrusted_certificate_ends_the_run_before_a_request_leaves() {
    let authority = Authority::new();
    let mut early = named("127.0.0.1");
    (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    check(self_signed(), None, ("", CA_FILE));
    check(authority.certify(&named("127.0.0.1")), None, ("", CA_FILE));
    check(authority.certify(&named("elsewhere.example")), Some(&authority.pem), ("name", OTHER_NAME));
    check(authority.certify(&expired(named("127.0.0.1"))), Some(&authority.pem), ("expired", CA_FILE));
    check(
        authority.certify(&CertificateParams::new(Vec::<String>::new()).unwrap()),
        Some(&authority.pem),
        ("no subjectAltName", OTHER_NAME),
    );
    check(authority.certify(&early), Some(&authority.pem), ("valid", CA_FILE));
    check(authority.certify(&named("127.0.0.1")), Some(&Authority::new().pem), ("", CA_FILE));
}

#[test]
fn a_certificate_of_ones_own_authority_is_trusted_with_its_ca_file() {
    let bench = CliFixture::with_users(5);
    let authority = Authority::new();
    bench.write("ca.pem", &authority.pem);
    let server = Server::with_tls(authority.certify(&named("127.0.0.1")), |_| imported());
    bench.import(&server).at_any_rate().args(&["--ca-file", "ca.pem"]).run().exits(0).imports_all(5);
    assert_eq!((server.users(), server.wrong()), (5, Vec::new()));

    let again = CliFixture::with_users(5);
    again.import(&server).at_any_rate().env("CHATLIFT_CA_FILE", bench.path("ca.pem").to_str().unwrap()).run().exits(0).imports_all(5);
}

#[test]
fn a_server_whose_own_certificate_is_in_the_ca_file_is_trusted() {
    let authority = Authority::new();
    let leaf = || {
        let key = KeyPair::generate().unwrap();
        let certificate = named("127.0.0.1").signed_by(&key, &authority.issuer).unwrap();
        (config(certificate.der().clone(), &key), certificate.pem())
    };
    for (config, pem) in [signs_itself(&named("127.0.0.1")), signs_itself(&as_ca(named("127.0.0.1"))), leaf()] {
        let bench = CliFixture::with_users(3);
        let server = Server::with_tls(config, |_| imported());
        bench.write("ca.pem", format!("{}{pem}", Authority::new().pem));
        bench.import(&server).at_any_rate().args(&["--ca-file", "ca.pem"]).run().exits(0).imports_all(3);
        assert_eq!(server.wrong(), Vec::<String>::new());
    }
}

/// The file says which certificate is trusted; its name and its time count all the same.
#[test]
fn a_certificate_in_the_ca_file_is_trusted_for_its_name_and_time_alone() {
    for form in [std::convert::identity, as_ca] {
        let (config, pem) = signs_itself(&form(named("elsewhere.example")));
        check(config, Some(&pem), ("name", OTHER_NAME));
        let (config, pem) = signs_itself(&form(expired(named("127.0.0.1"))));
        check(config, Some(&pem), ("expired", CA_FILE));
        // Another one for the same name, with another key.
        let (config, _) = signs_itself(&form(named("127.0.0.1")));
        check(config, Some(&signs_itself(&form(named("127.0.0.1"))).1), ("", CA_FILE));
    }
    let (config, _) = signs_itself(&as_ca(named("127.0.0.1")));
    check(config, Some(&signs_itself(&as_ca(named("127.0.0.1"))).1), ("no --ca-file has it", CA_FILE));
}

#[test]
fn a_ca_file_without_a_certificate_is_a_user_error() {
    let bench = CliFixture::with_users(1);
    bench.write("ca.pem", "not a certificate\n");
    let server = Server::with_tls(self_signed(), |_| imported());
    bench.import(&server).args(&["--ca-file", "ca.pem"]).run().exits(2).hints("--ca-file");
    bench.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    bench.import(&server).args(&["--ca-file", "garbage.pem"]).run().exits(2).because("cannot be read").hints("--ca-file");
    bench.import(&server).args(&["--ca-file", "missing.pem"]).run().exits(2).because("missing.pem");
    assert_eq!(server.connections(), 0);
}
