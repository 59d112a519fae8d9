//! What holds for any bytes: a parser never panics and never asks for memory by a length it has not
//! checked, and what was sealed opens again.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use walden::catalog::Target;
use walden::codec::{self, Compression, FrameSealer, Header, Kind, Origin, PackBuilder, Sealer};
use walden::config::{Overrides, Settings};
use walden::error::ErrorKind;
use walden::postgres::connection::ConnectionOptions;
use walden::postgres::control_file::ControlFile;
use walden::postgres::history_file::HistoryFile;
use walden::postgres::wal::SegmentCheck;
use walden::postgres::wal_file_check::WalFileCheck;
use walden::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use walden::repository::{BackupId, Manifest};
use walden::storage::{Key, Location};

use crate::harness::site;

const SEGMENT: &str = "0000000100000000000000A1";

static HEAD: LazyLock<Vec<u8>> =
    LazyLock::new(|| site::segment(SEGMENT, 1, site::SYSTEM_IDENTIFIER)[..20_000].to_vec());

fn header(content: codec::Content) -> Header {
    let origin = Origin {
        host: "host".into(),
        source: "/data".into(),
        system_identifier: SystemIdentifier(site::SYSTEM_IDENTIFIER),
        time: jiff::Timestamp::UNIX_EPOCH,
        version: "0".into(),
    };
    Header::new(Kind::Pack, "name", content, origin)
}

fn sealed(content: &[u8], pieces: usize, level: i32) -> Vec<u8> {
    let mut sealer = Sealer::new(Compression { level }, content.len() as u64).unwrap();
    content.chunks(pieces).for_each(|piece| sealer.write(piece).unwrap());
    sealer.finish(header).unwrap()
}

fn opened(object: &[u8]) -> walden::error::Result<Vec<u8>> {
    let mut content = Vec::new();
    codec::open(object, |piece| {
        content.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(content)
}

proptest! {
    #[test]
    fn what_was_sealed_opens_again_at_every_level(
        content in vec(any::<u8>(), 0..20_000),
        pieces in 1usize..5_000,
        level in -7i32..=19,
    ) {
        let object = sealed(&content, pieces, level);
        prop_assert!(codec::same_content(&object[..], &sealed(&content, 999, 1)[..]).unwrap());
        prop_assert_eq!(opened(&object).unwrap(), content);
    }

    #[test]
    fn a_pack_opens_to_its_frames(frames in vec(vec(any::<u8>(), 1..5_000), 0..20)) {
        let mut sealer = FrameSealer::new(Compression::default()).unwrap();
        let mut pack = PackBuilder::default();
        frames.iter().for_each(|frame| pack.push(sealer.seal(frame).unwrap()));
        prop_assert_eq!(opened(&pack.finish(header)).unwrap(), frames.concat());
    }

    #[test]
    fn a_damaged_object_gives_the_same_content_or_an_error(
        content in vec(any::<u8>(), 1..5_000),
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
        cut in any::<prop::sample::Index>(),
    ) {
        let good = sealed(&content, 1_000, 1);
        let mut flipped = good.clone();
        flipped[at.index(good.len())] ^= flip;
        if let Ok(found) = opened(&flipped) {
            prop_assert_eq!(&found, &content);
        }
        let error = opened(&good[..cut.index(good.len())]).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn no_object_makes_a_reader_panic(bytes in vec(any::<u8>(), 0..2_000), json in ".{0,300}") {
        let _ = opened(&bytes);
        let _ = Manifest::open(&bytes);
        let mut framed = 0x184D_2A57u32.to_le_bytes().to_vec();
        framed.extend((json.len() as u32).to_le_bytes());
        framed.extend(json.bytes());
        framed.extend(&bytes);
        prop_assert!(opened(&framed).is_err());
    }

    #[test]
    fn no_wal_makes_its_check_panic(
        bytes in vec(any::<u8>(), 0..20_000),
        pieces in 1usize..9_000,
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let name = SegmentName::parse(SEGMENT).unwrap();
        let mut check = SegmentCheck::new(name);
        let fed = bytes.chunks(pieces).all(|piece| check.write(piece).is_ok());
        prop_assert!(!fed || check.finish().is_err());

        // The head of a real segment with one byte changed: the first page is read by its own word.
        let mut real = HEAD.clone();
        real[at.index(48)] ^= flip;
        let mut check = SegmentCheck::new(name);
        let _ = real.chunks(pieces).all(|piece| check.write(piece).is_ok());
        prop_assert!(check.finish().is_err(), "it is too short");
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,200}", bytes in vec(any::<u8>(), 0..600)) {
        let timeline = TimelineId::new(9).unwrap();
        let _ = HistoryFile::parse(timeline, &text);
        let _ = ControlFile::parse(&bytes);
        let _ = text.parse::<Lsn>();
        let _ = text.parse::<SystemIdentifier>();
        let _ = text.parse::<BackupId>();
        let _ = Target::name(&text);
        let _ = Target::xid(&text);
        let _ = ConnectionOptions::from_conninfo(&text);
        let _ = Location::parse(&text);
        let mut check = WalFileCheck::new(&WalFileName::History(timeline));
        let _ = check.write(&bytes).and_then(|()| check.finish().map(|_| ()));
        let flags = Overrides { repository: Some(text), ..Overrides::default() };
        let nowhere = std::path::Path::new("/nonexistent/walden.toml");
        let _ = Settings::resolve_from(&flags, std::iter::empty(), nowhere);
    }

    #[test]
    fn a_name_that_is_read_is_written_the_same(name in "[0-9A-F]{8,24}(\\.[a-z0-9A-F.]{1,20})?") {
        if let Ok(parsed) = WalFileName::parse(&name) {
            prop_assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn no_key_climbs_out(key in "[a-z./\\\\~:%\\x00-\\x20-]{0,40}") {
        if let Ok(key) = Key::new(key) {
            let climbs = key.as_str().split('/').any(|part| part.is_empty() || part == "..");
            prop_assert!(!climbs && !key.as_str().starts_with('/'), "{key}");
        }
    }
}
