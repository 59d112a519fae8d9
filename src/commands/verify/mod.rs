//! `verify`: proves what the repository holds: every backup, every segment, their order and their content.
