//! The one integration crate: the modules in reading order.

/// Stores, clusters, programs.
mod harness;
/// Every store keeps the contract, whoever made it and however it is reached.
mod storage;
/// Every fault of S3 has its kind, and none passes for an answer.
mod s3_faults;
/// A store that ignores conditional requests; `make test-stores`.
#[cfg(feature = "test-stores")]
mod garage;
