//! This machine: files, clock, processes, signals.

pub mod clock;
pub mod privileges;
