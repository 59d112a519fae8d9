//! Columns for people: as wide as their widest word.

/// Numbers stand to the right, words to the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table as text; a word missing at the end of a row is an empty one.
pub fn table(heads: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let words = rows.iter().filter_map(|row| row.get(at)).map(String::as_str);
        let width = |word: &str| word.chars().count();
        words.chain([heads[at].0]).map(width).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |words: &dyn Fn(usize) -> String| {
        let cells = heads.iter().zip(&widths).enumerate().map(|(at, ((_, align), width))| {
            let word = words(at);
            match align {
                Align::Left => format!("{word:<width$}"),
                Align::Right => format!("{word:>width$}"),
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&|at| heads[at].0.to_owned());
    for row in rows {
        text += &line(&|at| row.get(at).cloned().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, table};

    #[test]
    fn columns_are_as_wide_as_their_widest_word() {
        let heads = [("NAME", Align::Left), ("SIZE", Align::Right), ("WHY", Align::Left)];
        let row = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let rows = [row(&["größer", "1"]), row(&["a", "12345", "so"])];
        assert_eq!(
            table(&heads, &rows),
            "NAME     SIZE  WHY\n\
             größer      1\n\
             a       12345  so\n"
        );
    }
}
