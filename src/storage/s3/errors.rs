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
    /// The same, where the answer has no body to say so.
    Head,
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
        // An answer the SDK cannot read: an error page of something in between, or a 200 that holds
        // an error.
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
            .hint("If it stays so, the stored object is damaged: bring it back from a copy.");
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
    let kind = match code {
        "PreconditionFailed" => ErrorKind::AlreadyExists,
        // Of two that create the same object at this moment, one will have in the next.
        "ConditionalRequestConflict" | "OperationAborted" => ErrorKind::Unreachable,
        "NoSuchKey" | "NoSuchVersion" => ErrorKind::NotFound,
        "NoSuchBucket" | "InvalidBucketName" | "XMinioInvalidBucketName" => ErrorKind::WrongPlace,
        "PermanentRedirect" | "TemporaryRedirect" | "Redirect" => ErrorKind::WrongPlace,
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            ErrorKind::WrongPlace
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => ErrorKind::NotAllowed,
        "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException" => {
            ErrorKind::NotAllowed
        }
        "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => ErrorKind::NotAllowed,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => ErrorKind::NotAllowed,
        "InvalidObjectState" => ErrorKind::NotAllowed,
        "SlowDown" | "SlowDownRead" | "SlowDownWrite" => ErrorKind::Throttled,
        "Throttling" | "ThrottlingException" | "KMS.ThrottlingException" => ErrorKind::Throttled,
        "RequestLimitExceeded" | "BandwidthLimitExceeded" => ErrorKind::Throttled,
        "TooManyRequests" | "TooManyRequestsException" => ErrorKind::Throttled,
        "BadDigest" | "InvalidDigest" => ErrorKind::Corrupt,
        "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" => ErrorKind::Corrupt,
        "InvalidRange" => ErrorKind::Corrupt,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => ErrorKind::Full,
        "InsufficientCapacity" | "StorageLimitExceeded" => ErrorKind::Full,
        "RequestTimeout" | "IncompleteBody" | "InternalError" => ErrorKind::Unreachable,
        "ServiceUnavailable" | "XMinioServerNotInitialized" => ErrorKind::Unreachable,
        code if code.starts_with("KMS.") => ErrorKind::NotAllowed,
        _ => return None,
    };
    Some((kind, hint(code, kind)))
}

/// What to do about a code, else about its kind.
fn hint(code: &str, kind: ErrorKind) -> &'static str {
    match code {
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            "Set s3.region (or AWS_REGION) to the bucket's region."
        }
        "NoSuchBucket" => "Create the bucket, or correct the repository's URL.",
        "ConditionalRequestConflict" | "OperationAborted" => {
            "Try again: somebody else writes the same object."
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            "The credentials have expired: renew them."
        }
        "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException" => {
            "The store does not know this access key: correct it."
        }
        "SignatureDoesNotMatch" => {
            "The secret key is wrong, or something on the way changes requests."
        }
        "RequestTimeTooSkewed" => "Set this host's clock.",
        "InvalidObjectState" => "The object is in a cold storage class: restore it there first.",
        "InvalidRange" => "The object was cut short: bring it back from a copy.",
        code if code.starts_with("KMS.") => {
            "Let the role use the KMS key, and look whether it is enabled."
        }
        _ => hint_of_kind(kind),
    }
}

fn hint_of_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AlreadyExists => "Objects are written once; nothing was changed.",
        ErrorKind::NotFound => "Look whether this is the right repository.",
        ErrorKind::WrongPlace => "Look at the bucket's name, at s3.region and at s3.endpoint.",
        ErrorKind::NotAllowed => "Look at the credentials and at the policy of their role.",
        ErrorKind::Throttled => "The store asks to slow down: raise its limits, or ask for less.",
        ErrorKind::Corrupt => {
            "The bytes changed on their way: look at the network and its proxies."
        }
        ErrorKind::Full => "Free space in the store, or raise its quota.",
        _ => "Look at the store's health.",
    }
}

fn by_status(status: u16, asked: Asked) -> Option<(ErrorKind, &'static str)> {
    let kind = match status {
        301 | 307 | 308 => ErrorKind::WrongPlace,
        401 | 403 => ErrorKind::NotAllowed,
        // A store says NoSuchKey, which was looked for before; where it can say nothing, it is
        // believed. What stands between (a load balancer, a proxy) answers 404 too.
        404 if asked == Asked::Head => ErrorKind::NotFound,
        404 if asked == Asked::Object => ErrorKind::Unreachable,
        404 => ErrorKind::WrongPlace,
        408 | 409 => ErrorKind::Unreachable,
        412 => ErrorKind::AlreadyExists,
        416 => ErrorKind::Corrupt,
        429 => ErrorKind::Throttled,
        507 => ErrorKind::Full,
        500..=599 => ErrorKind::Unreachable,
        _ => return None,
    };
    Some((kind, hint_of_kind(kind)))
}

/// In seconds, or as a date.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let value = answer.headers().get("retry-after")?.trim();
    let seconds = value.parse().ok().or_else(|| {
        let date = DateTime::from_str(value, Format::HttpDate).ok()?;
        u64::try_from(date.secs() - crate::host::clock::now().as_second()).ok()
    });
    seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// More than anybody waits, and far from where the clock's arithmetic ends.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// No answer, or not even a request.
fn without_answer(error: &(dyn std::error::Error + 'static), place: &str) -> Error {
    let connection = find::<ConnectorError>(error);
    if let Some(credentials) = find::<CredentialsError>(error) {
        // An instance's metadata or a token service that does not answer says nothing about our
        // rights.
        let unanswered = matches!(credentials, CredentialsError::ProviderTimedOut(_))
            || connection.is_some_and(|error| error.is_io() || error.is_timeout());
        let (kind, hint) = match credentials {
            _ if unanswered => (
                ErrorKind::Unreachable,
                "Look whether the host reaches the source of its credentials.",
            ),
            CredentialsError::CredentialsNotLoaded(_) => (
                ErrorKind::NotAllowed,
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give a role.",
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_types::body::SdkBody;

    use super::{RETRY_AFTER_MAX, retry_after};

    fn asked(value: &'static str) -> Option<Duration> {
        let status = 503.try_into().unwrap();
        let mut answer = HttpResponse::new(status, SdkBody::empty());
        answer.headers_mut().insert("retry-after", value);
        retry_after(&answer)
    }

    #[test]
    fn a_store_is_taken_at_its_word_within_reason() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("18446744073709551615"), Some(RETRY_AFTER_MAX));
        assert_eq!(asked("Fri, 31 Dec 9999 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:00 GMT"), None);
        assert_eq!(asked("soon"), None);
    }
}
