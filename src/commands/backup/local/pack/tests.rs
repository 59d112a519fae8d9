//! Packs of a planned stream, from files that change under the plan.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::codec::{Compression, Content as Summary, Header, Kind, Origin, open};
use crate::commands::backup::halt::Halt;
use crate::commands::backup::local::frames::PackWriter;
use crate::commands::backup::local::pack::{Findings, Maker};
use crate::commands::backup::local::pages::{Damage, PageCheck, Rules};
use crate::commands::backup::local::plan::{Blocks, Content, Item, Plan};
use crate::commands::backup::local::read::Reader;
use crate::commands::backup::local::seams::Seams;
use crate::commands::progress::Progress;
use crate::host::bandwidth::Bandwidth;
use crate::postgres::page::{self, PAGE_BYTES, Page};
use crate::postgres::{Lsn, SystemIdentifier};
use crate::repository::manifest::PACK_BYTES;
use crate::repository::sums::{self, CHUNK_BYTES};

/// Where the backup ended.
const END: Lsn = Lsn(0x6000);

/// What making all packs came to.
struct Made {
    stream: Vec<u8>,
    findings: Findings,
    damage: Damage,
}

/// Packs are made last to first: none waits for another.
fn make(pgdata: &Path, plan: &Plan, start_lsn: Lsn) -> Made {
    let (halt, bandwidth) = (Halt::new(|| {}), Bandwidth::new(None));
    let progress = Progress::default();
    let reader = Reader { pgdata, bandwidth: &bandwidth, progress: &progress, halt: &halt };
    let rules = Rules { start_lsn, blocks_per_file: page::BLOCKS_PER_FILE };
    let (pages, seams) = (PageCheck::new(Some(rules)), Seams::default());
    let mut findings = Findings::default();
    findings.expect_chunks(plan.chunks());
    let maker = Maker { plan, reader: &reader, pages: &pages, seams: &seams, findings: &findings };
    let end = plan.end() + 1024;
    let mut stream = vec![0; end as usize];
    for number in (0..end.div_ceil(PACK_BYTES)).rev() {
        let range = number * PACK_BYTES..end.min((number + 1) * PACK_BYTES);
        let mut writer = PackWriter::new(Compression::default()).unwrap();
        maker.make(range.clone(), &mut writer).unwrap();
        let object = writer.take().unwrap().finish(header);
        let mut raw = Vec::new();
        let taken = open(&object[..], |piece| {
            raw.extend_from_slice(piece);
            Ok(())
        });
        taken.unwrap();
        stream[range.start as usize..range.end as usize].copy_from_slice(&raw);
    }
    Made { stream, findings, damage: pages.finish(END) }
}

fn header(content: Summary) -> Header {
    let origin = Origin {
        host: "db1".into(),
        source: "here".into(),
        system_identifier: SystemIdentifier(7),
        time: "2026-11-21T10:00:00Z".parse().unwrap(),
        version: "0".into(),
    };
    Header::new(Kind::Pack, "data-00000.tar.zst", content, origin)
}

fn item(path: &str, size: u64, content: Content) -> Item {
    let modified = 1_700_000_000;
    Item { path: path.to_owned(), mode: 0o600, modified, size, content }
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u64(..).to_le_bytes()).flatten().take(bytes).collect()
}

/// A page that was last changed at `lsn`, with its right checksum as block `block`.
fn page(lsn: u64, block: u32) -> Page {
    let mut page = [7; PAGE_BYTES];
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    let sum = page::checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

#[test]
fn files_that_grew_shrank_or_went_are_as_long_as_planned_and_all_checksums_fit() {
    let scratch = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| fs::write(scratch.path().join(path), bytes).unwrap();
    fs::create_dir(scratch.path().join("some")).unwrap();
    // Longer than a pack, so that its chunks are cut at one.
    let large = noise(40 << 20, 1);
    put("some/large", &large);
    put("some/grown", &noise(300_000, 2));
    put("some/shrunk", &noise(5_000, 3));
    let pages: Vec<u8> = (0..9).flat_map(|block| page(1, block)).collect();
    put("some/16384", &pages);
    let blocks = Blocks::new("some/16384".into(), 9, vec![(1, 2), (7, 1)]);
    let header = blocks.part.incremental_header().to_bytes();
    let size = blocks.size();
    let plan = Plan::new([
        item("some", 0, Content::Directory),
        item("some/small", 5, Content::Bytes(b"small"[..].into())),
        item("some/empty", 0, Content::Bytes([][..].into())),
        item("some/large", large.len() as u64, Content::File),
        item("some/grown", 200_000, Content::File),
        item("some/gone", 150_000, Content::File),
        item("some/shrunk", 20_000, Content::File),
        item("some/INCREMENTAL.16384", size, Content::Blocks(Box::new(blocks))),
    ]);

    let Made { stream, findings, .. } = make(scratch.path(), &plan, Lsn(0));

    let grown = fs::read(scratch.path().join("some/grown")).unwrap();
    let mut shrunk = fs::read(scratch.path().join("some/shrunk")).unwrap();
    shrunk.resize(20_000, 0);
    let in_blocks = [&header[..], &pages[8192..3 * 8192], &pages[7 * 8192..8 * 8192]].concat();
    let expected: [&[u8]; 8] =
        [b"", b"small", b"", &large, &grown[..200_000], &[0; 150_000], &shrunk, &in_blocks];
    let crcs = findings.crcs(plan.entries().len());
    let mut archive = tar::Archive::new(&stream[..]);
    let mut seen = 0;
    for (entry, (planned, expected)) in
        archive.entries().unwrap().zip(plan.entries().iter().zip(expected))
    {
        let mut entry = entry.unwrap();
        assert_eq!(entry.raw_file_position(), planned.offset);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(content == expected, "{}", planned.path);
        assert_eq!(crcs[seen], crc_fast::crc32_iscsi(expected), "{}", planned.path);
        let wanted = expected.chunks(CHUNK_BYTES).map(sums::sum).take(planned.chunks());
        assert!(findings.sums_of(planned).eq(wanted), "{}", planned.path);
        seen += 1;
    }
    assert_eq!(seen, 8);
    assert_eq!(findings.gone().into_iter().collect::<Vec<_>>(), [5]);
    assert!(stream.ends_with(&[0; 1024]));
}

#[test]
fn damage_is_what_stays_damaged_and_replay_will_not_mend() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir_all(scratch.path().join("base/5")).unwrap();
    let start = 0x5000;
    let mut pages: Vec<Page> = (0..40).map(|block| page(0x4000, block)).collect();
    pages[3][5000] ^= 1;
    pages[17][100] ^= 1;
    // Changed since: replay brings it whole.
    pages[4] = page(start, 4);
    pages[4][5000] ^= 1;
    // Rubbish, with what nobody can have written for an LSN.
    pages[6] = [0xEE; PAGE_BYTES];
    // A page that was never filled.
    pages[5] = [0; PAGE_BYTES];
    let content = pages.concat();
    fs::write(scratch.path().join("base/5/16384"), &content).unwrap();
    // Block 0 of this file is another in the relation.
    let second: Vec<u8> = page(0x4000, page::BLOCKS_PER_FILE).to_vec();
    fs::write(scratch.path().join("base/5/16384.1"), &second).unwrap();
    fs::write(scratch.path().join("base/5/notes"), &content).unwrap();
    // And so that block 17 lies in two packs.
    let filler = PACK_BYTES - 3 * 512 - 17 * PAGE_BYTES as u64;
    let file = |path: &str, size: usize| item(path, size as u64, Content::File);
    let plan = Plan::new([
        item("filler", filler, Content::File),
        file("base/5/16384", content.len()),
        file("base/5/16384.1", PAGE_BYTES),
        file("base/5/notes", content.len()),
    ]);

    let damage = make(scratch.path(), &plan, Lsn(start)).damage;

    assert_eq!(damage.count, 3);
    let found: Vec<_> = damage.pages.iter().map(|it| (it.path.as_str(), it.block)).collect();
    let relation = "base/5/16384";
    assert_eq!(found, [(relation, 3), (relation, 6), (relation, 17)]);
    assert!(damage.pages[0].what.contains("stands in it"), "{}", damage.pages[0].what);
}
