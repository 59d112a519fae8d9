//! Tells the whole story on this machine in a temporary directory.
