//! Names as JSON and back, relation by relation: nothing but the compact form is held whole.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::postgres::names::relations::{Builder, Row};
use crate::postgres::names::{Database, Names, Persistence, RelationKind, Relations};
use crate::postgres::{Lsn, SystemIdentifier};

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct StoredNames<D> {
    walden: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system_identifier: Option<SystemIdentifier>,
    time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lsn: Option<Lsn>,
    databases: D,
}

#[derive(Serialize, Deserialize)]
struct StoredDatabase<'s, R> {
    oid: u32,
    #[serde(borrow)]
    name: Cow<'s, str>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    unread: Option<Cow<'s, str>>,
    relations: R,
}

#[derive(Serialize, Deserialize)]
struct StoredRelation<'s> {
    oid: u32,
    #[serde(borrow)]
    schema: Cow<'s, str>,
    #[serde(borrow)]
    name: Cow<'s, str>,
    kind: RelationKind,
    #[serde(default, skip_serializing_if = "is_none")]
    number: u32,
    tablespace: u32,
    #[serde(default, skip_serializing_if = "is_none")]
    parent: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(default = "permanent", skip_serializing_if = "is_permanent")]
    persistence: Persistence,
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

fn permanent() -> Persistence {
    Persistence::Permanent
}

fn is_permanent(persistence: &Persistence) -> bool {
    *persistence == Persistence::Permanent
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Names { system_identifier, time, lsn, databases } = self;
        StoredNames {
            walden: FORMAT,
            system_identifier: *system_identifier,
            time: *time,
            lsn: *lsn,
            databases,
        }
        .serialize(serializer)
    }
}

impl Serialize for Database {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = Cow::Borrowed(&*self.name);
        let unread = self.unread.as_deref().map(Cow::Borrowed);
        StoredDatabase { oid: self.oid, name, unread, relations: &self.relations }
            .serialize(serializer)
    }
}

impl Serialize for Relations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows().map(|row| StoredRelation {
            oid: row.oid,
            schema: Cow::Borrowed(row.schema),
            name: Cow::Borrowed(row.name),
            kind: row.kind,
            number: row.number,
            tablespace: row.tablespace,
            parent: row.parent,
            rows: (row.rows >= 0.0).then_some(row.rows as u64),
            persistence: row.persistence,
        }))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredNames::<Vec<Database>>::deserialize(deserializer)?;
        if stored.walden > FORMAT {
            return Err(D::Error::custom("a format newer than this walden knows"));
        }
        let StoredNames { system_identifier, time, lsn, mut databases, .. } = stored;
        databases.sort_by_key(|database| database.oid);
        Ok(Names { system_identifier, time, lsn, databases })
    }
}

impl<'de> Deserialize<'de> for Database {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredDatabase::<Relations>::deserialize(deserializer)?;
        Ok(Database {
            oid: stored.oid,
            name: stored.name.into(),
            unread: stored.unread.map(Into::into),
            relations: stored.relations,
        })
    }
}

impl<'de> Deserialize<'de> for Relations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OneByOne)
    }
}

struct OneByOne;

impl<'de> Visitor<'de> for OneByOne {
    type Value = Relations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of relations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Relations, A::Error> {
        let mut builder = Builder::default();
        while let Some(stored) = list.next_element::<StoredRelation<'de>>()? {
            let row = Row {
                oid: stored.oid,
                schema: &stored.schema,
                name: &stored.name,
                number: stored.number,
                tablespace: stored.tablespace,
                parent: stored.parent,
                rows: stored.rows.map_or(-1.0, |rows| rows as f32),
                kind: stored.kind,
                persistence: stored.persistence,
            };
            builder.push(row).map_err(A::Error::custom)?;
        }
        builder.finish().map_err(A::Error::custom)
    }
}
