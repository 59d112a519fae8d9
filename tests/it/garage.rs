//! Garage keeps the contract, but for races: it ignores `If-None-Match`, and is found out.

use std::cell::Cell;
use std::time::Duration;

use walden::storage::s3::{ConditionalPut, Options, S3};
use walden::storage::{self, Body, Key, Storage, contract};

use crate::harness::garage::{BUCKET, Garage};

#[test]
fn garage_is_found_out_and_keeps_the_contract_where_nobody_races() {
    let garage = Garage::start();
    let open = |prefix: &str, conditional_put| {
        let options = Options { conditional_put, ..garage.s3_options() };
        S3::new(BUCKET, Some(prefix), options, None)
    };
    let store = open("probe", ConditionalPut::Auto);
    wait_for_bucket(&store);
    let key = Key::new("probe").unwrap();
    assert!(!storage::probe_conditional_put(&store, &key).unwrap());
    let count = Cell::new(0);
    contract::run_where_nobody_races(&|| {
        count.set(count.get() + 1);
        Box::new(open(&count.get().to_string(), ConditionalPut::No))
    });
    contract::folders_are_no_objects(&open("folders", ConditionalPut::No));
}

/// The default bucket is made a moment after the port is open.
fn wait_for_bucket(store: &S3) {
    for number in 0..100 {
        let key = Key::new(format!("wait-{number}")).unwrap();
        if store.put_new(&key, &Body::new("x")).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("garage has no bucket after 20 s");
}
