//! Where PostgreSQL is and who we are to it: libpq's parameters, understood.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::conninfo::Keywords;
use crate::postgres::connection::keywords::{self, Environment};
use crate::postgres::connection::{account, pass_file};

/// libpq waits for ever; a timer's job should not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than any one silence of a healthy server that answers a query of ours.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const PORT: u16 = 5432;
/// Debian's and the PostgreSQL packages' first, then the one of the sources.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// Tried in this order.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) user: String,
    /// The user's name where `None`, as in libpq.
    pub(super) dbname: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) pass_file: Option<PathBuf>,
    pub(super) application_name: String,
    /// Command-line options for the server process, such as `-c work_mem=64MB`.
    pub(super) options: Option<String>,
    pub(super) tls: TlsOptions,
    pub(super) channel_binding: ChannelBindingMode,
    pub(super) connect_timeout: Duration,
    /// How long the server may be silent in the middle of an answer; `None`: for as long as its
    /// machine answers.
    pub(super) read_timeout: Option<Duration>,
    /// A connection to a walsender, for `BASE_BACKUP`.
    pub(super) replication: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The directory of a Unix socket.
    Socket(PathBuf),
    /// A name or an address, and the address to use in its place (`hostaddr`).
    Name(String, Option<IpAddr>),
}

#[derive(Debug, Clone)]
pub struct TlsOptions {
    pub mode: SslMode,
    pub root_cert: RootCert,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Whether the host's name is shown in the clear (SNI).
    pub show_name: bool,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// `sslrootcert=system`
    System,
    File(PathBuf),
    /// `~/.postgresql/root.crt`, where there is one.
    Default(Option<PathBuf>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBindingMode {
    Disable,
    Prefer,
    Require,
}

/// Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ConnectionOptions {
    /// As `psql` would connect that was started here without a word.
    pub fn from_environment() -> Result<Self> {
        ConnectionOptions::resolve(None, &|name| std::env::var(name).ok())
    }

    /// As `psql -d CONNINFO` would; the connection string wins over everything else.
    pub fn from_conninfo(conninfo: &str) -> Result<Self> {
        ConnectionOptions::resolve(Some(conninfo), &|name| std::env::var(name).ok())
    }

    pub fn user_name(&self) -> &str {
        &self.user
    }

    /// One server on this machine, whatever the environment says.
    pub fn local(socket_directory: &Path, port: u16, user: &str) -> Self {
        let host = Host::Socket(socket_directory.to_owned());
        ConnectionOptions {
            endpoints: vec![Endpoint { host, port }],
            user: user.to_owned(),
            dbname: Some("postgres".to_owned()),
            password: None,
            pass_file: None,
            application_name: "walden".to_owned(),
            options: None,
            tls: TlsOptions {
                mode: SslMode::Disable,
                root_cert: RootCert::Default(None),
                cert: None,
                key: None,
                show_name: true,
            },
            channel_binding: ChannelBindingMode::Prefer,
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: Some(READ_TIMEOUT),
            replication: false,
        }
    }

    pub fn resolve(explicit: Option<&str>, environment: Environment<'_>) -> Result<Self> {
        let keywords = keywords::gather(explicit, environment)?;
        let get = |keyword: &str| keywords.get(keyword).cloned();
        let home = account::home(environment);
        let user = get("user").or_else(|| account::name(environment)).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "no user name to connect to PostgreSQL with")
                .hint("Set PGUSER.")
        })?;
        let connect_timeout = match number::<i64>(&keywords, "connect_timeout")? {
            None => CONNECT_TIMEOUT,
            Some(seconds) if seconds <= 0 => Duration::from_secs(24 * 3600),
            // libpq takes 1 for 2.
            Some(seconds) => Duration::from_secs(seconds.unsigned_abs().max(2)),
        };
        Ok(ConnectionOptions {
            endpoints: endpoints(&keywords)?,
            user,
            dbname: get("dbname"),
            password: get("password").map(Secret),
            pass_file: get("passfile")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".pgpass"))),
            application_name: get("application_name")
                .or_else(|| get("fallback_application_name"))
                .unwrap_or_else(|| "walden".to_owned()),
            options: get("options"),
            tls: tls_options(&keywords, home)?,
            channel_binding: channel_binding(&keywords)?,
            connect_timeout,
            read_timeout: Some(READ_TIMEOUT),
            replication: false,
        })
    }

    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    #[must_use]
    pub fn dbname(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = Some(dbname.into());
        self
    }

    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into()));
        self
    }

    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// To a walsender, which speaks the replication commands, instead of to a database.
    #[must_use]
    pub fn replication(mut self, replication: bool) -> Self {
        self.replication = replication;
        self
    }

    /// To a database that every cluster has, where none was named: libpq would take the user's name
    /// for it.
    #[must_use]
    pub fn sql(mut self) -> Self {
        self.replication = false;
        self.dbname.get_or_insert_with(|| "postgres".to_owned());
        self
    }

    /// For the session, as PGOPTIONS: they beat what was set for a role or a database.
    #[must_use]
    pub fn server_options(mut self, options: impl Into<String>) -> Self {
        self.options = Some(options.into());
        self
    }

    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    #[must_use]
    pub fn read_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.read_timeout = timeout;
        self
    }

    pub(super) fn password_for(&self, endpoint: &Endpoint) -> Option<Secret> {
        if self.password.is_some() {
            return self.password.clone();
        }
        let path = self.pass_file.as_ref()?;
        let dbname = self.dbname.as_deref().unwrap_or(&self.user);
        let names = if self.replication { vec!["replication", dbname] } else { vec![dbname] };
        let host = endpoint.host.name_in_pass_file();
        names.into_iter().find_map(|database| {
            let (port, user) = (endpoint.port, self.user.as_str());
            let wanted = pass_file::Wanted { host: &host, port, database, user };
            pass_file::password(path, &wanted).map(Secret)
        })
    }
}

impl Host {
    fn name_in_pass_file(&self) -> String {
        match self {
            Host::Socket(folder) if SOCKET_FOLDERS.iter().any(|known| folder == *known) => {
                "localhost".to_owned()
            }
            Host::Socket(folder) => folder.display().to_string(),
            Host::Name(name, _) => name.clone(),
        }
    }
}

/// `db1:5432`, `/var/run/postgresql:5432`
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Socket(folder) => write!(f, "{}:{}", folder.display(), self.port),
            Host::Name(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Name(name, _) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn endpoints(keywords: &Keywords) -> Result<Vec<Endpoint>> {
    let list = |keyword: &str| -> Vec<&str> {
        keywords.get(keyword).map(|text| text.split(',').collect()).unwrap_or_default()
    };
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    let agrees = |number: usize| number <= 1 || number == count;
    if !agrees(ports.len()) || (!addresses.is_empty() && !hosts.is_empty() && !agrees(hosts.len()))
    {
        return Err(bad("port", "as many values as there are hosts, or one"));
    }
    let endpoint = |at: usize| {
        let port = match ports.get(at).or(ports.first()).map(|port| port.trim()) {
            None | Some("") => PORT,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(bad("port", "a number from 1 to 65535")),
            },
        };
        let address = match addresses.get(at).filter(|address| !address.is_empty()) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| bad("hostaddr", "numeric IPv4 or IPv6 addresses"))?)
            }
        };
        Ok(Endpoint { host: host(hosts.get(at).copied().unwrap_or(""), address, port), port })
    };
    (0..count).map(endpoint).collect()
}

fn host(text: &str, address: Option<IpAddr>, port: u16) -> Host {
    match (text, address) {
        ("", None) => {
            let has_socket = |folder: &&str| socket_path(Path::new(folder), port).exists();
            let found = SOCKET_FOLDERS.into_iter().find(has_socket);
            Host::Socket(found.unwrap_or(SOCKET_FOLDERS[0]).into())
        }
        ("", Some(address)) => Host::Name(address.to_string(), Some(address)),
        (folder, None) if folder.starts_with('/') => Host::Socket(folder.into()),
        (name, address) => Host::Name(name.to_owned(), address),
    }
}

pub(super) fn socket_path(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

fn tls_options(keywords: &Keywords, home: Option<PathBuf>) -> Result<TlsOptions> {
    let own = |name: &str| home.as_ref().map(|home| home.join(".postgresql").join(name));
    let there = |path: Option<PathBuf>| path.filter(|path| path.exists());
    let named = |keyword: &str| keywords.get(keyword).map(PathBuf::from);
    let root_cert = match keywords.get("sslrootcert").map(String::as_str) {
        Some("system") => RootCert::System,
        Some(path) => RootCert::File(path.into()),
        None => RootCert::Default(there(own("root.crt"))),
    };
    let mode = match keywords.get("sslmode").map(String::as_str) {
        None if root_cert == RootCert::System => SslMode::VerifyFull,
        None => SslMode::Prefer,
        Some(text) => text.parse()?,
    };
    if root_cert == RootCert::System && mode != SslMode::VerifyFull {
        return Err(bad("sslmode", "verify-full where sslrootcert is \"system\""));
    }
    Ok(TlsOptions {
        mode,
        root_cert,
        cert: named("sslcert").or_else(|| there(own("postgresql.crt"))),
        key: named("sslkey").or_else(|| there(own("postgresql.key"))),
        show_name: keywords.get("sslsni").is_none_or(|value| value != "0"),
    })
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => {
                let known = "one of disable, allow, prefer, require, verify-ca and verify-full";
                return Err(bad("sslmode", known));
            }
        })
    }
}

fn channel_binding(keywords: &Keywords) -> Result<ChannelBindingMode> {
    match keywords.get("channel_binding").map(String::as_str) {
        None | Some("prefer") => Ok(ChannelBindingMode::Prefer),
        Some("disable") => Ok(ChannelBindingMode::Disable),
        Some("require") => Ok(ChannelBindingMode::Require),
        Some(_) => Err(bad("channel_binding", "one of disable, prefer and require")),
    }
}

fn number<T: FromStr>(keywords: &Keywords, keyword: &str) -> Result<Option<T>> {
    let parse = |text: &String| text.trim().parse().map_err(|_| bad(keyword, "a whole number"));
    keywords.get(keyword).map(parse).transpose()
}

fn bad(keyword: &str, wanted: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("the connection parameter {keyword} must be {wanted}"))
        .hint("It comes from the connection string, the service file or a PG... variable.")
}

#[cfg(test)]
mod tests {
    use super::{ConnectionOptions, Endpoint, Host, RootCert, SslMode};
    use crate::error::ErrorKind;

    fn resolve(conninfo: &str) -> crate::error::Result<ConnectionOptions> {
        ConnectionOptions::resolve(Some(conninfo), &|name| (name == "HOME").then(|| "/none".into()))
    }

    fn name(host: &str, port: u16) -> Endpoint {
        Endpoint { host: Host::Name(host.into(), None), port }
    }

    #[test]
    fn several_hosts_take_one_port_or_as_many() {
        let of = |conninfo: &str| resolve(conninfo).unwrap().endpoints;
        assert_eq!(of("host=a,b port=7"), [name("a", 7), name("b", 7)]);
        assert_eq!(of("host=a,b port=7,8"), [name("a", 7), name("b", 8)]);
        assert_eq!(of("host=a"), [name("a", 5432)]);
        assert_eq!(
            of("host=/run/pg port=6"),
            [Endpoint { host: Host::Socket("/run/pg".into()), port: 6 }]
        );
        assert_eq!(
            of("hostaddr=::1"),
            [Endpoint { host: Host::Name("::1".into(), Some("::1".parse().unwrap())), port: 5432 }]
        );
        for bad in ["host=a,b port=1,2,3", "port=0", "port=x", "hostaddr=db1"] {
            assert_eq!(resolve(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn system_roots_mean_a_full_check() {
        let tls = resolve("sslrootcert=system").unwrap().tls;
        assert_eq!((tls.mode, tls.root_cert), (SslMode::VerifyFull, RootCert::System));
        assert!(resolve("sslrootcert=system sslmode=require").is_err());
        assert_eq!(resolve("host=a").unwrap().tls.mode, SslMode::Prefer);
        assert!(resolve("sslmode=yes").is_err());
    }

    #[test]
    fn the_password_never_prints() {
        let options = resolve("password=hunter2").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn the_pass_file_knows_a_replication_connection_by_that_name() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "localhost:*:replication:w:walsender\nlocalhost:*:*:w:sql\n")
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let conninfo = format!("host=/var/run/postgresql user=w passfile={}", path.display());
        let options = resolve(&conninfo).unwrap();
        let found = |options: &ConnectionOptions| options.password_for(&options.endpoints[0]);
        assert_eq!(found(&options).unwrap().0, "sql");
        assert_eq!(found(&options.replication(true)).unwrap().0, "walsender");
    }
}
