//! The recovery settings of a restored data directory: our block in `postgresql.auto.conf`, and
//! what it replaces.

use std::fmt::Write as _;

use crate::postgres::MajorVersion;

pub const BLOCK_BEGIN: &str = "# walden restore: begin";
pub const BLOCK_END: &str = "# walden restore: end";

/// What of another server's recovery must not steer this one. All are text but the last.
const STALE: [&str; 15] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
    PROMOTE_TRIGGER_FILE,
    "recovery_min_apply_delay",
];
/// Gone since 16, where it would keep the server from starting.
const PROMOTE_TRIGGER_FILE: &str = "promote_trigger_file";
/// These have a value of their own in every block, or a default that does no harm beside it.
const ALWAYS_SET: [&str; 4] = [
    "restore_command",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
];

/// What recovery shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverySettings {
    pub version: MajorVersion,
    /// As PostgreSQL shall run it; see `restore_command`.
    pub restore_command: String,
    /// One of PostgreSQL's `recovery_target` settings and its value; none to recover to the end of
    /// the archive.
    pub target: Option<(&'static str, String)>,
    pub inclusive: bool,
    /// A number, or `latest`.
    pub timeline: String,
    pub action: &'static str,
    pub archive_mode_off: bool,
    /// Files were left empty on purpose: WAL that speaks of their pages is passed over, with a
    /// warning, where the server would else end in PANIC (`log_invalid_page`, xlogutils.c).
    pub ignore_invalid_pages: bool,
}

impl RecoverySettings {
    /// The block, with its marks, to stand last in `postgresql.auto.conf`.
    ///
    /// Empty values switch off what the source may have set in `postgresql.conf`. They come before
    /// the real target: PostgreSQL refuses even an empty `recovery_target_xid` after a
    /// `recovery_target_time` (`assign_recovery_target_xid`, "multiple recovery targets
    /// specified").
    pub fn block(&self) -> String {
        let mut block = format!("{BLOCK_BEGIN}\n");
        for name in STALE {
            let gone = name == PROMOTE_TRIGGER_FILE && self.version > MajorVersion(15);
            let is_target = self.target.as_ref().is_some_and(|(target, _)| *target == name);
            if gone || is_target || ALWAYS_SET.contains(&name) {
                continue;
            }
            let off = if name == "recovery_min_apply_delay" { "0" } else { "" };
            setting(&mut block, name, off);
        }
        setting(&mut block, "restore_command", &self.restore_command);
        setting(&mut block, "recovery_target_timeline", &self.timeline);
        if let Some((name, value)) = &self.target {
            setting(&mut block, name, value);
        }
        setting(&mut block, "recovery_target_inclusive", if self.inclusive { "on" } else { "off" });
        setting(&mut block, "recovery_target_action", self.action);
        if self.archive_mode_off {
            setting(&mut block, "archive_mode", "off");
        }
        if self.ignore_invalid_pages {
            setting(&mut block, "ignore_invalid_pages", "on");
        }
        block.push_str(BLOCK_END);
        block.push('\n');
        block
    }

    /// A whole `postgresql.auto.conf`: what is left of the source's, then the block. The last
    /// setting of a name wins.
    pub fn apply(&self, auto_conf: &str) -> String {
        let mut text = without_stale(auto_conf);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text + &self.block()
    }
}

/// `restore_command`: the words of a call of walden, quoted for `sh`, with PostgreSQL's percent
/// signs escaped, then `fetch` and its two arguments.
pub fn restore_command(words: &[String]) -> String {
    format!("{} fetch \"%f\" \"%p\"", call(words))
}

/// The same for a rehearsal: what it brings creates no tablespace outside of the data directory.
pub fn rehearsal_command(words: &[String]) -> String {
    format!("{} fetch --rehearsal \"%f\" \"%p\"", call(words))
}

fn call(words: &[String]) -> String {
    let words = words.iter().map(|word| shell_word(word).replace('%', "%%"));
    words.collect::<Vec<_>>().join(" ")
}

/// Without our block and without the settings that another server's recovery left.
fn without_stale(auto_conf: &str) -> String {
    let mut kept = String::new();
    let mut in_block = false;
    for line in auto_conf.lines() {
        match line.trim() {
            BLOCK_BEGIN => in_block = true,
            BLOCK_END => in_block = false,
            _ if in_block || name_of(line).is_some_and(|name| STALE.contains(&&*name)) => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

/// The setting a line sets: `name = value` or `name value`, names in any case (guc-file.l).
fn name_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')));
    let name = &line[..end.unwrap_or(line.len())];
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn setting(block: &mut String, name: &str, value: &str) {
    writeln!(block, "{name} = {}", quoted(value)).expect("writing to a String cannot fail");
}

/// As a string in `postgresql.conf`, where backslashes escape (`DeescapeQuotedString`, guc-file.l).
pub fn quoted(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    format!("'{}'", value.replace('\n', "\\n").replace('\r', "\\r"))
}

/// So that `sh` takes it for one word.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{RecoverySettings, quoted, restore_command};
    use crate::postgres::MajorVersion;

    fn settings(version: u16) -> RecoverySettings {
        RecoverySettings {
            version: MajorVersion(version),
            restore_command: "/usr/bin/walden fetch \"%f\" \"%p\"".into(),
            target: Some(("recovery_target_time", "2026-11-21 10:00:00.5+00".into())),
            inclusive: true,
            timeline: "3".into(),
            action: "pause",
            archive_mode_off: true,
            ignore_invalid_pages: false,
        }
    }

    #[test]
    fn the_block_is_this_and_the_real_target_comes_last() {
        assert_eq!(
            settings(17).block(),
            "# walden restore: begin\n\
             archive_cleanup_command = ''\n\
             recovery_end_command = ''\n\
             primary_conninfo = ''\n\
             primary_slot_name = ''\n\
             recovery_target = ''\n\
             recovery_target_lsn = ''\n\
             recovery_target_name = ''\n\
             recovery_target_xid = ''\n\
             recovery_min_apply_delay = '0'\n\
             restore_command = '/usr/bin/walden fetch \"%f\" \"%p\"'\n\
             recovery_target_timeline = '3'\n\
             recovery_target_time = '2026-11-21 10:00:00.5+00'\n\
             recovery_target_inclusive = 'on'\n\
             recovery_target_action = 'pause'\n\
             archive_mode = 'off'\n\
             # walden restore: end\n"
        );
        assert!(settings(15).block().contains("promote_trigger_file = ''\n"));
    }

    #[test]
    fn stale_settings_go_and_the_rest_stays() {
        let source = "# Do not edit this file manually!\n\
                      max_connections = '50'\n\
                      Restore_Command = 'cp /old/%f %p'\n\
                      recovery_target_name 'old'\n\
                      primary_conninfo='host=old'\n\
                      recovery_targets = 'mine'\n\
                      archive_mode = 'on'";
        let once = settings(16).apply(source);
        assert!(once.starts_with(
            "# Do not edit this file manually!\nmax_connections = '50'\nrecovery_targets = 'mine'\n\
             archive_mode = 'on'\n# walden restore: begin\n"
        ));
        assert!(!once.contains("old"), "{once}");
        assert_eq!(settings(16).apply(&once), once, "a second restore replaces the block");
    }

    #[test]
    fn quoting_survives_the_shell_postgresql_and_the_file() {
        let words = ["/opt/it's 100%/walden", "--config", r"/etc/a\b.toml"].map(str::to_owned);
        let command = restore_command(&words);
        assert_eq!(
            command,
            r#"'/opt/it'\''s 100%%/walden' --config '/etc/a\b.toml' fetch "%f" "%p""#
        );
        assert_eq!(
            quoted(&command),
            r#"'''/opt/it''\\''''s 100%%/walden'' --config ''/etc/a\\b.toml'' fetch "%f" "%p"'"#
        );
    }
}
