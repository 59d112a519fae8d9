//! Every store keeps the contract, whoever made it and however it is reached.

use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walden::error::{Error, ErrorKind};
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
    let store = bucket.store();
    store.put_new(&key("a/b"), &Body::new("content")).unwrap();
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "PUT");
    assert!(requests[0].path.starts_with("/bucket/a/b"), "{requests:?}");
    assert_eq!(bucket.objects(), ["a/b"]);
    assert_eq!(bucket.read("a/b"), b"content");
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
    // Two looks, and what moto does not vouch for is read back.
    assert_eq!((moto.proxy.count("GET"), moto.proxy.count("PUT")), (3, 1));
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
    assert_eq!(bucket.proxy.count("GET"), 2, "it is asked once");
}

#[test]
fn many_threads_share_one_store_without_waiting_for_each_other() {
    let bucket = Bucket::start();
    let store = bucket.backend();
    store.put_new(&key("a"), &Body::new("content")).unwrap();
    bucket.proxy.fault(Some("GET"), "", Fault::Delay(Duration::from_millis(500)));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(store.get(&key("a")).unwrap(), "content"));
        }
    });
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
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
    let (port, heard) = tls_store_without_objects(made);
    let store = |ca_file| {
        let endpoint = Some(format!("https://localhost:{port}"));
        let credentials = Some(bucket::credentials());
        let ca_file = Some(ca_file);
        let options = S3Options { endpoint, credentials, ca_file, ..S3Options::default() };
        S3::new("bucket", None, options, None)
    };
    let ask = |ca_file| store(ca_file).get(&key("a")).unwrap_err();
    let error = ask(ca_file.clone());
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    store(ca_file).put_new(&key("a"), &Body::new("content")).unwrap_err();
    let heard = heard.lock().unwrap().to_lowercase();
    assert!(
        heard.contains("x-amz-content-sha256: unsigned-payload"),
        "TLS vouches for it: {heard}"
    );
    let error = ask(other_file);
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.one_line().contains("ca_file"), "{}", error.one_line());
    let error = ask(folder.path().join("missing.pem"));
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.one_line().contains("missing.pem"), "{}", error.one_line());
}

/// Answers whoever gets through the handshake with NoSuchKey, and tells what it heard last.
fn tls_store_without_objects(
    made: rcgen::CertifiedKey<rcgen::KeyPair>,
) -> (u16, Arc<Mutex<String>>) {
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
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = heard.clone();
    // Ends with the test's process: a thread waiting for connections holds nothing.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            let mut request = [0; 4096];
            if let Ok(read @ 1..) = stream.read(&mut request) {
                *hears.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
                let body = "<Error><Code>NoSuchKey</Code></Error>";
                let length = body.len();
                write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{body}")
                    .ok();
                stream.flush().ok();
            }
        }
    });
    (port, heard)
}

pub fn all_verbs(store: &dyn Storage) -> Vec<(&'static str, Error)> {
    let key = key("there");
    vec![
        ("put", store.put_new(&self::key("new"), &Body::new("x")).unwrap_err()),
        ("get", store.get(&key).unwrap_err()),
        ("get range", store.get_range(&key, 0..3).unwrap_err()),
        ("list", store.list(None).unwrap_err()),
        ("delete", store.delete(&self::key("none")).unwrap_err()),
    ]
}

pub fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}
