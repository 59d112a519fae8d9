//! The names of what a store does, for those who count it and those who break it.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    PutNew,
    Get,
    GetRange,
    Head,
    List,
    Delete,
}

impl Verb {
    pub const ALL: [Verb; 6] =
        [Verb::PutNew, Verb::Get, Verb::GetRange, Verb::Head, Verb::List, Verb::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Verb::PutNew => "put",
            Verb::Get => "get",
            Verb::GetRange => "get range",
            Verb::Head => "head",
            Verb::List => "list",
            Verb::Delete => "delete",
        }
    }
}
