//! The facts of a backup that its manifest keeps for people.

use std::time::Duration;

use crate::commands::backup::Request;
use crate::commands::backup::copy::Target;
use crate::commands::backup::source::Source;
use crate::host::privileges;
use crate::repository::Manifest;
use crate::repository::manifest::Taken;

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// `None`: as `whole`.
    pub copy: Option<Duration>,
    /// So far: all but the manifest.
    pub whole: Duration,
}

pub fn add(
    manifest: &mut Manifest,
    source: &Source,
    target: &Target<'_>,
    request: &Request,
    took: Took,
) {
    let copy = took.copy.unwrap_or(took.whole);
    let bytes = manifest.packs.iter().map(|pack| pack.size).sum::<u64>();
    manifest.notes = request.notes.clone();
    manifest.taken = Some(Taken {
        server_version: source.server_version.clone(),
        data_checksums: source.data_checksums,
        os_user: privileges::own_name(),
        database_user: request.connection.user_name().to_owned(),
        jobs: target.jobs,
        compression_level: request.compression.level,
        max_rate: request.max_rate,
        copy_ms: milliseconds(copy),
        duration_ms: milliseconds(took.whole),
        rate: (bytes as f64 / copy.as_secs_f64().max(0.001)) as u64,
    });
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
