//! Whole processes beside what people use today: `make bench`, or `cargo bench --bench compare`.
//!
//! `BENCH_ONLY=push,drain` runs some parts, `BENCH_ROUNDS=5` makes them shorter. What is printed is
//! Markdown, as docs/performance.md has it.

mod setup;
mod push;
mod push_s3;
mod digest;
mod drain;
mod replay;
mod cluster;
mod window;

use setup::{interrupt, knobs};

fn main() {
    interrupt::watch();
    let parts: [(&str, fn()); 10] = [
        ("push", push::run),
        ("push-s3", push_s3::run),
        ("digest", digest::run),
        ("drain", drain::run),
        ("replay", replay::run),
        ("cluster", cluster::run),
        ("relations", cluster::run_relations),
        ("progress", cluster::run_progress),
        ("verify", cluster::run_verify),
        ("window", window::run),
    ];
    let wanted = knobs::only();
    for word in &wanted {
        assert!(parts.iter().any(|(name, _)| name == word), "BENCH_ONLY: what is {word}?");
    }
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            part();
        }
    }
}
