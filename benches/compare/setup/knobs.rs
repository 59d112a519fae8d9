//! What the environment asks for.

/// The parts to run; all where there is none.
pub fn only() -> Vec<String> {
    let words = std::env::var("BENCH_ONLY").unwrap_or_default();
    words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// How many rounds a part runs that would run `usual` ones.
pub fn rounds(usual: usize) -> usize {
    let asked = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok());
    asked.map_or(usual, |asked: usize| asked.clamp(1, usual))
}
