//! Stores that take long to build; `make test-stores` runs these and `make test` does not.

use std::cell::Cell;

use walden::storage::contract;
use walden::storage::s3::{ConditionalPut, Options, S3};

use crate::harness::Site;
use crate::harness::garage::{self, Garage};

#[test]
fn garage_keeps_the_contract_but_for_races() {
    let garage = Garage::start();
    let count = Cell::new(0);
    contract::run_all_but_races(&|| {
        count.set(count.get() + 1);
        let prefix = format!("prefix/{}", count.get());
        let options = Options { conditional_put: ConditionalPut::No, ..garage.s3_options() };
        Box::new(S3::new(garage::BUCKET, Some(&prefix), options, None))
    });
}

#[test]
fn garage_archives_and_gives_back_and_nothing_is_overwritten() {
    let garage = Garage::start();
    let url = format!("s3://{}/walden", garage::BUCKET);
    let site = Site::on(&url, garage.environment());
    let name = "000000010000000000000001";
    let first = site.segment(name, 1);
    site.push(name).run().succeeds().stderr_has("overwrites");
    site.push(name).run().succeeds().is_silent();
    site.segment(name, 2);
    site.push(name).run().exits(11);
    site.fetch(name).run().succeeds();
    assert_eq!(site.fetched(), Some(first));
    site.fetch("000000010000000000000002").run().exits(1);
}
