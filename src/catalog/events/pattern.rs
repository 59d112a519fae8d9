//! Names of tables with `*` and `?`, as `schema.table` or `database.schema.table`, in the case
//! PostgreSQL stores.

use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// `public.orders`, `sales.*`, `shop.public.order_??`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// Against the relation with its database, without it, and by its bare name where the pattern
    /// has no dot.
    pub fn fits(&self, database: Option<&str>, schema: &str, name: &str) -> bool {
        let two = format!("{schema}.{name}");
        let is_bare = !self.0.contains(&'.');
        self.fits_text(&two)
            || is_bare && self.fits_text(name)
            || database.is_some_and(|database| self.fits_text(&format!("{database}.{two}")))
    }

    /// Whether it may name a table of a database: `shop.*`, `shop.public.orders`, `*`.
    pub fn may_be_in(&self, database: &str) -> bool {
        let stars = self.0.iter().position(|c| *c == '.').unwrap_or(self.0.len());
        let is_whole = self.0.iter().all(|c| *c == '*');
        is_whole
            || self.0.contains(&'.') && fits(&self.0[..stars], &Vec::from_iter(database.chars()))
    }

    pub fn fits_text(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        fits(&self.0, &text)
    }
}

/// Goes back to the last `*` only, which is enough: time grows with the product of both lengths.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "an empty name of a table")
                .hint("Write schema.table or database.schema.table; * and ? stand for any."));
        }
        Ok(Pattern(text.chars().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn names_fit_with_and_without_their_database() {
        let fits = |pattern: &str| {
            pattern.parse::<Pattern>().unwrap().fits(Some("shop"), "public", "orders_2026")
        };
        for pattern in [
            "public.orders_2026",
            "shop.public.orders_2026",
            "orders_2026",
            "orders_*",
            "*.orders_????",
            "*",
            "shop.*",
            "p*c.*_2*6",
        ] {
            assert!(fits(pattern), "{pattern}");
        }
        for pattern in ["orders", "public.Orders_2026", "orders_???", "other.*", "public", "shop"] {
            assert!(!fits(pattern), "{pattern}");
        }
        assert!("".parse::<Pattern>().is_err());
    }

    #[test]
    fn a_pattern_may_mean_tables_of_one_database() {
        let may = |pattern: &str| pattern.parse::<Pattern>().unwrap().may_be_in("shop");
        assert!(may("*") && may("shop.*") && may("sh*.public.t") && may("shop.public.orders"));
        assert!(!may("orders") && !may("public.orders") && !may("other.*"));
    }

    #[test]
    fn many_stars_end_in_time() {
        let pattern: Pattern = format!("{}b", "a*".repeat(40)).parse().unwrap();
        assert!(!pattern.fits_text(&"a".repeat(4000)));
    }
}
