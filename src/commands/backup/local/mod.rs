//! A backup of files that are read here, on the server's own host, by all cores.

mod plan;
