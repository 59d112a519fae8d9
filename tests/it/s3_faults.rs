//! Every fault of S3 has its kind, and none passes for an answer.

use std::time::{Duration, Instant};

use walden::error::ErrorKind;
use walden::host::clock::Deadline;
use walden::storage::s3::{Options as S3Options, S3};
use walden::storage::{self, Body, Storage};

use crate::harness::bucket::{self, Bucket};
use crate::harness::proxy::Fault;
use crate::storage::{all_verbs, key};

#[test]
fn each_answer_has_its_kind_and_a_hint() {
    use ErrorKind::{Corrupt, Full, NotAllowed, NotFound, Throttled, Unreachable, WrongPlace};
    let bucket = Bucket::start();
    let store = bucket.backend();
    store.put_new(&key("there"), &Body::new("content")).unwrap();
    for (status, code, kind) in [
        (400, "ExpiredToken", NotAllowed),
        (400, "AuthorizationHeaderMalformed", WrongPlace),
        (400, "RequestTimeout", Unreachable),
        (400, "BadDigest", Corrupt),
        (400, "XAmzContentChecksumMismatch", Corrupt),
        (400, "SomethingNew", NotAllowed),
        (401, "", NotAllowed),
        (403, "", NotAllowed),
        (403, "AccessDenied", NotAllowed),
        (403, "InvalidAccessKeyId", NotAllowed),
        (403, "SignatureDoesNotMatch", NotAllowed),
        (403, "RequestTimeTooSkewed", NotAllowed),
        (404, "NoSuchBucket", WrongPlace),
        (301, "PermanentRedirect", WrongPlace),
        (307, "TemporaryRedirect", WrongPlace),
        (409, "ConditionalRequestConflict", Unreachable),
        (429, "", Throttled),
        (500, "InternalError", Unreachable),
        (500, "", Unreachable),
        (502, "", Unreachable),
        (503, "SlowDown", Throttled),
        (503, "ServiceUnavailable", Unreachable),
        (400, "ThrottlingException", Throttled),
        (507, "XMinioStorageFull", Full),
        (507, "", Full),
        (403, "QuotaExceeded", Full),
    ] {
        bucket.proxy.fault(None, "", Fault::error(status, code));
        for (verb, error) in all_verbs(&store) {
            assert_eq!(error.kind(), kind, "{verb} {status} {code}: {error}");
            assert!(error.hint_text().is_some(), "{verb} {status} {code}");
            assert!(error.to_string().contains("s3://bucket"), "{error}");
        }
        bucket.proxy.heal();
    }
    // A plain 404 comes from anything on the way; only where a store could not say more is it
    // taken for its word.
    bucket.proxy.fault(None, "", Fault::status(404));
    for (verb, error) in all_verbs(&store) {
        let kind = match verb {
            "get" | "get start" | "get range" => Unreachable,
            "head" => NotFound,
            _ => WrongPlace,
        };
        assert_eq!(error.kind(), kind, "{verb}: {error}");
    }
    bucket.proxy.heal();
    assert_eq!(store.get(&key("there")).unwrap(), "content");
}

#[test]
fn an_expired_credential_says_so() {
    let bucket = Bucket::start();
    bucket.proxy.fault(None, "", Fault::error(400, "ExpiredToken"));
    let error = bucket.store().put_new(&key("a"), &Body::new("x")).unwrap_err();
    assert!(error.one_line().contains("expired"), "{}", error.one_line());
    assert_eq!(bucket.proxy.requests().len(), 1, "asking again would not help");
}

#[test]
fn the_region_of_the_bucket_is_named() {
    let bucket = Bucket::start();
    let headers = vec![("x-amz-bucket-region", "eu-central-1")];
    let moved = Fault::Answer { status: 301, code: "PermanentRedirect", headers };
    bucket.proxy.fault(None, "", moved);
    let error = bucket.backend().get(&key("a")).unwrap_err();
    assert!(error.to_string().contains("eu-central-1"), "{error}");
}

#[test]
fn retry_after_is_read_and_honoured() {
    let bucket = Bucket::start();
    let headers = vec![("retry-after", "1")];
    let slow = Fault::Answer { status: 503, code: "SlowDown", headers };
    bucket.proxy.fault_times(Some("PUT"), "", 2, slow);
    let error = bucket.backend().put_new(&key("a"), &Body::new("x")).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    let began = Instant::now();
    bucket.store().put_new(&key("a"), &Body::new("x")).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(bucket.proxy.count("PUT"), 3);
}

#[test]
fn faults_that_pass_are_not_seen_above() {
    let bucket = Bucket::start();
    let store = bucket.store();
    for fault in [Fault::status(500), Fault::status(503), Fault::LoseAnswer] {
        bucket.proxy.fault_times(Some("GET"), "a", 1, fault);
    }
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    assert_eq!(store.get(&key("a")).unwrap(), "content");
    assert_eq!(bucket.proxy.count("GET"), 4);
}

#[test]
fn giving_up_says_so_within_the_deadline() {
    let bucket = Bucket::start();
    bucket.proxy.fault(None, "", Fault::status(500));
    let deadline = Deadline::after(Duration::from_secs(2));
    let store = storage::open(&bucket.location(), &bucket.options(), Some(deadline)).unwrap();
    let began = Instant::now();
    let error = store.get(&key("a")).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().starts_with("gave up after "), "{error}");
}

#[test]
fn a_store_that_never_answers_is_given_up_in_time() {
    let bucket = Bucket::start();
    bucket.proxy.fault(None, "", Fault::Hang);
    let options = S3Options { request_timeout: Duration::from_millis(300), ..bucket.s3_options() };
    let store = S3::new(bucket::NAME, None, options, None);
    for (verb, error) in all_verbs(&store) {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{verb}: {error}");
        assert!(error.to_string().contains("no answer"), "{verb}: {error}");
    }
    let deadline = Some(Deadline::after(Duration::from_millis(300)));
    let store = S3::new(bucket::NAME, None, bucket.s3_options(), deadline);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(store.get(&key("a")).unwrap_err().kind(), ErrorKind::Unreachable);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn nobody_listening_is_unreachable_until_somebody_is() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    bucket.proxy.refuse_connections();
    for (verb, error) in all_verbs(&store) {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{verb}: {error}");
    }
    bucket.proxy.accept_connections();
    assert_eq!(store.get(&key("a")).unwrap(), "content");
}

#[test]
fn a_name_that_does_not_resolve_is_unreachable() {
    let bucket = Bucket::start();
    let endpoint = Some("http://no-such-host.invalid:9000".to_owned());
    let options = S3Options { endpoint, ..bucket.s3_options() };
    let error = S3::new("bucket", None, options, None).get(&key("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[test]
fn half_an_answer_is_never_taken_for_a_whole_one() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    let body = Body::new(vec![b'x'; 300_000]);
    store.put_new(&key("a"), &body).unwrap();
    for fault in [Fault::Truncate, Fault::ResetAfterHeaders, Fault::LoseAnswer] {
        bucket.proxy.fault_times(Some("GET"), "", 3, fault.clone());
        for error in [
            store.get(&key("a")).unwrap_err(),
            store.get_range(&key("a"), 10..200_000).unwrap_err(),
            store.list(None).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{fault:?}: {error}");
        }
    }
    assert!(store.get(&key("a")).unwrap() == body.to_bytes().unwrap());
}

#[test]
fn damage_on_the_way_and_in_the_store_is_found() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    store.put_new(&key("a"), &Body::new(vec![b'x'; 300_000])).unwrap();
    bucket.proxy.fault_times(Some("GET"), "", 1, Fault::FlipByte);
    let error = store.get(&key("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    store.get(&key("a")).unwrap();
    bucket.corrupt("a");
    assert_eq!(store.get(&key("a")).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_200_with_an_error_is_an_error() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    store.put_new(&key("there"), &Body::new("content")).unwrap();
    bucket.proxy.fault(Some("PUT"), "", Fault::ErrorIn200);
    let error = store.put_new(&key("new"), &Body::new("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    bucket.proxy.heal();
    bucket.proxy.fault(Some("GET"), "", Fault::ErrorIn200);
    for error in [
        store.get(&key("there")).unwrap_err(),
        store.list(None).unwrap_err(),
        store
            .put_new(&key("newer"), &Body::new("x"))
            .map_or_else(|error| error, |()| store.get_range(&key("there"), 0..3).unwrap_err()),
    ] {
        assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Corrupt), "{error}");
    }
}

#[test]
fn a_store_without_checksums_is_read_back_once() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    bucket.proxy.fault(None, "", Fault::DropChecksums);
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    assert_eq!((bucket.proxy.count("PUT"), bucket.proxy.count("GET")), (1, 1));
    assert_eq!(bucket.proxy.requests().len(), 2);

    bucket.proxy.heal();
    bucket.proxy.fault(Some("PUT"), "", Fault::DropChecksums);
    bucket.proxy.fault(Some("GET"), "", Fault::FlipByte);
    let error = store.put_new(&key("b"), &Body::new("content")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn another_checksum_than_ours_is_no_yes() {
    let bucket = Bucket::start();
    bucket.proxy.fault(Some("PUT"), "", Fault::OtherChecksum);
    let error = bucket.backend().put_new(&key("a"), &Body::new("content")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(bucket.proxy.count("GET"), 0);
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_refused_by_the_store() {
    let bucket = Bucket::start();
    let mut body = Body::new("content");
    body.crc32 ^= 1;
    let error = bucket.backend().put_new(&key("a"), &body).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_lost_answer_to_a_put_shows_our_object() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    bucket.proxy.fault_times(Some("PUT"), "", 1, Fault::LoseAnswer);
    let error = store.put_new(&key("a"), &Body::new("content")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!((bucket.proxy.count("PUT"), bucket.proxy.count("HEAD")), (1, 1));
    assert_eq!(store.get(&key("a")).unwrap(), "content");
}

#[test]
fn a_put_that_was_cut_off_is_tried_again() {
    let bucket = Bucket::start();
    bucket.proxy.fault_times(Some("PUT"), "", 1, Fault::LoseRequest);
    bucket.store().put_new(&key("a"), &Body::new("content")).unwrap();
    assert_eq!((bucket.proxy.count("PUT"), bucket.objects().len()), (2, 1));
}

#[test]
fn a_vanished_bucket_is_the_wrong_place() {
    let bucket = Bucket::start();
    bucket.vanish();
    let store = bucket.backend();
    for (verb, error) in all_verbs(&store) {
        assert_eq!(error.kind(), ErrorKind::WrongPlace, "{verb}: {error}");
    }
    // The answer to HEAD has no body to name the reason: this is why absence is proven by reading
    // another object.
    assert_eq!(store.head(&key("a")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_answer_to_head_is_sorted_by_its_status_alone() {
    use ErrorKind::{Full, NotAllowed, NotFound, Throttled, Unreachable, WrongPlace};
    let bucket = Bucket::start();
    let store = bucket.backend();
    for (status, kind) in [
        (301, WrongPlace),
        (400, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (429, Throttled),
        (500, Unreachable),
        (503, Unreachable),
        (507, Full),
    ] {
        bucket.proxy.fault(Some("HEAD"), "", Fault::status(status));
        let error = store.head(&key("a")).unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        bucket.proxy.heal();
    }
}
