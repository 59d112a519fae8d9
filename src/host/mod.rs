//! This machine: files, clock, processes, signals.

pub mod clock;
