//! The one integration crate: the modules in reading order.

/// Stores, clusters, programs.
mod harness;
/// Every store keeps the contract, and every fault of S3 has its kind.
mod storage;
