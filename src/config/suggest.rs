//! "Did you mean": the known name nearest to a mistyped one.

/// The candidate that differs in a few letters, or else ends in the same last part.
pub fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    let by_distance = known
        .iter()
        .map(|name| (distance(&wrong, &name.to_ascii_lowercase()), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.len() / 4).clamp(1, 3));
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let by_last_part = || known.iter().copied().find(|name| last(name) == last(&wrong));
    by_distance.map(|(_, name)| name).or_else(by_last_part)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use crate::config::suggest::{distance, nearest};

    #[test]
    fn letters_are_counted() {
        assert_eq!(distance("level", "level"), 0);
        assert_eq!(distance("lvel", "level"), 1);
        assert_eq!(distance("elvel", "level"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["cluster", "pgdata", "compression.level", "push.deadline"];
        assert_eq!(nearest("clutser", &known), Some("cluster"));
        assert_eq!(nearest("compresion.level", &known), Some("compression.level"));
        assert_eq!(nearest("level", &known), Some("compression.level"));
        assert_eq!(nearest("fetch.deadline", &known), Some("push.deadline"));
        assert_eq!(nearest("bananas", &known), None);
    }
}
