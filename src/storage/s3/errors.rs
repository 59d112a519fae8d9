//! What a store answered, sorted into our kinds: a 403 is never "absent", a time-out never "no".

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::date_time::{DateTime, Format};

use crate::error::{Error, ErrorKind};

/// What was asked for decides what a 404 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// For an object that may be absent.
    Object,
    /// For the bucket to take or list something.
    Bucket,
}

/// `place` is the store as a person writes it.
pub fn sort<E>(error: SdkError<E, HttpResponse>, asked: Asked, place: &str) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            by_answer(answer.err().meta(), answer.raw(), asked, place)
        }
        // An answer the SDK cannot read: an error page of something in between, or a 200 that holds an error.
        SdkError::ResponseError(answer) => match answer.raw().status().as_u16() {
            200..=299 => {
                Error::new(ErrorKind::Unreachable, format!("{place} gave a broken answer"))
                    .hint(
                        "Look at the store's own log, and at what stands between it and this host.",
                    )
                    .source(innermost(&error))
            }
            _ => by_answer(&ErrorMetadata::builder().build(), answer.raw(), asked, place),
        },
        _ => without_answer(&error, place),
    }
}

/// The body of an answer that had begun well.
pub fn sort_body(error: impl std::error::Error + 'static, place: &str) -> Error {
    let text = chain(&error);
    if text.contains("checksum mismatch") {
        let message = format!("the bytes {place} sent do not match its checksum");
        return Error::new(ErrorKind::Corrupt, message)
            .hint("If it stays so, the stored object is damaged: run `walden verify --deep`.");
    }
    Error::new(ErrorKind::Unreachable, format!("the answer of {place} broke off"))
        .hint("Look at the network between this host and the store.")
        .source(text)
}

fn by_answer(meta: &ErrorMetadata, answer: &HttpResponse, asked: Asked, place: &str) -> Error {
    let status = answer.status().as_u16();
    let code = meta.code().unwrap_or_default();
    let (kind, hint) = match by_code(code).or_else(|| by_status(status, asked)) {
        Some((ErrorKind::NotFound, hint)) if asked == Asked::Bucket => {
            (ErrorKind::WrongPlace, hint)
        }
        Some(sorted) => sorted,
        None => {
            (ErrorKind::NotAllowed, "The store refused the request: look at the [s3] settings.")
        }
    };
    let shown = if code.is_empty() { String::new() } else { format!(" {code}") };
    let says = meta.message().map(|message| format!(" ({message})")).unwrap_or_default();
    let region = answer.headers().get("x-amz-bucket-region");
    let region = region.map(|region| format!("; the bucket is in {region}")).unwrap_or_default();
    let error =
        Error::new(kind, format!("{place} answered {status}{shown}{says}{region}")).hint(hint);
    match retry_after(answer) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// Codes of S3 itself and of MinIO, Ceph and others where they differ.
#[allow(clippy::too_many_lines, reason = "a table")]
fn by_code(code: &str) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        "PreconditionFailed" => {
            (ErrorKind::AlreadyExists, "Objects are written once; nothing was changed.")
        }
        // Two create the same object at this moment; in the next, one of them has.
        "ConditionalRequestConflict" | "OperationAborted" => {
            (ErrorKind::Unreachable, "Try again; somebody else writes the same object.")
        }
        "NoSuchKey" | "NoSuchVersion" => {
            (ErrorKind::NotFound, "Look whether this is the right repository.")
        }
        "NoSuchBucket" | "XMinioInvalidBucketName" | "InvalidBucketName" => {
            (ErrorKind::WrongPlace, "Create the bucket, or correct the repository's URL.")
        }
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            (ErrorKind::WrongPlace, "Set s3.region (or AWS_REGION) to the bucket's region.")
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            (ErrorKind::NotAllowed, "The credentials have expired: renew them.")
        }
        "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException" => {
            (ErrorKind::NotAllowed, "The store does not know this access key: correct it.")
        }
        "SignatureDoesNotMatch" => (
            ErrorKind::NotAllowed,
            "The secret key is wrong, or something on the way changes requests.",
        ),
        "RequestTimeTooSkewed" => (ErrorKind::NotAllowed, "Set this host's clock."),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "UnauthorizedAccess" => {
            (ErrorKind::NotAllowed, "Let the policy of this role or key allow the request.")
        }
        "InvalidObjectState" => (
            ErrorKind::NotAllowed,
            "The object is in a cold storage class: restore it there first.",
        ),
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "KMS.ThrottlingException" => (
            ErrorKind::Throttled,
            "The store asks to slow down: raise its limits, or lower the parallelism.",
        ),
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch" => (
            ErrorKind::Corrupt,
            "The bytes changed on their way: look at the network and its proxies.",
        ),
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientCapacity"
        | "StorageLimitExceeded" => {
            (ErrorKind::Full, "Free space in the store, or raise its quota.")
        }
        "RequestTimeout"
        | "IncompleteBody"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServerNotInitialized"
        | "XMinioServerNotInitialized" => (ErrorKind::Unreachable, "Look at the store's health."),
        "InvalidRange" => (ErrorKind::Corrupt, "The object was cut short; run `walden verify`."),
        code if code.starts_with("KMS.") => {
            (ErrorKind::NotAllowed, "Let the role use the KMS key, and look whether it is enabled.")
        }
        _ => return None,
    })
}

fn by_status(status: u16, asked: Asked) -> Option<(ErrorKind, &'static str)> {
    Some(match status {
        301 | 307 | 308 => (
            ErrorKind::WrongPlace,
            "Set s3.region (or AWS_REGION) and s3.endpoint to the bucket's.",
        ),
        401 | 403 => {
            (ErrorKind::NotAllowed, "Look at the credentials and at the policy of their role.")
        }
        404 if asked == Asked::Object => {
            (ErrorKind::NotFound, "Look whether this is the right repository.")
        }
        404 => (ErrorKind::WrongPlace, "Look at the bucket's name and at s3.endpoint."),
        408 | 409 => (ErrorKind::Unreachable, "Look at the store's health."),
        412 => (ErrorKind::AlreadyExists, "Objects are written once; nothing was changed."),
        416 => (ErrorKind::Corrupt, "The object was cut short; run `walden verify`."),
        429 => (ErrorKind::Throttled, "The store asks to slow down: raise its limits."),
        507 => (ErrorKind::Full, "Free space in the store, or raise its quota."),
        500..=599 => (ErrorKind::Unreachable, "Look at the store's health."),
        _ => return None,
    })
}

/// In seconds, or as a date.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let value = answer.headers().get("retry-after")?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::from_str(value, Format::HttpDate).ok()?;
    let wait = date.secs() - crate::host::clock::now().as_second();
    u64::try_from(wait).ok().map(Duration::from_secs)
}

/// No answer, or not even a request.
fn without_answer(error: &(dyn std::error::Error + 'static), place: &str) -> Error {
    let connection = find::<ConnectorError>(error);
    if let Some(credentials) = find::<CredentialsError>(error) {
        // An instance's metadata or a token service that does not answer says nothing about our rights.
        let unanswered = matches!(credentials, CredentialsError::ProviderTimedOut(_))
            || connection.is_some_and(|error| error.is_io() || error.is_timeout());
        let (kind, hint) = match credentials {
            _ if unanswered => (
                ErrorKind::Unreachable,
                "Look whether the host reaches the source of its credentials.",
            ),
            CredentialsError::CredentialsNotLoaded(_) => (
                ErrorKind::NotAllowed,
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the host a role.",
            ),
            _ => (ErrorKind::NotAllowed, "Look at the credentials' configuration."),
        };
        let message = format!("no credentials for {place}");
        return Error::new(kind, message).hint(hint).source(chain(credentials));
    }
    let source = innermost(error);
    match connection {
        Some(connection) if connection.is_timeout() => {
            Error::new(ErrorKind::Unreachable, format!("no answer from {place} in time"))
                .hint("Look at the network, at s3.endpoint and at the firewall.")
        }
        Some(connection) if connection.is_user() => {
            Error::new(ErrorKind::Usage, format!("cannot ask {place}"))
                .hint("Look at s3.ca_file and s3.endpoint.")
        }
        Some(_) if source.contains("certificate") => {
            Error::new(ErrorKind::Unreachable, format!("cannot trust {place}"))
                .hint("Set s3.ca_file to the root certificate that signed the store's.")
        }
        Some(_) => Error::new(ErrorKind::Unreachable, format!("cannot reach {place}"))
            .hint("Look at the network, at s3.endpoint and at the firewall."),
        None => Error::new(ErrorKind::Usage, format!("cannot ask {place}"))
            .hint("Look at the [s3] settings and at AWS_* in the environment."),
    }
    .source(source)
}

fn find<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The SDK wraps each error in four that say nothing; the last one is the operating system's.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
