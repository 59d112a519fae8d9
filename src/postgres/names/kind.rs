//! What a relation is: `pg_class.relkind` in words.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelationKind {
    Table,
    Index,
    Sequence,
    Toast,
    View,
    MaterializedView,
    CompositeType,
    ForeignTable,
    PartitionedTable,
    PartitionedIndex,
    /// Of a version of PostgreSQL that knows more kinds.
    Other,
}

/// `relkind` and the word for it.
const KINDS: [(char, RelationKind, &str); 10] = [
    ('r', RelationKind::Table, "table"),
    ('i', RelationKind::Index, "index"),
    ('S', RelationKind::Sequence, "sequence"),
    ('t', RelationKind::Toast, "toast table"),
    ('v', RelationKind::View, "view"),
    ('m', RelationKind::MaterializedView, "materialized view"),
    ('c', RelationKind::CompositeType, "composite type"),
    ('f', RelationKind::ForeignTable, "foreign table"),
    ('p', RelationKind::PartitionedTable, "partitioned table"),
    ('I', RelationKind::PartitionedIndex, "partitioned index"),
];

impl RelationKind {
    /// As in `pg_class.relkind`.
    pub fn from_relkind(relkind: &str) -> Self {
        let known = KINDS.iter().find(|(letter, ..)| relkind.chars().eq([*letter]));
        known.map_or(RelationKind::Other, |(_, kind, _)| *kind)
    }

    /// As PostgreSQL's manual calls it.
    pub fn word(self) -> &'static str {
        let known = KINDS.iter().find(|(_, kind, _)| *kind == self);
        known.map_or("relation", |(.., word)| *word)
    }

    fn from_word(word: &str) -> Self {
        let known = KINDS.iter().find(|(.., known)| *known == word);
        known.map_or(RelationKind::Other, |(_, kind, _)| *kind)
    }
}

impl fmt::Display for RelationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl serde::Serialize for RelationKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> serde::Deserialize<'de> for RelationKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(RelationKind::from_word(&word))
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, RelationKind};

    #[test]
    fn every_kind_has_a_letter_and_a_word_and_new_ones_are_other() {
        for (letter, kind, word) in KINDS {
            assert_eq!(RelationKind::from_relkind(&letter.to_string()), kind);
            assert_eq!(RelationKind::from_word(word), kind);
            assert_eq!(kind.to_string(), word);
        }
        assert_eq!(RelationKind::from_relkind("g"), RelationKind::Other);
        let read: RelationKind = serde_json::from_str("\"property graph\"").unwrap();
        assert_eq!(read, RelationKind::Other);
    }
}
