//! Ways to damage the backups of a repository.

use serde_json::{Value, json};

use super::expected::{Expected, damage, note};
use super::landscape::{Backup, Landscape};
use super::wal_ways::Deed;
use crate::harness::saboteur::{Copy, Sealed, position};

pub const WAYS: &[(&str, Deed)] = &[
    ("a flipped byte in a pack", flipped_pack),
    ("a flipped byte in a pack's seek table", flipped_table),
    ("a flipped byte in a pack's header", flipped_pack_header),
    ("a pack of 0 bytes", |l, copy| cut_pack(l, copy, 0.0)),
    ("half a pack", |l, copy| cut_pack(l, copy, 0.5)),
    ("two packs of one backup swapped", swapped_packs),
    ("packs of two backups swapped", swapped_packs_of_two),
    ("a pack lost", pack_lost),
    ("a pack of an incremental backup lost", pack_of_incremental_lost),
    ("one byte of a file in a pack that is whole in itself", forged_pack),
    ("a flipped byte in the checksums", flipped_sums),
    ("the checksums lost", sums_lost),
    ("a flipped byte in the names", flipped_names),
    ("the names lost", names_lost),
    ("a flipped byte in the configuration", flipped_configuration),
    ("the configuration lost", configuration_lost),
    ("a flipped byte in a manifest", flipped_manifest),
    ("a flipped byte in a manifest's header", flipped_manifest_header),
    ("a manifest of 0 bytes", empty_manifest),
    ("half a manifest", half_manifest),
    ("two manifests swapped", swapped_manifests),
    ("an earlier backup's manifest under this id", older_manifest),
    ("a manifest with the sizes of other packs", manifest_of_before),
    ("a manifest whose WAL begins later", manifest_with_other_wal),
    ("the parent's manifest lost", parents_manifest_lost),
    ("the parent removed", parent_removed),
    ("a manifest lost that none rests on", manifest_lost),
    ("a manifest lost, and the audit trail", manifest_and_trail_lost),
    ("a flipped byte in the audit trail", flipped_trail),
    ("a summary that says another end", lying_summary),
];

pub const PACK: &str = "data-00000.tar.zst";
pub const MANIFEST: &str = "manifest.json.zst";

/// What damage to the full backup costs: itself, the one that rests on it, and all until the next.
fn costs_both(landscape: &Landscape, objects: &[&str]) -> Expected {
    let objects: Vec<String> = objects.iter().map(|object| landscape.full.object(object)).collect();
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let Landscape { full, incremental, second, .. } = landscape;
    let damage = damage(&objects).backups(&[&full.id, &incremental.id]);
    damage.until(landscape, full, second).also(&[&incremental.id])
}

/// As above, where nothing is left that tells what the full backup was.
fn costs_what_is_known(landscape: &Landscape) -> Expected {
    let Landscape { full, incremental, second, .. } = landscape;
    let damage = damage(&[&full.object(MANIFEST), &incremental.id]).says(&[&incremental.id]);
    damage.until(landscape, incremental, second).also(&[&full.id, &incremental.id])
}

fn costs(backup: &Backup, object: &str) -> Expected {
    damage(&[&backup.object(object)]).backups(&[&backup.id])
}

pub fn flipped_pack(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_content(&landscape.full.object(PACK));
    costs_both(landscape, &[PACK])
}

fn flipped_table(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip(&landscape.full.object(PACK), |bytes| bytes.len() - 20);
    costs_both(landscape, &[PACK])
}

fn flipped_pack_header(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_header(&landscape.full.object(PACK));
    costs_both(landscape, &[PACK])
}

fn cut_pack(landscape: &Landscape, copy: &Copy, part: f64) -> Expected {
    copy.cut(&landscape.full.object(PACK), part);
    costs_both(landscape, &[PACK])
}

pub fn swapped_packs(landscape: &Landscape, copy: &Copy) -> Expected {
    let Landscape { full, .. } = landscape;
    copy.swap(&full.object(PACK), &full.object("data-00001.tar.zst"));
    costs_both(landscape, &[PACK]).and(costs_both(landscape, &["data-00001.tar.zst"]))
}

fn swapped_packs_of_two(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.swap(&landscape.full.object(PACK), &landscape.second.object(PACK));
    costs_both(landscape, &[PACK]).and(costs(&landscape.second, PACK))
}

pub fn pack_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.full.object("data-00001.tar.zst"));
    costs_both(landscape, &["data-00001.tar.zst"])
}

pub fn pack_of_incremental_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.incremental.object(PACK));
    costs(&landscape.incremental, PACK)
}

/// The seal, the sizes and the manifest agree; only the checksums of the files know.
pub fn forged_pack(landscape: &Landscape, copy: &Copy) -> Expected {
    let manifest = landscape.full.manifest(copy);
    let number = |value: &Value| value.as_u64().unwrap();
    let pack_bytes = number(&manifest["pack_bytes"]);
    let is_table = |file: &&Value| {
        let end = number(&file["offset"]) + number(&file["size"]);
        number(&file["size"]) >= 256 << 10 && end < pack_bytes
    };
    let file = manifest["files"].as_array().unwrap().iter().find(is_table).expect("a table");
    let offset = number(&file["offset"]);
    copy.forge_pack(&landscape.full.object(PACK), &(offset..offset + number(&file["size"])));
    let Landscape { full, incremental, second, .. } = landscape;
    let damage = damage(&[&full.id]).backups(&[&full.id, &incremental.id]);
    damage.until(landscape, full, second).also(&[&incremental.id])
}

fn flipped_sums(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_content(&landscape.full.object("sums.zst"));
    damage(&[&landscape.full.object("sums.zst")]).backups(&[])
}

fn sums_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.full.object("sums.zst"));
    damage(&[&landscape.full.object("sums.zst")]).backups(&[])
}

fn flipped_names(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_content(&landscape.full.object("names.json.zst"));
    damage(&[&landscape.full.object("names.json.zst")]).backups(&[]).says(&["find"])
}

fn names_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.full.object("names.json.zst"));
    damage(&[&landscape.full.object("names.json.zst")]).backups(&[]).says(&["find"])
}

fn flipped_configuration(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_content(&landscape.full.object("configuration.tar.zst"));
    damage(&[&landscape.full.object("configuration.tar.zst")]).backups(&[]).says(&["configuration"])
}

fn configuration_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.full.object("configuration.tar.zst"));
    damage(&[&landscape.full.object("configuration.tar.zst")]).backups(&[]).says(&["configuration"])
}

pub fn flipped_manifest(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_content(&landscape.full.object(MANIFEST));
    costs_both(landscape, &[MANIFEST])
}

fn flipped_manifest_header(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.flip_header(&landscape.full.object(MANIFEST));
    costs_both(landscape, &[MANIFEST])
}

fn empty_manifest(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.cut(&landscape.full.object(MANIFEST), 0.0);
    costs_both(landscape, &[MANIFEST])
}

/// The header is whole, and tells what the backup was.
fn half_manifest(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.cut(&landscape.full.object(MANIFEST), 0.5);
    costs_both(landscape, &[MANIFEST])
}

/// All of them are of no use then.
fn swapped_manifests(landscape: &Landscape, copy: &Copy) -> Expected {
    let Landscape { full, incremental, second, .. } = landscape;
    copy.swap(&full.object(MANIFEST), &second.object(MANIFEST));
    let first = damage(&[&full.object(MANIFEST)]).says(&[&full.id, "nothing can be recovered"]);
    let other = damage(&[&second.object(MANIFEST)]).says(&[&second.id]);
    first.and(other).also(&[&incremental.id])
}

fn older_manifest(landscape: &Landscape, copy: &Copy) -> Expected {
    let Landscape { full, second, .. } = landscape;
    let mut sealed = Sealed::parse(&copy.read(&full.object(MANIFEST)));
    sealed.header["name"] = json!(second.id);
    sealed.header["summary"]["id"] = json!(second.id);
    sealed.edit_json(|manifest| manifest["id"] = json!(second.id));
    copy.write(&second.object(MANIFEST), &sealed.to_bytes());
    damage(&[&second.object("")]).backups(&[&second.id])
}

fn manifest_of_before(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.reseal(&landscape.full.object(MANIFEST), |sealed| {
        sealed.edit_json(|manifest| {
            let stored = manifest["packs"][0]["stored"].as_u64().unwrap();
            manifest["packs"][0]["stored"] = json!(stored - 4096);
        });
    });
    costs_both(landscape, &[MANIFEST, PACK])
}

/// Replay from there would miss what came before: nothing but the files' own label knows.
fn manifest_with_other_wal(landscape: &Landscape, copy: &Copy) -> Expected {
    let Landscape { second, .. } = landscape;
    copy.reseal(&second.object(MANIFEST), |sealed| {
        sealed.edit_json(|manifest| manifest["start_lsn"] = manifest["end_lsn"].clone());
    });
    damage(&[&second.object("")]).backups(&[&second.id])
}

fn parents_manifest_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.full.object(MANIFEST));
    costs_both(landscape, &[MANIFEST])
}

pub fn parent_removed(landscape: &Landscape, copy: &Copy) -> Expected {
    let folder = format!("backup/{}", landscape.full.id);
    std::fs::remove_dir_all(copy.path(&folder)).unwrap();
    costs_what_is_known(landscape)
}

/// The audit trail knows that it was complete once.
fn manifest_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.second.object(MANIFEST));
    damage(&[&landscape.second.object(MANIFEST)]).says(&[&landscape.second.id])
}

/// Without the trail it cannot be told from a backup that was broken off.
fn manifest_and_trail_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    copy.remove(&landscape.second.object(MANIFEST));
    std::fs::remove_dir_all(copy.path("audit")).unwrap();
    note(&[&landscape.second.id])
}

/// Evidence is an object like any other.
fn flipped_trail(_: &Landscape, copy: &Copy) -> Expected {
    let name = copy.names("audit").remove(0);
    copy.flip(&format!("audit/{name}"), |bytes| position(bytes, b"\"walden\"").unwrap());
    damage(&["audit"]).backups(&[])
}

/// Lists believe the summary; a restore reads the manifest.
fn lying_summary(landscape: &Landscape, copy: &Copy) -> Expected {
    let Landscape { second, .. } = landscape;
    copy.rewrite_header(&second.object(MANIFEST), |header| {
        header["summary"]["ended"] = json!("2020-01-01T00:00:00Z");
    });
    damage(&[&second.object("")])
}
