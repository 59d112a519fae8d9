//! What the tests are told in: stores, clusters, programs.

/// A store that speaks S3, in this process, with faults on demand.
pub mod bucket;
/// A second make of store, to be sure it is S3 that is spoken and not one server's dialect.
pub mod moto;
/// What stands between a program and its store, and breaks as told.
pub mod proxy;
/// A third make, built on demand, that ignores conditional requests.
#[cfg(feature = "test-stores")]
pub mod garage;
