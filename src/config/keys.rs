//! Every key there is: what it means, its type, its default. Checks, samples and docs follow it.

/// One setting a person can write.
#[derive(Debug)]
pub struct Key {
    /// As in the file, tables joined by dots: `push.deadline`.
    pub path: &'static str,
    pub kind: Kind,
    /// As one would write it; `None` where nothing is set by default.
    pub default: Option<&'static str>,
    /// Another value that makes sense.
    pub example: &'static str,
    pub meaning: &'static str,
}

/// What type of value a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// An absolute path.
    Path,
    /// A URL without user name or password.
    Url,
    /// `true` or `false`.
    Switch,
    Number {
        min: i64,
        max: i64,
    },
    /// A time span with its unit: `120s`, `5min`, `1h`.
    Span,
    /// A number of bytes with its unit: `64MiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// A part of something, as `5%`.
    Share,
    Choice(&'static [&'static str]),
}

impl Kind {
    /// As the documentation calls it.
    pub fn name(self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Path => "absolute path".to_owned(),
            Kind::Url => "URL".to_owned(),
            Kind::Switch => "`true` or `false`".to_owned(),
            Kind::Number { min, max } => format!("{min} to {max}"),
            Kind::Span => "time span".to_owned(),
            Kind::Size { .. } => "size".to_owned(),
            Kind::Share => "percentage".to_owned(),
            Kind::Choice(choices) => format!("`{}`", choices.join("`, `")),
        }
    }
}

impl Key {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        let path = self.path.replace('.', "_").to_ascii_uppercase();
        format!("{PREFIX}{path}")
    }

    /// Whether this is the variable's name, without building it.
    pub fn is_variable(&self, name: &str) -> bool {
        let upper = |c: u8| if c == b'.' { b'_' } else { c.to_ascii_uppercase() };
        name.strip_prefix(PREFIX).is_some_and(|rest| rest.bytes().eq(self.path.bytes().map(upper)))
    }
}

/// With what the name of each of our environment variables begins.
pub const PREFIX: &str = "WALDEN_";
/// The variable that names the configuration file; it is no key.
pub const CONFIG_VARIABLE: &str = "WALDEN_CONFIG";
/// Variables of this beginning steer the tests and are passed over.
pub const TEST_PREFIX: &str = "WALDEN_TEST_";

/// In bytes a second.
const RATE: Kind = Kind::Size { min: 1 << 10, max: 1 << 40 };
const JOBS: Kind = Kind::Number { min: 1, max: 256 };

pub fn find(path: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.path == path)
}

/// In the order of the file.
pub const KEYS: &[Key] = &[
    Key {
        path: "cluster",
        kind: Kind::Text,
        default: Some("main"),
        example: "orders",
        meaning: "The name of this PostgreSQL cluster in the repository: 1 to 64 letters, \
                  digits, `.`, `-` or `_`.",
    },
    Key {
        path: "pgdata",
        kind: Kind::Path,
        default: None,
        example: "/var/lib/postgresql/17/main",
        meaning: "The data directory. `push` and `fetch` use the directory they are called in.",
    },
    Key {
        path: "state_dir",
        kind: Kind::Path,
        default: None,
        example: "/var/cache/walden",
        meaning: "Where small facts, what `window` learned of the WAL (some hundred bytes a \
                  segment), and segments fetched ahead, are kept from call to call; losing them \
                  costs time, never data. Unset: `/var/lib/walden` if it can be written, else a \
                  private directory under the temporary one.",
    },
    Key {
        path: "repository.url",
        kind: Kind::Url,
        default: None,
        example: "s3://bucket/prefix",
        meaning: "Where WAL and backups are kept: `s3://bucket/prefix` or `file:///directory`. \
                  Write `[[repository]]` for more than one.",
    },
    Key {
        path: "s3.endpoint",
        kind: Kind::Url,
        default: None,
        example: "https://s3.example.org",
        meaning: "The store's address, if it is not Amazon's own.",
    },
    Key {
        path: "s3.region",
        kind: Kind::Text,
        default: None,
        example: "eu-central-1",
        meaning: "The bucket's region. Unset: `AWS_REGION`; then `us-east-1` where an endpoint is \
                  set and no profile, else the profile's, then the instance's.",
    },
    Key {
        path: "s3.path_style",
        kind: Kind::Switch,
        default: None,
        example: "true",
        meaning: "Name the bucket in the path instead of the host name. Unset: yes where an \
                  endpoint is set, since most stores that are not Amazon's want it.",
    },
    Key {
        path: "s3.storage_class",
        kind: Kind::Text,
        default: None,
        example: "STANDARD_IA",
        meaning: "The storage class of new objects. Unset: the bucket's own.",
    },
    Key {
        path: "s3.sse",
        kind: Kind::Choice(&["AES256", "aws:kms", "aws:kms:dsse"]),
        default: None,
        example: "aws:kms",
        meaning: "Server-side encryption of new objects. Unset: the bucket's own.",
    },
    Key {
        path: "s3.kms_key_id",
        kind: Kind::Text,
        default: None,
        example: "alias/walden",
        meaning: "The KMS key, with `s3.sse = \"aws:kms\"`. Unset: the account's key for S3.",
    },
    Key {
        path: "s3.ca_file",
        kind: Kind::Path,
        default: None,
        example: "/etc/ssl/private-ca.pem",
        meaning: "Certificates to trust in PEM, instead of the system's.",
    },
    Key {
        path: "s3.request_timeout",
        kind: Kind::Span,
        default: Some("60s"),
        example: "2min",
        meaning: "How long one request may take from beginning to end; one that sends more than 64 \
                  MiB has another second for each MiB more.",
    },
    Key {
        path: "s3.connect_timeout",
        kind: Kind::Span,
        default: Some("5s"),
        example: "2s",
        meaning: "How long connecting may take.",
    },
    Key {
        path: "s3.conditional_put",
        kind: Kind::Choice(&["auto", "yes", "no"]),
        default: Some("auto"),
        example: "yes",
        meaning: "Whether the store honours `If-None-Match: *`, which is how two archivers \
                  cannot overwrite each other. `auto`: a probe finds out, once per host and \
                  store.",
    },
    Key {
        path: "compression.level",
        kind: Kind::Number { min: -7, max: 19 },
        default: Some("1"),
        example: "3",
        meaning: "zstd's level, -7 (fastest) to 19 (smallest). On real WAL, 1 is about as small \
                  as 3 at twice the speed.",
    },
    Key {
        path: "push.deadline",
        kind: Kind::Span,
        default: Some("120s"),
        example: "45s",
        meaning: "How long one `push` may try before it gives up. PostgreSQL sets no limit of \
                  its own, and a fast shutdown waits for it.",
    },
    Key {
        path: "push.look_ahead",
        kind: Kind::Number { min: 0, max: 256 },
        default: None,
        example: "4",
        meaning: "How many further finished WAL files may be on their way while one is pushed; 0 \
                  turns it off. Unset: 16 per processor, at most 64.",
    },
    Key {
        path: "push.look_ahead_deadline",
        kind: Kind::Span,
        default: Some("2s"),
        example: "5s",
        meaning: "How long a `push` that is done with its own file may go on with further ones.",
    },
    Key {
        path: "push.on_invalid",
        kind: Kind::Choice(&["refuse", "archive"]),
        default: Some("refuse"),
        example: "archive",
        meaning: "What becomes of a segment with a record that does not match its checksum: \
                  `refuse` it (exit 10), so that archiving stands still until somebody looks; or \
                  `archive` it as it is, with a mark: recovery ends there.",
    },
    Key {
        path: "fetch.retry_for",
        kind: Kind::Span,
        default: Some("5min"),
        example: "30s",
        meaning: "How long `fetch` retries before it ends undecided (exit 200, or 3 on a standby).",
    },
    Key {
        path: "fetch.prefetch_bytes_max",
        kind: Kind::Size { min: 0, max: 1 << 40 },
        default: Some("256MiB"),
        example: "1GiB",
        meaning: "How much WAL `fetch` may hold ready in `state_dir` ahead of a recovery or a \
                  standby, uncompressed; `0B` turns that off. It leaves as much free on the disk.",
    },
    Key {
        path: "backup.mode",
        kind: Kind::Choice(&["local", "stream", "auto"]),
        default: Some("auto"),
        example: "stream",
        meaning: "How a backup gets the server's files: from its data directory, over the \
                  replication protocol, or from the data directory where that is on this host.",
    },
    Key {
        path: "backup.checkpoint",
        kind: Kind::Choice(&["fast", "spread"]),
        default: Some("fast"),
        example: "spread",
        meaning: "The checkpoint a backup begins with: at once, or spread over the server's \
                  usual time.",
    },
    Key {
        path: "backup.wal_timeout",
        kind: Kind::Span,
        default: Some("10min"),
        example: "1h",
        meaning: "How long a finished backup waits until all the WAL it needs is in the \
                  repository.",
    },
    Key {
        path: "backup.archive_check",
        kind: Kind::Span,
        default: Some("60s"),
        example: "2min",
        meaning: "How long a backup waits, before it copies anything, for proof that archiving \
                  works.",
    },
    Key {
        path: "backup.incremental",
        kind: Kind::Switch,
        default: Some("false"),
        example: "true",
        meaning: "Whether a backup stores only what has changed since the newest one, where that \
                  is possible.",
    },
    Key {
        path: "backup.full_every",
        kind: Kind::Span,
        default: None,
        example: "7d",
        meaning: "How old the full backup under an incremental one may be; then a full one is \
                  taken. Unset: as old as it is.",
    },
    Key {
        path: "backup.chain_max",
        kind: Kind::Number { min: 1, max: 1000 },
        default: Some("30"),
        example: "8",
        meaning: "How many backups a chain may have, the full one included; then a full one is \
                  taken.",
    },
    Key {
        path: "backup.jobs",
        kind: JOBS,
        default: None,
        example: "4",
        meaning: "How many threads compress. Unset: one per processor.",
    },
    Key {
        path: "backup.max_rate",
        kind: RATE,
        default: None,
        example: "64MiB",
        meaning: "The most that is read in a second. In stream mode the server sees to that, and \
                  takes 32KiB to 1GiB. Unset: no limit.",
    },
    Key {
        path: "backup.nice",
        kind: Kind::Number { min: 1, max: 19 },
        default: None,
        example: "10",
        meaning: "A lower priority for the processor, and by it for the disk, up to 19, the \
                  lowest. Unset: the one it was started with.",
    },
    Key {
        path: "restore.jobs",
        kind: JOBS,
        default: None,
        example: "8",
        meaning: "How many threads download and write. Unset: one per processor, at most 8.",
    },
    Key {
        path: "restore.max_rate",
        kind: RATE,
        default: None,
        example: "200MiB",
        meaning: "The most that is fetched in a second. Unset: no limit.",
    },
    Key {
        path: "verify.sample",
        kind: Kind::Share,
        default: Some("100%"),
        example: "5%",
        meaning: "How much of the content `verify --deep` reads: what was read longest ago comes \
                  first, so that all of it has its turn.",
    },
    Key {
        path: "verify.jobs",
        kind: JOBS,
        default: None,
        example: "4",
        meaning: "How many threads read and check. Unset: one per processor.",
    },
    Key {
        path: "verify.max_rate",
        kind: RATE,
        default: None,
        example: "50MiB",
        meaning: "The most that `verify --deep` reads in a second. Unset: no limit.",
    },
    Key {
        path: "drill.directory",
        kind: Kind::Path,
        default: None,
        example: "/srv/drills",
        meaning: "Where drills make their directories, each of the size of the cluster. Unset: \
                  `state_dir` where that is set, else /var/tmp.",
    },
    Key {
        path: "drill.memory",
        kind: Kind::Size { min: 16 << 20, max: 1 << 40 },
        default: Some("128MiB"),
        example: "1GiB",
        meaning: "The shared buffers of the server that a drill starts.",
    },
    Key {
        path: "drill.nice",
        kind: Kind::Number { min: 0, max: 19 },
        default: Some("10"),
        example: "19",
        meaning: "The priority of a drill and of its server for the processor, and by it for the \
                  disk; 19 is the lowest.",
    },
    Key {
        path: "drill.timeout",
        kind: Kind::Span,
        default: Some("12h"),
        example: "4h",
        meaning: "How long a drill may take; then it ends with 6 and cleans up.",
    },
    Key {
        path: "objectives.rto",
        kind: Kind::Span,
        default: None,
        example: "1h",
        meaning: "How long a recovery may take. A drill that took longer has failed, and `report` \
                  shows it. Unset: no objective.",
    },
    Key {
        path: "objectives.rpo",
        kind: Kind::Span,
        default: None,
        example: "5min",
        meaning: "For how long at most a commit may be nowhere but on its server. A drill that \
                  measures more has failed, and `report` shows it. Unset: no objective.",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::keys::{CONFIG_VARIABLE, KEYS, Key, find};

    #[test]
    fn paths_and_variables_are_unique() {
        let variables: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(variables.len(), KEYS.len());
        assert!(!variables.contains(CONFIG_VARIABLE));
    }

    #[test]
    fn a_variable_is_the_path_in_capitals() {
        let key = &KEYS[find("s3.path_style").unwrap()];
        assert_eq!(key.variable(), "WALDEN_S3_PATH_STYLE");
        assert!(key.is_variable("WALDEN_S3_PATH_STYLE"));
        assert!(!key.is_variable("WALDEN_S3_PATH"));
        assert!(!key.is_variable("S3_PATH_STYLE"));
    }
}
