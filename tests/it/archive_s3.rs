//! `push` and `fetch` on S3: what each trouble with a store ends in, and what a segment costs.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::harness::moto::Moto;
use crate::harness::site::{self, SYSTEM_IDENTIFIER};
use crate::harness::{Bucket, Fault, Site};

const SEGMENT: &str = "0000000100000000000000A1";
const NEXT: &str = "0000000100000000000000A2";

fn site_on(bucket: &Bucket) -> Site {
    let mut environment = bucket.environment();
    environment.retain(|(name, _)| *name != "WALDEN_REPOSITORY_URL");
    // Short of patience, and of time to wait for a store that hangs.
    environment.push(("WALDEN_PUSH_DEADLINE", "3s".to_owned()));
    environment.push(("WALDEN_FETCH_RETRY_FOR", "1s".to_owned()));
    environment.push(("WALDEN_S3_REQUEST_TIMEOUT", "2s".to_owned()));
    Site::on(&format!("{}/pre/fix", bucket.url()), environment)
}

fn key(name: &str) -> String {
    format!("pre/fix/main/{SYSTEM_IDENTIFIER}/wal/{}/{}/{name}.zst", &name[..8], &name[..16])
}

/// A site that has pushed before, so that its place is claimed and remembered.
fn settled() -> (Bucket, Site) {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    site.segment(SEGMENT, 1);
    site.push(SEGMENT).patiently().run().succeeds().is_silent();
    (bucket, site)
}

#[test]
fn a_pushed_segment_costs_one_request() {
    let (bucket, site) = settled();
    bucket.proxy.forget_requests();
    let content = site.segment(NEXT, 2);
    site.push(NEXT).patiently().run().succeeds().is_silent();
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "PUT");

    bucket.proxy.forget_requests();
    site.fetch(NEXT).patiently().run().succeeds().is_silent();
    assert_eq!(site.fetched(), Some(content));
    assert_eq!(bucket.proxy.requests().len(), 1);
    site.push(NEXT).patiently().run().succeeds().is_silent();
}

/// Without `cluster.json` no fetch could ever say that something is absent.
#[test]
fn a_place_that_was_emptied_and_another_store_of_the_same_name_are_claimed_anew() {
    let (bucket, site) = settled();
    let proof = format!("pre/fix/main/{SYSTEM_IDENTIFIER}/cluster.json");
    bucket.lose(&proof);
    age_what_is_remembered(&site);
    site.segment(NEXT, 2);
    site.push(NEXT).patiently().run().succeeds();
    assert!(bucket.objects().contains(&proof));

    let other = Bucket::start();
    site.push(NEXT).env("WALDEN_S3_ENDPOINT", other.endpoint()).run().succeeds();
    assert!(other.objects().contains(&proof));
}

#[test]
fn each_trouble_of_push_has_its_exit_code_and_leaves_no_half_object() {
    let expired = || Fault::error(400, "ExpiredToken");
    for (what, fault, code) in [
        ("a failing store", Fault::status(500), 20),
        ("a hanging store", Fault::Hang, 20),
        ("a vanished bucket", Fault::error(404, "NoSuchBucket"), 20),
        ("an expired credential", expired(), 21),
        ("a refused credential", Fault::error(403, "AccessDenied"), 21),
        ("a store that asks for less", Fault::error(503, "SlowDown"), 22),
        ("a full store", Fault::error(507, "XMinioStorageFull"), 23),
        ("200 with an error in it", Fault::ErrorIn200, 20),
    ] {
        let (bucket, site) = settled();
        let content = site.segment(NEXT, 2);
        bucket.proxy.fault(Some("PUT"), NEXT, fault.clone());
        if what.starts_with("200") {
            // It shows where there is no checksum in the answer, so that the object is read back.
            bucket.proxy.fault(Some("GET"), NEXT, fault);
        }
        let output = site.push(NEXT).run();
        assert_eq!(output.code(), Some(code), "{what}: {output}");
        output.complains_in_one_line();
        bucket.proxy.heal();
        site.push(NEXT).patiently().run().succeeds();
        site.fetch(NEXT).patiently().run().succeeds();
        assert_eq!(site.fetched(), Some(content), "{what}");
    }
}

#[test]
fn a_store_that_cannot_be_reached_ends_at_the_deadline() {
    let (bucket, site) = settled();
    site.segment(NEXT, 2);
    bucket.proxy.refuse_connections();
    site.push(NEXT).timeout(Duration::from_secs(20)).run().exits(20).complains_in_one_line();
    bucket.proxy.accept_connections();
    site.push(NEXT).patiently().run().succeeds();
}

#[test]
fn trouble_that_passes_is_not_told() {
    for fault in [
        Fault::LoseAnswer,
        Fault::LoseRequest,
        Fault::status(500),
        Fault::error(503, "SlowDown"),
        Fault::DropChecksums,
        // What the store says it has is not what it has: looked at, it is right.
        Fault::OtherChecksum,
    ] {
        let (bucket, site) = settled();
        let content = site.segment(NEXT, 2);
        bucket.proxy.fault_times(Some("PUT"), NEXT, 1, fault.clone());
        site.push(NEXT).patiently().run().succeeds().is_silent();
        site.fetch(NEXT).patiently().run().succeeds();
        assert_eq!(site.fetched(), Some(content), "{fault:?}");
    }
}

#[test]
fn absent_is_said_only_where_the_bucket_shows_it_is_the_place() {
    let (bucket, site) = settled();
    site.fetch(NEXT).run().exits(1);
    site.fetch("00000002.history").run().exits(1);
    let proof = format!("pre/fix/main/{SYSTEM_IDENTIFIER}/cluster.json");
    for (what, part, fault) in [
        ("403", NEXT, Fault::error(403, "AccessDenied")),
        ("500", NEXT, Fault::status(500)),
        ("no bucket", NEXT, Fault::error(404, "NoSuchBucket")),
        ("403 on the proof", "cluster.json", Fault::error(403, "AccessDenied")),
        ("404 on the proof", "cluster.json", Fault::error(404, "NoSuchKey")),
        ("time-out on the proof", "cluster.json", Fault::Hang),
    ] {
        bucket.proxy.fault(None, part, fault);
        let output = site.fetch(NEXT).run();
        assert_eq!(output.code(), Some(200), "{what}: {output}");
        output.complains_in_one_line();
        bucket.proxy.heal();
    }
    bucket.lose(&proof);
    site.fetch(NEXT).run().exits(200).complains_in_one_line();
}

#[test]
fn a_fetch_gets_over_trouble_that_passes_and_never_serves_damage() {
    let (bucket, site) = settled();
    let content = site::segment(SEGMENT, 1, SYSTEM_IDENTIFIER);
    for fault in [Fault::Truncate, Fault::FlipByte, Fault::ResetAfterHeaders, Fault::status(503)] {
        bucket.proxy.fault_times(Some("GET"), SEGMENT, 1, fault.clone());
        site.fetch(SEGMENT).patiently().run().succeeds();
        assert_eq!(site.fetched().as_ref(), Some(&content), "{fault:?}");
    }
    fs::remove_file(site.pgdata().join("pg_wal/RECOVERYXLOG")).unwrap();
    bucket.corrupt(&key(SEGMENT));
    site.fetch(SEGMENT).run().exits(200).complains_in_one_line();
    assert_eq!(site.fetched(), None);
}

#[test]
fn of_eight_pushers_of_two_contents_one_content_wins() {
    let bucket = Bucket::start();
    site_on(&bucket).race(&site_on(&bucket), SEGMENT);
}

#[test]
fn a_push_killed_at_any_instant_is_completed_by_the_next() {
    let bucket = Bucket::start();
    site_on(&bucket).kill_and_repeat(20, Duration::from_millis(60));
}

#[test]
fn a_store_that_overwrites_is_found_out_once_and_then_asked_first() {
    // The condition is a signed header: only a store that checks no signatures can be made to
    // overlook it.
    let moto = Moto::start();
    moto.create_bucket("bucket");
    moto.proxy.fault(Some("PUT"), "", Fault::IgnoreCondition);
    let mut environment = Bucket::start().environment();
    environment.retain(|(name, _)| name.starts_with("AWS_"));
    environment.push(("WALDEN_S3_ENDPOINT", moto.proxy.endpoint()));
    let site = Site::on("s3://bucket", environment);
    let content = site.segment(SEGMENT, 1);
    site.push(SEGMENT).patiently().run().succeeds().stderr_has("overwrites");
    site.push(SEGMENT).patiently().run().succeeds().is_silent();
    site.segment(SEGMENT, 2);
    site.push(SEGMENT).run().exits(11).complains_in_one_line();
    site.fetch(SEGMENT).patiently().run().succeeds();
    assert_eq!(site.fetched(), Some(content));
    // That is not believed for ever: the store may have learned to refuse.
    age_what_is_remembered(&site);
    site.push(SEGMENT).run().exits(11).stderr_has("overwrites");
}

#[test]
fn another_profile_is_another_place() {
    let bucket = Bucket::start();
    let mut environment = bucket.environment();
    environment.retain(|(name, _)| name.starts_with("AWS_"));
    let site = Site::on(&bucket.url(), environment);
    site.segment(SEGMENT, 1);
    let config = site.scratch().join("aws-config");
    let endpoint = bucket.proxy.endpoint();
    let text = ["one", "two"].map(|name| format!("[profile {name}]\nendpoint_url = {endpoint}\n"));
    let claims_after_push_by = |profile: &str, text: &str| {
        fs::write(&config, text).unwrap();
        bucket.proxy.forget_requests();
        let push = site.push(SEGMENT).env("AWS_CONFIG_FILE", &config).env("AWS_PROFILE", profile);
        push.patiently().run().succeeds();
        let requests = bucket.proxy.requests();
        requests.iter().filter(|seen| seen.path.contains("cluster.json")).count()
    };
    let text = text.concat();
    assert!(claims_after_push_by("one", &text) > 0);
    assert_eq!(claims_after_push_by("one", &text), 0, "remembered");
    assert!(claims_after_push_by("two", &text) > 0, "it may name another store");
    assert!(claims_after_push_by("two", &(text + "# changed")) > 0, "so may another text");
}

/// As if nothing had been pushed here for days.
fn age_what_is_remembered(site: &Site) {
    for file in site::files_below(&site.scratch().join("state")) {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
}
