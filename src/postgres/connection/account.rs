//! Who runs this program, as libpq asks it: for the default user name, and for the files in the
//! home directory.

use std::path::PathBuf;

/// The system's name of the effective user, else what USER says.
pub fn name(environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    passwd_field(0).or_else(|| environment("USER")).or_else(|| environment("LOGNAME"))
}

/// HOME, else the system's entry.
pub fn home(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = environment("HOME").filter(|home| !home.is_empty());
    home.or_else(|| passwd_field(5)).map(PathBuf::from)
}

/// A field of this user's line in `/etc/passwd`: `name:x:uid:gid:comment:home:shell`.
fn passwd_field(number: usize) -> Option<String> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&user))?;
    line.split(':').nth(number).filter(|field| !field.is_empty()).map(str::to_owned)
}
