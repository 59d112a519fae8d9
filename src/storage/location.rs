//! Where a repository is: its URL, parsed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Key;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Directory(PathBuf),
    S3 { bucket: String, prefix: Option<String> },
}

impl Location {
    /// `file:///absolute/path`, `/absolute/path` or `s3://bucket/prefix`. A path is taken as it is,
    /// `%20` and all.
    pub fn parse(url: &str) -> Result<Self> {
        if let Some(path) =
            url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url))
        {
            return directory(url, path);
        }
        if let Some(place) = url.strip_prefix("s3://") {
            return s3(url, place);
        }
        Err(Error::new(ErrorKind::Usage, format!("{url:?} is no repository that walden knows"))
            .hint("Use s3://bucket/prefix, file:///absolute/path or an absolute path."))
    }
}

fn directory(url: &str, path: &str) -> Result<Location> {
    let path = path.trim_end_matches('/');
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(Location::Directory(path.into()));
    }
    Err(Error::new(ErrorKind::Usage, format!("{url:?} names no absolute path"))
        .hint("Write file:///absolute/path, with three slashes; not the root directory."))
}

fn s3(url: &str, place: &str) -> Result<Location> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if bucket.is_empty() || !bucket.chars().all(allowed) {
        return Err(Error::new(ErrorKind::Usage, format!("{url:?} names no bucket"))
            .hint("Write s3://bucket/prefix; the endpoint belongs in s3.endpoint."));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(Location::S3 { bucket: bucket.to_owned(), prefix: None });
    }
    // Room for the keys below it: S3 allows 1,024 bytes in all.
    if Key::new(prefix).is_err() || prefix.len() > 500 {
        return Err(Error::new(ErrorKind::Usage, format!("the prefix of {url:?} is not usable"))
            .hint("Use letters, digits, '.', '-' and '_', with single slashes between."));
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix: Some(prefix.to_owned()) })
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Location::parse(url)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => write!(f, "file://{}", path.display()),
            Location::S3 { bucket, prefix: None } => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, prefix: Some(prefix) } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Location;
    use crate::error::ErrorKind;

    #[test]
    fn urls_are_read_and_written_in_one_way() {
        for (url, shown) in [
            ("file:///srv/wal", "file:///srv/wal"),
            ("/srv/wal/", "file:///srv/wal"),
            ("file:///srv/my wal", "file:///srv/my wal"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b"),
        ] {
            assert_eq!(Location::parse(url).unwrap().to_string(), shown);
            assert_eq!(Location::parse(shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn others_are_refused_with_what_is_known() {
        for url in [
            "",
            "wal",
            "./wal",
            "file://host/wal",
            "file://wal",
            "file:///",
            "/",
            "s3://",
            "s3:///a",
            "s3://user@host/a",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "gs://bucket",
            "http://host/b",
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{url}");
            assert!(error.hint_text().is_some(), "{url}");
        }
    }
}
