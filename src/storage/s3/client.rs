//! From options to a client of the SDK: region, credentials, TLS; nothing before its time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::s3::Options;

/// Where distributions keep their one bundle file: Debian and Arch; Red Hat; SUSE; Alpine and BSD.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Environment and profile files are read here; credentials wait for the first request.
pub async fn connect(options: &Options) -> Result<Client> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(Schemes::new(options.ca_file.clone()))
        // Our own wrapper retries: it knows the deadline. Our own time-out covers whole answers,
        // bodies too.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(region) = region(options) {
        loader = loader.region(Region::new(region));
    }
    if let Some(keys) = &options.credentials {
        let (id, secret) = (keys.access_key_id.clone(), keys.secret_access_key.clone());
        let keys = aws_sdk_s3::config::Credentials::new(id, secret, None, None, "walden");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(keys));
    }
    let shared = loader.load().await;
    let has_endpoint =
        shared.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    if shared.region().is_none() {
        if !has_endpoint {
            return Err(Error::new(ErrorKind::Usage, "no region is known for S3")
                .hint("Set s3.region, AWS_REGION, or a region in the profile."));
        }
        config = config.region(Region::new("us-east-1"));
    }
    config = config.force_path_style(options.path_style.unwrap_or(has_endpoint));
    Ok(Client::from_conf(config.build()))
}

/// Asked for before the SDK's chain: that ends at the address of an instance's metadata, which
/// hangs where there is no instance, and stores of one's own seldom care for regions.
fn region(options: &Options) -> Option<String> {
    let named = options.region.clone();
    let from_environment = || {
        ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok())
    };
    let of_own_store = || {
        let has_profile = std::env::var_os("AWS_PROFILE").is_some();
        (options.endpoint.is_some() && !has_profile).then(|| "us-east-1".to_owned())
    };
    named.or_else(from_environment).or_else(of_own_store)
}

/// Plain HTTP for http://, TLS for https://; the root certificates are read when the first https://
/// is asked for.
#[derive(Debug, Clone)]
struct Schemes {
    plain: SharedHttpClient,
    tls: Arc<Tls>,
}

#[derive(Debug)]
struct Tls {
    ca_file: Option<PathBuf>,
    client: OnceLock<std::result::Result<SharedHttpClient, String>>,
}

impl Schemes {
    fn new(ca_file: Option<PathBuf>) -> Self {
        let tls = Arc::new(Tls { ca_file, client: OnceLock::new() });
        Schemes { plain: Builder::new().pool_idle_timeout(POOL_IDLE).build_http(), tls }
    }
}

/// Shorter than the 20 seconds after which S3 hangs up: a request down a dead connection costs a
/// retry.
const POOL_IDLE: Duration = Duration::from_secs(15);

impl HttpClient for Schemes {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let (schemes, settings) = (self.clone(), settings.clone());
        SharedHttpConnector::new(ByScheme { schemes, settings, components: components.clone() })
    }
}

#[derive(Debug)]
struct ByScheme {
    schemes: Schemes,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = if request.uri().starts_with("https:") {
            match self.schemes.tls.client.get_or_init(|| self.schemes.tls.make()) {
                Ok(client) => client,
                Err(message) => {
                    let error = ConnectorError::user(message.clone().into());
                    return HttpConnectorFuture::ready(Err(error));
                }
            }
        } else {
            &self.schemes.plain
        };
        client.http_connector(&self.settings, &self.components).call(request)
    }
}

impl Tls {
    fn make(&self) -> std::result::Result<SharedHttpClient, String> {
        let file = bundle(self.ca_file.as_deref())?;
        let trusted = TrustStore::empty().with_pem_certificate(usable_certificates(&file)?);
        let context = TlsContext::builder().with_trust_store(trusted).build();
        let context = context.map_err(|error| error.to_string())?;
        // HTTPS_PROXY counts, HTTP_PROXY does not: plain HTTP is for a store nearby and for
        // instance metadata.
        Ok(Builder::new().pool_idle_timeout(POOL_IDLE).build_with_connector_fn(
            move |settings, components| {
                let mut builder = Connector::builder();
                builder.set_connector_settings(settings.cloned());
                builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
                builder
                    .pool_idle_timeout(POOL_IDLE)
                    .proxy_config(ProxyConfig::from_env())
                    .tls_provider(Provider::Rustls(CryptoMode::Ring))
                    .tls_context(context.clone())
                    .build()
            },
        ))
    }
}

/// One file, not the folder of hash links beside it: that one costs a thousand system calls.
fn bundle(ca_file: Option<&Path>) -> std::result::Result<PathBuf, String> {
    if let Some(file) = ca_file {
        return Ok(file.to_owned());
    }
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        return Ok(file.into());
    }
    let found = BUNDLES.iter().map(PathBuf::from).find(|file| file.exists());
    found.ok_or_else(|| {
        "no root certificates found: install ca-certificates or set s3.ca_file".to_owned()
    })
}

/// The certificates rustls can use, as PEM; the SDK would panic over any other.
fn usable_certificates(file: &Path) -> std::result::Result<Vec<u8>, String> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .map_err(|error| format!("cannot read root certificates from {shown}: {error}"))?;
    let mut roots = RootCertStore::empty();
    let mut usable = String::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let Ok(certificate) = certificate else { continue };
        if roots.add(certificate.clone()).is_ok() {
            let encoded = aws_smithy_types::base64::encode(&certificate);
            usable.push_str("-----BEGIN CERTIFICATE-----\n");
            usable.push_str(&encoded);
            usable.push_str("\n-----END CERTIFICATE-----\n");
        }
    }
    if usable.is_empty() {
        return Err(format!("{shown} holds no root certificate"));
    }
    Ok(usable.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{BUNDLES, usable_certificates};

    #[test]
    fn a_bundle_without_a_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let error = usable_certificates(file.path()).unwrap_err();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn usable_certificates_survive() {
        let made = rcgen::generate_simple_self_signed(["store".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.cert.pem()).unwrap();
        let usable = usable_certificates(file.path()).unwrap();
        assert!(usable.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert!(BUNDLES.iter().all(|path| path.starts_with('/')));
    }
}
