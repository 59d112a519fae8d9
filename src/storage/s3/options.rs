//! What can be said about an S3 store beside its URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `http://` or `https://`; none: AWS itself, or what `AWS_ENDPOINT_URL` says.
    pub endpoint: Option<String>,
    /// None: the environment's; then `us-east-1` where an endpoint is given and no profile, else
    /// the profile's, then the instance's.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; none: only where an endpoint is
    /// given.
    pub path_style: Option<bool>,
    pub storage_class: Option<String>,
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub sse: Option<String>,
    pub kms_key_id: Option<String>,
    /// One PEM file with the root certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// From the first byte of a request to the last byte of its answer.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    pub conditional_put: ConditionalPut,
    /// None: AWS's own chain. The configuration has no such key: secrets stay out of it.
    pub credentials: Option<Credentials>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            endpoint: None,
            region: None,
            path_style: None,
            storage_class: None,
            sse: None,
            kms_key_id: None,
            ca_file: None,
            // A pack has at most 64 MiB, for which 9 Mbit/s suffice; segments are seldom larger.
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            conditional_put: ConditionalPut::default(),
            credentials: None,
        }
    }
}

/// Whether the store keeps `If-None-Match: *`; claiming a place finds out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConditionalPut {
    /// Yes, until the store says that it does not know it.
    #[default]
    Auto,
    Yes,
    /// Look, then put: two requests, and a gap between them in which another may put.
    No,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish()
    }
}
