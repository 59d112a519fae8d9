//! A page of a relation's file: its LSN, whether it was ever filled, and its checksum.
//!
//! Layout: `PageHeaderData` in bufpage.h. Checksum: `pg_checksum_page` in checksum_impl.h, a
//! variant of FNV-1a over 32 sums side by side.

use std::fmt;

use crate::postgres::Lsn;

pub const PAGE_BYTES: usize = 8192;
/// Blocks in each file of a relation but the last (1 GiB).
pub const BLOCKS_PER_FILE: u32 = 131_072;

const CHECKSUM_AT: usize = 8;
const UPPER_AT: usize = 14;

const SUMS: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
const INITIAL_SUMS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

pub type Page = [u8; PAGE_BYTES];

/// A page that does not have the checksum that stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    pub stored: u16,
    pub computed: u16,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checksum {:04X} stands in it, {:04X} is that of its content",
            self.stored, self.computed
        )
    }
}

/// Whether the page is what its checksum is of. `block` is its number in the whole relation: those
/// of the files before count too (`BLOCKS_PER_FILE` each). A page of zeros has no checksum and is
/// right (`PageIsVerified` in bufpage.c).
pub fn check(page: &Page, block: u32) -> Result<(), Mismatch> {
    let stored = u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]]);
    let computed = checksum(page, block);
    if stored == computed || (is_new(page) && page.iter().all(|byte| *byte == 0)) {
        return Ok(());
    }
    Err(Mismatch { stored, computed })
}

/// After the last WAL record that changed the page; 0 in a new page.
pub fn lsn(page: &Page) -> Lsn {
    let half = |at: usize| {
        u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]))
    };
    Lsn(half(0) << 32 | half(4))
}

/// A page that nothing was ever put on (`PageIsNew`): its file was extended, no more.
pub fn is_new(page: &Page) -> bool {
    page[UPPER_AT] == 0 && page[UPPER_AT + 1] == 0
}

/// From 1 to 65535. What stands in the page's own field of it does not count.
pub fn checksum(page: &Page, block: u32) -> u16 {
    // Arrays of fixed length throughout: so the compiler works on many sums with one instruction.
    let mut sums = INITIAL_SUMS;
    let (rows, _) = page.as_chunks::<{ 4 * SUMS }>();
    for (number, row) in rows.iter().enumerate() {
        let (row, _) = row.as_chunks::<4>();
        let mut words = [0; SUMS];
        for (word, bytes) in words.iter_mut().zip(row) {
            *word = u32::from_le_bytes(*bytes);
        }
        if number == 0 {
            words[CHECKSUM_AT / 4] &= 0xFFFF_0000;
        }
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = mixed(*sum, word);
        }
    }
    for _ in 0..2 {
        sums = sums.map(|sum| mixed(sum, 0));
    }
    let folded = sums.iter().fold(block, |folded, sum| folded ^ sum);
    (folded % 65_535 + 1) as u16
}

#[inline(always)]
fn mixed(sum: u32, word: u32) -> u32 {
    let both = sum ^ word;
    both.wrapping_mul(FNV_PRIME) ^ (both >> 17)
}

#[cfg(test)]
mod tests {
    use super::{Mismatch, PAGE_BYTES, Page, check, checksum, is_new, lsn};
    use crate::postgres::Lsn;

    fn page(words: &[(usize, u32)]) -> Page {
        let mut page = [0; PAGE_BYTES];
        for (at, word) in words {
            page[*at..*at + 4].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    /// Three leaves of indexes of the catalog, block 1 of each, as a server of version 17 with
    /// checksums wrote them.
    fn written() -> [Page; 3] {
        [
            page(&[
                (4, 0x0054_f0e0),
                (8, 0x95ba),
                (12, 0x1fe0_001c),
                (16, 0x2004_1ff0),
                (24, 0x0020_9fe0),
                (8164, 0x0010_0001),
                (8168, 0x34ac),
                (8188, 3),
            ]),
            page(&[
                (4, 0x0054_f180),
                (8, 0x3da4),
                (12, 0x1fe0_001c),
                (16, 0x2004_1ff0),
                (24, 0x0020_9fe0),
                (8164, 0x4010_0001),
                (8168, 0x6770_6c70),
                (8172, 0x006c_7173),
                (8188, 3),
            ]),
            page(&[
                (4, 0x0011_7f88),
                (8, 0x0a98),
                (12, 0x1fe0_001c),
                (16, 0x2004_1ff0),
                (24, 0x0020_9fe0),
                (28, 0x0020_9fe0),
                (8164, 0x0010_0001),
                (8168, 0x0e8a),
                (8188, 3),
            ]),
        ]
    }

    #[test]
    fn what_a_server_wrote_is_right_in_its_place_only() {
        for page in written() {
            assert_eq!(check(&page, 1), Ok(()));
            assert!(check(&page, 2).is_err());
            assert!(check(&page, 131_073).is_err());
        }
        assert_eq!(lsn(&written()[0]), Lsn(0x54_f0e0));
        assert!(!is_new(&written()[0]));
    }

    #[test]
    fn every_byte_but_those_of_the_checksum_counts() {
        let good = written()[0];
        for at in 0..PAGE_BYTES {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(check(&bad, 1).is_err(), "byte {at}");
            assert_eq!(checksum(&bad, 1) == 0x95ba, at == 8 || at == 9, "byte {at}");
        }
        let mut bad = good;
        bad[8] ^= 1;
        assert_eq!(check(&bad, 1), Err(Mismatch { stored: 0x95bb, computed: 0x95ba }));
    }

    #[test]
    fn a_page_of_zeros_is_new_and_right_and_one_with_a_stray_byte_is_not_right() {
        let mut zeros = [0; PAGE_BYTES];
        assert!(is_new(&zeros));
        assert_eq!(check(&zeros, 7), Ok(()));
        assert_eq!(lsn(&zeros), Lsn(0));
        zeros[5000] = 1;
        assert!(is_new(&zeros));
        assert!(check(&zeros, 7).is_err());
    }

    #[test]
    fn the_lsn_has_its_high_half_first() {
        assert_eq!(lsn(&page(&[(0, 0x16), (4, 0xB374_D848)])), Lsn(0x16_B374_D848));
    }
}
