//! TLS as libpq's sslmode means it, with rustls.
//!
//! Two differences, both on the safe side: the host's name is looked for in the certificate's
//! subject alternative names only, never in its common name, and certificates must be X.509 version
//! 3.

use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::options::{RootCert, SslMode, TlsOptions};

/// Where the distributions keep the roots the system trusts, in one file.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const LOOK: &str = "Look at PGSSLMODE, at PGSSLROOTCERT, at the names and dates of the server's \
                    certificate (it needs subject alternative names), and at the server's log.";

/// Shakes hands on a socket on which the server has agreed to TLS. `host`: as the user named it.
pub fn handshake(
    mut socket: TcpStream,
    host: &str,
    options: &TlsOptions,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = config(options)?;
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(error) if options.mode == SslMode::VerifyFull => {
            return Err(failed(&format!("{host:?} cannot stand in a certificate"))
                .source(error)
                .hint(LOOK));
        }
        Err(_) => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
    };
    let mut connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|error| failed("cannot begin").source(error).hint(LOOK))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| {
            failed(&format!("with {host} did not succeed")).source(error).hint(LOOK)
        })?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The channel binding `tls-server-end-point` (RFC 5929): a digest of the server's certificate.
/// `None` where its signature algorithm names no digest, as Ed25519.
pub fn server_end_point(stream: &StreamOwned<ClientConnection, TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.conn.peer_certificates()?.first()?;
    let algorithm = digest_of_signature(certificate)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn config(options: &TlsOptions) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(options, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("cannot begin").source(error).hint(LOOK))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            builder
                .with_client_auth_cert(chain, private_key(key)?)
                .map_err(|error| unusable(cert, "client certificate").source(error))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.enable_sni = options.show_name;
    // PostgreSQL 17 and later know this name; earlier servers take no notice.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

/// Checks as much as the mode asks for; that the server holds the key of its certificate is always
/// checked.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Verifier {
    /// As in libpq, a root certificate that is there is used, even where the mode does not demand
    /// it.
    fn new(options: &TlsOptions, provider: Arc<CryptoProvider>) -> Result<Self> {
        let check_name = options.mode == SslMode::VerifyFull;
        let trusted = match &options.root_cert {
            RootCert::System => system_roots()?,
            RootCert::File(path) if path.exists() => certificates(path)?,
            RootCert::Default(Some(path)) => certificates(path)?,
            RootCert::File(_) | RootCert::Default(None) if options.mode < SslMode::VerifyCa => {
                return Ok(Verifier { provider, chain: None, trusted: Vec::new(), check_name });
            }
            RootCert::File(path) => return Err(unusable(path, "root certificate")),
            RootCert::Default(None) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "this sslmode needs a root certificate, and there is none",
                )
                .hint(
                    "Set PGSSLROOTCERT to a file or to \"system\", or put it into \
                     ~/.postgresql/root.crt.",
                ));
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| failed("has no usable root certificate").source(error).hint(LOOK))?;
        Ok(Verifier { provider, chain: Some(chain), trusted, check_name })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext,
        };
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let outcome =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match outcome {
            // The name is looked at last: chain and dates are good.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            Err(rustls::Error::InvalidCertificate(
                Expired
                | ExpiredContext { .. }
                | NotValidYet
                | NotValidYetContext { .. }
                | NotValidForName
                | NotValidForNameContext { .. },
            )) => outcome,
            // A self-signed certificate that is itself the trusted one, as many servers have;
            // OpenSSL takes it.
            Err(_) if self.trusted.iter().any(|trusted| trusted == end_entity) => {
                if self.check_name {
                    let parsed = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = |path| CertificateDer::pem_file_iter(path)?.collect();
    let found: std::result::Result<Vec<_>, rustls::pki_types::pem::Error> = read(path);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(path, "certificate")),
        Err(error) => Err(unusable(path, "certificate").source(error)),
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let known = SYSTEM_BUNDLES.iter().map(|path| (*path).to_owned());
    match named.into_iter().chain(known).find(|path| Path::new(path).exists()) {
        Some(path) => certificates(Path::new(&path)),
        None => Err(Error::new(ErrorKind::Host, "this system has no file of trusted roots")
            .hint("Install ca-certificates, or set SSL_CERT_FILE.")),
    }
}

/// As libpq: others must not be able to read the key; a key of root's may be read by the group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let about =
        std::fs::metadata(path).map_err(|error| unusable(path, "private key").source(error))?;
    let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
    if about.mode() & forbidden != 0 {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the private key {} may be read by others", path.display()),
        )
        .hint("Give it the permissions u=rw (0600), or u=rw,g=r (0640) if root owns it."));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, "private key").source(error))
}

fn unusable(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("{} is not a {what} to be used", path.display()))
        .hint("It must be there, readable, and unencrypted PEM.")
}

fn failed(how: &str) -> Error {
    Error::new(ErrorKind::Server, format!("TLS {how}"))
}

/// The digest named by a certificate's outer signature algorithm; MD5 and SHA-1 become SHA-256 (RFC
/// 5929, 4.1).
fn digest_of_signature(certificate: &[u8]) -> Option<&'static digest::Algorithm> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER,
    // ... }, ... }
    let (_, whole, _) = der_item(certificate)?;
    let (_, _, rest) = der_item(whole)?;
    let (_, algorithm, _) = der_item(rest)?;
    let (_, oid, _) = der_item(algorithm)?;
    let by_rsa = |last: u8| match last {
        4 | 5 | 11 => Some(&digest::SHA256),
        12 => Some(&digest::SHA384),
        13 => Some(&digest::SHA512),
        _ => None,
    };
    let by_ecdsa = |last: u8| match last {
        2 => Some(&digest::SHA256),
        3 => Some(&digest::SHA384),
        4 => Some(&digest::SHA512),
        _ => None,
    };
    let (last, family) = oid.split_last()?;
    match family {
        RSA => by_rsa(*last),
        ECDSA_SHA2 => by_ecdsa(*last),
        _ if oid == ECDSA_SHA1 => Some(&digest::SHA256),
        _ => None,
    }
}

/// One DER item: tag, content, and what follows it.
fn der_item(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use ring::digest;

    use super::{der_item, digest_of_signature};

    #[test]
    fn the_digest_is_that_of_the_certificates_signature() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(vec!["db1".into()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(digest_of_signature(certificate.der()), expected);
        }
    }

    #[test]
    fn truncated_certificates_give_nothing() {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["db1".into()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der();
        for length in 0..der.len() {
            assert!(digest_of_signature(&der[..length]).is_none());
        }
        assert!(der_item(&[0x30, 0x85, 1, 1, 1, 1, 1]).is_none());
    }
}
