//! Rows of `pg_class` as they are inserted: what a relation made since the last backup is called.

use crate::postgres::wal::fields::Fields;
use crate::postgres::wal::record::{HEADER_BYTES, Record, ResourceManager};
use crate::postgres::{MajorVersion, names::RelationKind};

/// Of the resource manager Heap, without the bit that says a page was initialised.
const OPERATION_MASK: u8 = 0x70;
const INSERT: u8 = 0x00;

/// Flags of a block reference and of an image (access/xlogrecord.h).
const HAS_IMAGE: u8 = 0x10;
const IMAGE_HAS_HOLE: u8 = 0x01;
const IMAGE_IS_COMPRESSED: u8 = 0x04 | 0x08 | 0x10;

const BLOCK_BYTES: usize = 8192;
const PAGE_HEADER_BYTES: usize = 24;
const LINE_POINTER_BYTES: usize = 4;
/// `SizeofHeapTupleHeader`, and where in it the length of header and null bitmap stands.
const TUPLE_HEADER_BYTES: usize = 23;
const TUPLE_DATA_AT: usize = 22;
/// `xl_heap_header` likewise.
const SHORT_HEADER_BYTES: usize = 5;
const SHORT_DATA_AT: usize = 4;

const NAME_BYTES: usize = 64;

/// The beginning of a row (catalog/pg_class.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRow {
    pub database: u32,
    pub oid: u32,
    pub name: String,
    /// By its oid.
    pub schema: u32,
    /// 0 for what has no file, or one that is found elsewhere.
    pub file_number: u32,
    pub kind: RelationKind,
    pub is_temporary: bool,
    pub is_unlogged: bool,
}

/// The row, if the record inserts one of this relation: `pg_class` in its database. `None` too
/// where the page it went to was kept compressed.
pub fn class_row(record: &Record<'_>, pg_class: u32) -> Option<ClassRow> {
    let is_insert = record.header.resource_manager == ResourceManager::HEAP
        && record.operation() & OPERATION_MASK == INSERT;
    if !is_insert {
        return None;
    }
    let parts = record.parts().ok()?;
    let file = parts.first_file.filter(|file| file.number == pg_class)?;
    let offset = u16::from_le_bytes(*parts.main.first_chunk()?);
    let row = Kept::of(record, parts.main.len())?.row(offset)?;
    ClassRow::parse(file.database, &row, record.version)
}

/// What a record with one block keeps of it.
struct Kept<'a> {
    data: &'a [u8],
    image: Option<Image<'a>>,
}

struct Image<'a> {
    bytes: &'a [u8],
    hole_offset: usize,
    hole_bytes: usize,
}

impl<'a> Kept<'a> {
    fn of(record: &Record<'a>, main_bytes: usize) -> Option<Kept<'a>> {
        let mut fields = Fields(record.bytes.get(HEADER_BYTES..)?);
        let (_number, flags) = (fields.u8()?, fields.u8()?);
        let data_bytes = usize::from(fields.u16()?);
        let data_end = record.bytes.len().checked_sub(main_bytes)?;
        let data_at = data_end.checked_sub(data_bytes)?;
        let data = &record.bytes[data_at..data_end];
        if flags & HAS_IMAGE == 0 {
            return Some(Kept { data, image: None });
        }
        let (length, hole_offset) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
        let info = fields.u8()?;
        let bytes = record.bytes.get(data_at.checked_sub(length)?..data_at)?;
        let has_hole = info & IMAGE_HAS_HOLE != 0;
        let hole_bytes = if has_hole { BLOCK_BYTES.checked_sub(length)? } else { 0 };
        let is_plain = info & IMAGE_IS_COMPRESSED == 0;
        let image = is_plain.then_some(Image { bytes, hole_offset, hole_bytes });
        Some(Kept { data, image })
    }

    /// The row's values, without header and null bitmap.
    fn row(&self, offset: u16) -> Option<Vec<u8>> {
        if self.data.len() > SHORT_HEADER_BYTES {
            let bitmap = usize::from(self.data[SHORT_DATA_AT]).checked_sub(TUPLE_HEADER_BYTES)?;
            return Some(self.data.get(SHORT_HEADER_BYTES + bitmap..)?.to_vec());
        }
        let page = self.image.as_ref()?.page();
        let pointer = usize::from(offset).checked_sub(1)? * LINE_POINTER_BYTES;
        let pointer = page.get(PAGE_HEADER_BYTES + pointer..)?.first_chunk::<4>()?;
        let pointer = u32::from_le_bytes(*pointer);
        let (at, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
        let tuple = page.get(at..at.checked_add(length)?)?;
        let values = usize::from(*tuple.get(TUPLE_DATA_AT)?);
        Some(tuple.get(values..)?.to_vec())
    }
}

impl Image<'_> {
    fn page(&self) -> Vec<u8> {
        let before = self.hole_offset.min(self.bytes.len());
        let mut page = self.bytes[..before].to_vec();
        page.resize(before + self.hole_bytes, 0);
        page.extend_from_slice(&self.bytes[before..]);
        page
    }
}

impl ClassRow {
    fn parse(database: u32, row: &[u8], version: MajorVersion) -> Option<ClassRow> {
        let mut fields = Fields(row);
        let oid = fields.u32()?;
        let name = fields.bytes(NAME_BYTES)?;
        let length = name.iter().position(|byte| *byte == 0).filter(|length| *length > 0)?;
        let name = String::from_utf8_lossy(&name[..length]).into_owned();
        let schema = fields.u32()?;
        let _type_and_owner_and_method = fields.bytes(16)?;
        let file_number = fields.u32()?;
        // Tablespace, pages, rows, all-visible pages and, since 18, frozen ones, the toast table.
        let counts = if version >= MajorVersion(18) { 24 } else { 20 };
        fields.bytes(counts)?;
        let (_has_index, _is_shared) = (fields.u8()?, fields.u8()?);
        let (persistence, kind) = (fields.u8()?, char::from(fields.u8()?));
        let kind = RelationKind::from_relkind(kind.encode_utf8(&mut [0; 4]));
        (kind != RelationKind::Other).then_some(ClassRow {
            database,
            oid,
            name,
            schema,
            file_number,
            kind,
            is_temporary: persistence == b't',
            is_unlogged: persistence == b'u',
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ClassRow, Image, Kept};
    use crate::postgres::MajorVersion;
    use crate::postgres::names::RelationKind;

    fn row(version: u16) -> Vec<u8> {
        let mut row = 16401_u32.to_le_bytes().to_vec();
        let mut name = [0; 64];
        name[..6].copy_from_slice(b"orders");
        row.extend(name);
        for value in [2200_u32, 16403, 0, 10, 2, 16500, 0, 0, 0, 0] {
            row.extend(value.to_le_bytes());
        }
        row.extend(vec![0; if version >= 18 { 8 } else { 4 }]);
        row.extend([1, 0, b'p', b'r', 3, 0]);
        row
    }

    #[test]
    fn the_columns_are_those_of_each_version() {
        for version in 15..=18 {
            let parsed = ClassRow::parse(5, &row(version), MajorVersion(version)).unwrap();
            let expected = ClassRow {
                database: 5,
                oid: 16401,
                name: "orders".to_owned(),
                schema: 2200,
                file_number: 16500,
                kind: RelationKind::Table,
                is_temporary: false,
                is_unlogged: false,
            };
            assert_eq!(parsed, expected, "PostgreSQL {version}");
        }
        assert_eq!(ClassRow::parse(5, &row(17)[..80], MajorVersion(17)), None);
        assert_eq!(ClassRow::parse(5, &[0; 200], MajorVersion(17)), None);
    }

    #[test]
    fn the_row_is_found_in_its_data_and_in_a_page_with_a_hole() {
        // infomask2, infomask, hoff 32: a bitmap and padding of 9 bytes.
        let mut data = vec![33, 0, 1, 9, 32];
        data.extend([0xFF; 9]);
        data.extend(row(17));
        let kept = Kept { data: &data, image: None };
        assert_eq!(kept.row(1).unwrap(), row(17));

        let mut tuple = vec![0; 32];
        tuple[22] = 32;
        tuple.extend(row(17));
        let at = 8192 - tuple.len();
        let pointer = at as u32 | 1 << 15 | (tuple.len() as u32) << 17;
        let mut image = vec![0; 24];
        image.extend([0; 4]);
        image.extend(pointer.to_le_bytes());
        let hole_bytes = at - 32;
        image.extend(&tuple);
        let image = Image { bytes: &image, hole_offset: 32, hole_bytes };
        assert_eq!(image.page().len(), 8192);
        let kept = Kept { data: &[], image: Some(image) };
        assert_eq!(kept.row(2).unwrap(), row(17));
        assert_eq!(kept.row(3000), None);
    }
}
