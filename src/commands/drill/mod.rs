//! `drill`: a rehearsed recovery: into a private place, asked questions, measured, written down, cleaned up.
