//! Places a backup and writes the recovery settings for a target.
