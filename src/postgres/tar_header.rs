//! Headers of a tar stream: ustar, as PostgreSQL's own.

use crate::error::{Error, ErrorKind, Result};

pub const BLOCK_BYTES: usize = 512;

/// What stands before one entry. A path that ends in a slash is that of a directory; `modified` is
/// in seconds since 1970.
pub fn bytes(path: &str, mode: u32, size: u64, modified: i64) -> Result<[u8; BLOCK_BYTES]> {
    let mut header = plain(path, mode, size)?;
    header.set_mtime(u64::try_from(modified).unwrap_or_default());
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Of a time that is nobody's.
pub fn plain(path: &str, mode: u32, size: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    let is_directory = path.ends_with('/');
    header.set_entry_type(if is_directory {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    set_path(&mut header, path)?;
    Ok(header)
}

/// A name too long for its field goes over into the prefix field of ustar. PostgreSQL's own names
/// are shorter than 100 bytes, so with the tablespace before them they always fit.
pub fn set_path(header: &mut tar::Header, path: &str) -> Result<()> {
    header.set_path(path).map_err(|error| {
        Error::new(ErrorKind::Refused, format!("{path:?} is too long a path for tar"))
            .hint("Is it PostgreSQL's? Move it out of the data directory.")
            .source(error)
    })?;
    header.set_cksum();
    Ok(())
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
pub fn checksum_is_right(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
    header.cksum().is_ok_and(|found| found == expected)
}
