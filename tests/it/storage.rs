//! Every store keeps the contract, and every fault of S3 has its kind.

use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use walden::error::{Error, ErrorKind};
use walden::host::clock::Deadline;
use walden::storage::s3::{ConditionalPut, Credentials, Options as S3Options, S3};
use walden::storage::{self, Body, Key, Location, Options, Storage, Verb, contract};

use crate::harness::bucket::{self, Bucket};
use crate::harness::moto::Moto;
use crate::harness::proxy::Fault;

#[test]
fn s3s_keeps_the_contract() {
    let bucket = Bucket::start();
    let count = Cell::new(0);
    contract::run_all(&|| {
        count.set(count.get() + 1);
        let prefix = format!("prefix/{}", count.get());
        Box::new(S3::new(bucket::NAME, Some(&prefix), bucket.s3_options(), None))
    });
}

#[test]
fn moto_keeps_the_contract() {
    let moto = Moto::start();
    let count = Cell::new(0);
    contract::run_all(&|| {
        count.set(count.get() + 1);
        let name = format!("bucket-{}", count.get());
        moto.create_bucket(&name);
        Box::new(S3::new(&name, None, moto.s3_options(), None))
    });
    moto.create_bucket("folders");
    contract::folders_are_no_objects(&S3::new("folders", None, moto.s3_options(), None));
}

#[test]
fn one_put_is_one_request() {
    let bucket = Bucket::start();
    let store = opened(&bucket);
    store.put_new(&key("a/b"), &Body::new("content")).unwrap();
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "PUT");
    assert!(requests[0].path.starts_with("/bucket/a/b"), "{requests:?}");
    assert_eq!(bucket.objects(), ["a/b"]);
    assert_eq!(bucket.read("a/b"), b"content");
}

#[test]
fn each_answer_has_its_kind_and_a_hint() {
    use ErrorKind::{Corrupt, Full, NotAllowed, NotFound, Throttled, Unreachable, WrongPlace};
    let bucket = Bucket::start();
    let store = plain(&bucket);
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
        for (verb, error) in all_verbs(&*store) {
            assert_eq!(error.kind(), kind, "{verb} {status} {code}: {error}");
            assert!(error.hint_text().is_some(), "{verb} {status} {code}");
            assert!(error.to_string().contains("s3://bucket"), "{error}");
        }
        bucket.proxy.heal();
    }
    // What a plain 404 means depends on what was asked for.
    bucket.proxy.fault(None, "", Fault::status(404));
    for (verb, error) in all_verbs(&*store) {
        let is_about_an_object = ["get", "get range", "head"].contains(&verb);
        let kind = if is_about_an_object { NotFound } else { WrongPlace };
        assert_eq!(error.kind(), kind, "{verb}: {error}");
    }
    bucket.proxy.heal();
    assert_eq!(store.get(&key("there")).unwrap(), "content");
}

#[test]
fn an_expired_credential_says_so() {
    let bucket = Bucket::start();
    bucket.proxy.fault(None, "", Fault::error(400, "ExpiredToken"));
    let error = opened(&bucket).put_new(&key("a"), &Body::new("x")).unwrap_err();
    assert!(error.one_line().contains("expired"), "{}", error.one_line());
    assert_eq!(bucket.proxy.requests().len(), 1, "asking again would not help");
}

#[test]
fn the_region_of_the_bucket_is_named() {
    let bucket = Bucket::start();
    let headers = vec![("x-amz-bucket-region", "eu-central-1")];
    let moved = Fault::Answer { status: 301, code: "PermanentRedirect", headers };
    bucket.proxy.fault(None, "", moved);
    let error = plain(&bucket).get(&key("a")).unwrap_err();
    assert!(error.to_string().contains("eu-central-1"), "{error}");
}

#[test]
fn retry_after_is_read_and_honoured() {
    let bucket = Bucket::start();
    let headers = vec![("retry-after", "1")];
    let slow = Fault::Answer { status: 503, code: "SlowDown", headers };
    bucket.proxy.fault_times(Some("PUT"), "", 2, slow);
    let error = plain(&bucket).put_new(&key("a"), &Body::new("x")).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    let began = Instant::now();
    opened(&bucket).put_new(&key("a"), &Body::new("x")).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(bucket.proxy.count("PUT"), 3);
}

#[test]
fn faults_that_pass_are_not_seen_above() {
    let bucket = Bucket::start();
    let store = opened(&bucket);
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
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
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
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_listening_is_unreachable_until_somebody_is() {
    let bucket = Bucket::start();
    let store = plain(&bucket);
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    bucket.proxy.refuse_connections();
    for (verb, error) in all_verbs(&*store) {
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
    let store = plain(&bucket);
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
    assert!(store.get(&key("a")).unwrap() == body.bytes);
}

#[test]
fn damage_on_the_way_and_in_the_store_is_found() {
    let bucket = Bucket::start();
    let store = plain(&bucket);
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
    let store = plain(&bucket);
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
    let store = plain(&bucket);
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
    let error = plain(&bucket).put_new(&key("a"), &Body::new("content")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(bucket.proxy.count("GET"), 0);
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_refused_by_the_store() {
    let bucket = Bucket::start();
    let mut body = Body::new("content");
    body.crc32 ^= 1;
    let error = plain(&bucket).put_new(&key("a"), &body).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_lost_answer_to_a_put_shows_our_object() {
    let bucket = Bucket::start();
    let store = plain(&bucket);
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
    opened(&bucket).put_new(&key("a"), &Body::new("content")).unwrap();
    assert_eq!((bucket.proxy.count("PUT"), bucket.objects().len()), (2, 1));
}

#[test]
fn a_vanished_bucket_is_the_wrong_place() {
    let bucket = Bucket::start();
    bucket.vanish();
    let store = plain(&bucket);
    for (verb, error) in all_verbs(&*store) {
        assert_eq!(error.kind(), ErrorKind::WrongPlace, "{verb}: {error}");
    }
    // The answer to HEAD has no body to name the reason: this is why absence is proven by reading another object.
    assert_eq!(store.head(&key("a")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_answer_to_head_is_sorted_by_its_status_alone() {
    use ErrorKind::{Full, NotAllowed, NotFound, Throttled, Unreachable, WrongPlace};
    let bucket = Bucket::start();
    let store = plain(&bucket);
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

/// Runs itself as another process, whose environment it may choose.
#[test]
fn credentials_come_from_the_environment() {
    if let Ok(endpoint) = std::env::var("WALDEN_TEST_ENDPOINT_OF_CHILD") {
        let options = S3Options { endpoint: Some(endpoint), ..S3Options::default() };
        match S3::new(bucket::NAME, None, options, None).put_new(&key("a"), &Body::new("x")) {
            Ok(()) => println!("outcome: put"),
            Err(error) => println!("outcome: {:?} {}", error.kind(), error.one_line()),
        }
        return;
    }
    let bucket = Bucket::start();
    let child = |environment: Vec<(&str, String)>| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::credentials_come_from_the_environment", "--nocapture"])
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("WALDEN_TEST_ENDPOINT_OF_CHILD", bucket.endpoint())
            .envs(environment)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = child(Vec::new());
    assert!(said.contains("outcome: NotAllowed") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    assert!(bucket.objects().is_empty());
    let said = child(bucket.environment());
    assert!(said.contains("outcome: put"), "{said}");
    assert_eq!(bucket.objects(), ["a"]);
}

#[test]
fn wrong_keys_are_not_allowed() {
    let bucket = Bucket::start();
    for (id, secret) in [(bucket::ACCESS_KEY, "wrong"), ("AKIAUNKNOWN", bucket::SECRET_KEY)] {
        let (access_key_id, secret_access_key) = (id.to_owned(), secret.to_owned());
        let credentials = Some(Credentials { access_key_id, secret_access_key });
        let options = S3Options { credentials, ..bucket.s3_options() };
        let store = S3::new(bucket::NAME, None, options, None);
        for (verb, error) in all_verbs(&store) {
            assert_eq!(error.kind(), ErrorKind::NotAllowed, "{verb}: {error}");
        }
        let shown = format!("{store:?} {:?}", bucket.s3_options());
        assert!(!shown.contains(bucket::SECRET_KEY), "secrets never print");
    }
}

#[test]
fn a_store_known_to_ignore_conditions_is_looked_at_first() {
    let moto = Moto::start();
    moto.create_bucket("bucket");
    moto.proxy.fault(Some("PUT"), "", Fault::IgnoreCondition);
    let options = S3Options { conditional_put: ConditionalPut::No, ..moto.s3_options() };
    let store = S3::new("bucket", None, options, None);
    moto.proxy.forget_requests();
    store.put_new(&key("a"), &Body::new("first")).unwrap();
    let error = store.put_new(&key("a"), &Body::new("second")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!((moto.proxy.count("HEAD"), moto.proxy.count("PUT")), (2, 1));
    assert_eq!(store.get(&key("a")).unwrap(), "first");
}

#[test]
fn a_store_that_does_not_know_conditions_says_so() {
    let bucket = Bucket::start();
    let open = |conditional_put| {
        S3::new("bucket", None, S3Options { conditional_put, ..bucket.s3_options() }, None)
    };
    let unknown = || Fault::error(501, "NotImplemented");
    bucket.proxy.fault_times(Some("PUT"), "", 1, unknown());
    let error = open(ConditionalPut::Yes).put_new(&key("a"), &Body::new("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");

    let store = open(ConditionalPut::Auto);
    bucket.proxy.fault_times(Some("PUT"), "", 1, unknown());
    store.put_new(&key("a"), &Body::new("x")).unwrap();
    store.put_new(&key("b"), &Body::new("x")).unwrap();
    assert_eq!(bucket.proxy.count("HEAD"), 2, "it is asked once");
}

#[test]
fn many_threads_share_one_store_without_waiting_for_each_other() {
    let bucket = Bucket::start();
    let store = plain(&bucket);
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    bucket.proxy.fault(Some("GET"), "", Fault::Delay(Duration::from_millis(500)));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(store.get(&key("a")).unwrap(), "content"));
        }
    });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn prefixes_keep_repositories_apart() {
    let bucket = Bucket::start();
    let open =
        |url: &str| storage::open(&Location::parse(url).unwrap(), &bucket.options(), None).unwrap();
    let (one, two) = (open("s3://bucket/one/wal"), open("s3://bucket/one/wal2/"));
    one.put_new(&key("a"), &Body::new("1")).unwrap();
    two.put_new(&key("a"), &Body::new("2")).unwrap();
    assert_eq!(
        (one.get(&key("a")).unwrap(), two.get(&key("a")).unwrap()),
        ("1".into(), "2".into())
    );
    assert_eq!(one.list(None).unwrap().objects.len(), 1);
    assert_eq!(bucket.objects(), ["one/wal/a", "one/wal2/a"]);
    bucket.lose("one/wal/a");
    assert_eq!(one.get(&key("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(two.url(), "s3://bucket/one/wal2");
}

#[test]
fn a_directory_is_opened_the_same_way_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let options = Options::default();
    let location = Location::parse(root.path().to_str().unwrap()).unwrap();
    let store = storage::open(&location, &options, None).unwrap();
    store.put_new(&key("a/b"), &Body::new("12345")).unwrap();
    store.get(&key("a/b")).unwrap();
    assert_eq!(options.tally.calls(Verb::PutNew), 1);
    assert_eq!((options.tally.bytes_stored(), options.tally.bytes_read()), (5, 5));
    assert_eq!(std::fs::read(root.path().join("a/b")).unwrap(), b"12345");
}

#[test]
fn tls_is_trusted_by_the_ca_file_and_by_nothing_else() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other_file = folder.path().join("other.pem");
    std::fs::write(&other_file, other.cert.pem()).unwrap();
    let port = tls_store_without_objects(made);
    let ask = |ca_file| {
        let endpoint = Some(format!("https://localhost:{port}"));
        let credentials = Some(bucket::credentials());
        let ca_file = Some(ca_file);
        let options = S3Options { endpoint, credentials, ca_file, ..S3Options::default() };
        S3::new("bucket", None, options, None).get(&key("a")).unwrap_err()
    };
    let error = ask(ca_file);
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = ask(other_file);
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.one_line().contains("ca_file"), "{}", error.one_line());
    let error = ask(folder.path().join("missing.pem"));
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.one_line().contains("missing.pem"), "{}", error.one_line());
}

/// Answers whoever gets through the handshake with NoSuchKey.
fn tls_store_without_objects(made: rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let secret = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], secret.unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's process: a thread waiting for connections holds nothing.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let body = "<Error><Code>NoSuchKey</Code></Error>";
                let length = body.len();
                write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{body}")
                    .ok();
                stream.flush().ok();
            }
        }
    });
    port
}

/// The backend alone: no retries.
fn plain(bucket: &Bucket) -> Box<dyn Storage> {
    Box::new(S3::new(bucket::NAME, None, bucket.s3_options(), None))
}

fn opened(bucket: &Bucket) -> Arc<dyn Storage> {
    storage::open(&bucket.location(), &bucket.options(), None).unwrap()
}

fn all_verbs(store: &dyn Storage) -> Vec<(&'static str, Error)> {
    let key = key("there");
    vec![
        ("put", store.put_new(&self::key("new"), &Body::new("x")).unwrap_err()),
        ("get", store.get(&key).unwrap_err()),
        ("get range", store.get_range(&key, 0..3).unwrap_err()),
        ("list", store.list(None).unwrap_err()),
        ("delete", store.delete(&self::key("none")).unwrap_err()),
    ]
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}
