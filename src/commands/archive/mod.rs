//! `push` and `fetch`: the life of one WAL file, out and back.
