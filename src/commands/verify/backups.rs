//! One backup, looked at without reading its packs: its manifest, what lies beside it, and whether
//! every pack is the one that the manifest means.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::verify::in_order::{Pace, in_order};
use crate::commands::verify::problem::{Cost, Notebook, Problem, is_of_the_object};
use crate::error::{Error, ErrorKind};
use crate::repository::{
    BackupFacts, BackupId, Home, Kept, Manifest, Object, PackReader, Sums, layout,
};

/// More of the same in one backup are told of together.
const TOLD_MAX: usize = 20;
/// How many packs are asked for their headers at once.
const AT_ONCE: usize = 16;

/// All that the store lists of one backup.
#[derive(Debug, Default)]
pub struct Folder<'a> {
    pub packs: BTreeMap<u32, &'a Object>,
    pub has_manifest: bool,
    pub has_names: bool,
    pub has_sums: bool,
    pub bytes: u64,
}

/// What is known of a backup now.
pub struct Looked {
    /// As its header or its manifest has them; `None`: neither can be read.
    pub facts: Option<BackupFacts>,
    pub manifest: Option<Manifest>,
    pub sums: Option<Sums>,
}

/// By their ids.
pub fn folders(objects: &[Object]) -> BTreeMap<BackupId, Folder<'_>> {
    let mut folders: BTreeMap<BackupId, Folder<'_>> = BTreeMap::new();
    for object in objects {
        let Some(id) = object.kept.backup() else { continue };
        let folder = folders.entry(id.clone()).or_default();
        folder.bytes += object.size;
        match object.kept {
            Kept::Pack(_, number) => {
                folder.packs.insert(number, object);
            }
            Kept::Manifest(_) => folder.has_manifest = true,
            Kept::Names(_) => folder.has_names = true,
            Kept::Sums(_) => folder.has_sums = true,
            _ => {}
        }
    }
    folders
}

/// `deep`: the packs that will be read whole anyway.
pub fn look(
    home: &Home,
    id: &BackupId,
    folder: &Folder<'_>,
    deep: &BTreeSet<u32>,
    book: &mut Notebook,
) -> Looked {
    let key = home.manifest_key(id);
    let cost = || Cost::Backup(id.clone());
    let in_header = home.backup_facts(id);
    let manifest = match home.manifest(id) {
        Ok(manifest) => manifest,
        Err(error) => {
            book.failed(&key, &error, cost());
            return Looked { facts: in_header.ok(), manifest: None, sums: None };
        }
    };
    let facts = manifest.facts();
    match in_header {
        Ok(said) if said == facts => {}
        Ok(_) => {
            let what = "its header says other than its content, and no restore would trust it";
            book.damage(&key, what, cost());
        }
        Err(error) => book.failed(&key, &error, cost()),
    }
    let sums = beside(home, &manifest, folder, book);
    packs(home, &manifest, folder, deep, book);
    Looked { facts: Some(facts), manifest: Some(manifest), sums }
}

/// What a backup can be restored without.
fn beside(
    home: &Home,
    manifest: &Manifest,
    folder: &Folder<'_>,
    book: &mut Notebook,
) -> Option<Sums> {
    let id = &manifest.id;
    let missing = || Error::new(ErrorKind::NotFound, "it is missing");
    let names = match folder.has_names || manifest.names {
        true => home.names(id).and_then(|names| names.map(drop).ok_or_else(missing)),
        false => Ok(()),
    };
    if let Err(error) = names {
        let cost = "walden find cannot say what tables were called when this backup was taken";
        book.failed(home.names_key(id), &error, Cost::Said(cost.to_owned()));
    }
    if let Err(error) = home.configuration(manifest) {
        let cost = "the configuration files of this backup, which lie outside of the data \
                    directory, cannot be restored; the data can";
        book.failed(home.configuration_key(id), &error, Cost::Said(cost.to_owned()));
    }
    let sums = home.sums(manifest).and_then(|sums| match (sums, manifest.chunk_bytes) {
        (None, Some(_)) => Err(missing()),
        (sums, _) => Ok(sums),
    });
    sums.unwrap_or_else(|error| {
        let cost = "a restore into a directory that is there already cannot tell from this backup \
                    what has changed; into a new one it works";
        book.failed(home.sums_key(id), &error, Cost::Said(cost.to_owned()));
        None
    })
}

fn packs(
    home: &Home,
    manifest: &Manifest,
    folder: &Folder<'_>,
    deep: &BTreeSet<u32>,
    book: &mut Notebook,
) {
    let id = &manifest.id;
    let cost = || Cost::Backup(id.clone());
    let mut wrong: Vec<(u32, String)> = Vec::new();
    let mut to_ask: Vec<u32> = Vec::new();
    for (number, pack) in (0..).zip(&manifest.packs) {
        match folder.packs.get(&number) {
            None => wrong.push((number, "it is missing".to_owned())),
            Some(there) if there.size != pack.stored => {
                let (has, expected) = (there.size, pack.stored);
                let what = format!("it has {has} bytes, where its manifest says {expected}");
                wrong.push((number, what));
            }
            Some(_) if deep.contains(&number) => {}
            Some(_) => to_ask.push(number),
        }
    }
    let ask = |number: &u32| {
        let reader = PackReader::new(home);
        (*number, reader.and_then(|reader| reader.expect_header(manifest, *number)))
    };
    let mut unchecked = Vec::new();
    in_order(&to_ask, Pace { jobs: AT_ONCE, ahead: 4 * AT_ONCE }, ask, |(number, outcome)| {
        match outcome {
            Ok(()) => {}
            Err(error) if is_of_the_object(error.kind()) => wrong.push((number, error.to_string())),
            Err(error) => unchecked.push((number, error.to_string())),
        }
    });
    for (number, why) in limited(unchecked) {
        book.skip(home.pack_key(id, number), why);
    }
    for (number, what) in limited(wrong) {
        book.damage(home.pack_key(id, number), what, cost());
    }
    let extra: Vec<&Object> =
        folder.packs.range(manifest.packs.len() as u32..).map(|(_, object)| *object).collect();
    if let Some(first) = extra.first() {
        let bytes: u64 = extra.iter().map(|object| object.size).sum();
        let what =
            format!("{} of {bytes} bytes that its manifest does not name", packs_word(extra.len()));
        book.problems.push(
            Problem::note(home.key_of(&first.kept), what, "none: nobody reads it, it takes room")
                .advise("It may be removed."),
        );
    }
}

fn limited(mut all: Vec<(u32, String)>) -> Vec<(u32, String)> {
    all.sort();
    let more = all.len().saturating_sub(TOLD_MAX);
    all.truncate(TOLD_MAX);
    if let Some((_, what)) = all.last_mut().filter(|_| more > 0) {
        *what = format!("{what}; so it is with {more} more packs");
    }
    all
}

fn packs_word(number: usize) -> String {
    if number == 1 { "one pack".to_owned() } else { format!("{number} packs") }
}

/// Packs of a backup that has no manifest: it was stopped, or is being taken now.
pub fn without_manifest(
    home: &Home,
    id: &BackupId,
    folder: &Folder<'_>,
    was_published: bool,
    book: &mut Notebook,
) {
    let key = home.manifest_key(id);
    if was_published {
        let what = "it is missing, and the audit trail says that this backup was complete";
        return book.damage(&key, what, Cost::Backup(id.clone()));
    }
    let objects = packs_word(folder.packs.len());
    let what = format!(
        "{objects} and no manifest, {} bytes: a backup that was stopped, or is being taken now",
        folder.bytes
    );
    let cost = "none: without its manifest it is no backup, and takes room";
    let advice = format!(
        "If no backup is running, the folder may be removed. If this one was complete once, bring \
         back {} from a copy of the repository.",
        layout::manifest_name()
    );
    book.problems.push(Problem::note(home.backup_key(id), what, cost).advise(advice));
}
