//! A bucket on an S3-speaking server in this process, behind a proxy that breaks as told.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use walden::storage::s3::{self, S3};
use walden::storage::{self, Location, Options, Storage};

use crate::harness::proxy::{Fault, Proxy};

pub const ACCESS_KEY: &str = "AKIAWALDENTEST";
pub const SECRET_KEY: &str = "secret-of-the-tests";
pub const NAME: &str = "bucket";

/// Requests are signed and checked. The objects are files, so the tests act on these.
pub struct Bucket {
    /// The way in, and the place for faults.
    pub proxy: Proxy,
    root: tempfile::TempDir,
    _runtime: Runtime,
}

impl Bucket {
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(NAME)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let server = runtime.block_on(serve(service.build()));
        Bucket { proxy: Proxy::start(server), root, _runtime: runtime }
    }

    /// `s3://bucket`; add a prefix as you like.
    pub fn url(&self) -> String {
        format!("s3://{NAME}")
    }

    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    pub fn location(&self) -> Location {
        Location::parse(&self.url()).unwrap()
    }

    pub fn options(&self) -> Options {
        Options { s3: self.s3_options(), ..Options::default() }
    }

    pub fn s3_options(&self) -> s3::Options {
        s3::Options {
            endpoint: Some(self.endpoint()),
            credentials: Some(credentials()),
            ..s3::Options::default()
        }
    }

    /// As the product opens it: retries and all.
    pub fn store(&self) -> Arc<dyn Storage> {
        storage::open(&self.location(), &self.options(), None).unwrap()
    }

    /// The backend alone: each fault is seen.
    pub fn backend(&self) -> S3 {
        S3::new(NAME, None, self.s3_options(), None)
    }

    /// For a program's environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("WALDEN_REPOSITORY_URL", self.url()),
            ("WALDEN_S3_ENDPOINT", self.endpoint()),
        ]
    }

    /// The keys of all objects, sorted.
    pub fn objects(&self) -> Vec<String> {
        let folder = self.folder();
        let mut keys = Vec::new();
        collect(&folder, &folder, &mut keys);
        keys.sort();
        keys
    }

    /// Where the objects are files.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join(NAME)
    }

    pub fn read(&self, key: &str) -> Vec<u8> {
        fs::read(self.path(key)).unwrap()
    }

    /// As if somebody had deleted it.
    pub fn lose(&self, key: &str) {
        fs::remove_file(self.path(key)).unwrap();
    }

    /// One byte in the middle becomes another, as on a failing disk; the stored checksum stays.
    pub fn corrupt(&self, key: &str) {
        let mut bytes = self.read(key);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(self.path(key), bytes).unwrap();
    }

    /// As if somebody had deleted the bucket. The server would make it anew at the next PUT, which
    /// no real store does, so the proxy answers for it.
    pub fn vanish(&self) {
        fs::remove_dir_all(self.root.path().join(NAME)).unwrap();
        self.proxy.fault(None, "", Fault::error(404, "NoSuchBucket"));
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder().join(key)
    }
}

pub fn credentials() -> s3::Credentials {
    let (id, secret) = (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned());
    s3::Credentials { access_key_id: id, secret_access_key: secret }
}

async fn serve(service: S3Service) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let service = service.clone();
            // The whole request is read before it is refused; else refusing would cut the
            // connection, now and then.
            let answer = service_fn(move |request: Request<Incoming>| {
                let service = service.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                    let request = Request::from_parts(head, s3s::Body::from(body));
                    service.call(request).await.map_err(|error| format!("{error:?}"))
                }
            });
            let connection = http.serve_connection(TokioIo::new(socket), answer).into_owned();
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    address
}

fn collect(root: &Path, folder: &Path, keys: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, keys);
        } else {
            keys.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
