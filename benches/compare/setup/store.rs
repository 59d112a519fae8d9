//! S3 in this process, with a way in that is as slow as told and counts requests.
//!
//! The objects lie in memory, so that the store does not use the disk whose speed is measured; its
//! CPU time (it checks signatures and checksums) is taken from the same processors, for all alike.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::scratch::{self, Scratch};

pub const BUCKET: &str = "bench";
pub const ACCESS_KEY: &str = "AKIAWALDENBENCH";
pub const SECRET_KEY: &str = "secret-of-the-benches";
pub const REGION: &str = "us-east-1";

/// How the way to the store is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Road {
    /// Added to each request.
    pub delay: Duration,
    /// Bytes a second, for all connections together, in each direction.
    pub bandwidth: Option<u64>,
}

pub struct Store {
    pub http: SocketAddr,
    /// For who speaks TLS only.
    pub https: SocketAddr,
    way: Arc<Way>,
    root: Scratch,
    _runtime: Runtime,
}

struct Way {
    service: S3Service,
    road: Mutex<Road>,
    requests: AtomicU64,
    /// When the line has sent what was handed to it: up, down.
    free: [Mutex<Instant>; 2],
}

impl Store {
    pub fn start() -> Store {
        let root = Scratch::in_memory();
        fs::create_dir(root.join(BUCKET)).expect("make the bucket");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let files = s3s_fs::FileSystem::new(root.path()).expect("serve a directory");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let now = Instant::now();
        let way = Arc::new(Way {
            service: service.build(),
            road: Mutex::default(),
            requests: AtomicU64::new(0),
            free: [Mutex::new(now), Mutex::new(now)],
        });
        let http = runtime.block_on(listen(way.clone(), None));
        let https = runtime.block_on(listen(way.clone(), Some(own_certificate())));
        Store { http, https, way, root, _runtime: runtime }
    }

    pub fn set_road(&self, road: Road) {
        *self.way.road.lock().expect("not poisoned") = road;
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// So far.
    pub fn requests(&self) -> u64 {
        self.way.requests.load(Ordering::Relaxed)
    }

    /// What lies under a prefix.
    pub fn bytes(&self, prefix: &str) -> u64 {
        scratch::bytes_below(&self.root.join(BUCKET).join(prefix))
    }
}

async fn listen(way: Arc<Way>, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Small answers at once, not 40 ms later.
            socket.set_nodelay(true).ok();
            let (way, tls) = (way.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => serve(socket, way).await,
                    Some(tls) => {
                        if let Ok(socket) = tls.accept(socket).await {
                            serve(socket, way).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, way: Arc<Way>) {
    let service = service_fn(move |request| answer(way.clone(), request));
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(socket), service).await.ok();
}

async fn answer(
    way: Arc<Way>,
    request: Request<Incoming>,
) -> Result<hyper::Response<s3s::Body>, String> {
    let road = *way.road.lock().expect("not poisoned");
    way.requests.fetch_add(1, Ordering::Relaxed);
    let (head, mut body) = request.into_parts();
    let mut content = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(bytes) = frame.into_data() else { continue };
        content.extend_from_slice(&bytes);
        way.carry(&way.free[0], bytes.len(), road).await;
    }
    tokio::time::sleep(road.delay).await;
    let request = Request::from_parts(head, s3s::Body::from(content.freeze()));
    let answer = way.service.call(request).await.map_err(|error| format!("{error:?}"))?;
    let length = answer.headers().get("content-length").and_then(|text| text.to_str().ok());
    let length = length.and_then(|text| text.parse().ok()).unwrap_or(0);
    way.carry(&way.free[1], length, road).await;
    Ok(answer)
}

impl Way {
    /// Waits until the line, which others use too, has carried these bytes.
    async fn carry(&self, free: &Mutex<Instant>, bytes: usize, road: Road) {
        let Some(bandwidth) = road.bandwidth else { return };
        let carried = {
            let mut free = free.lock().expect("not poisoned");
            let takes = Duration::from_secs_f64(bytes as f64 / bandwidth as f64);
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        tokio::time::sleep_until(carried.into()).await;
    }
}

fn own_certificate() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let made = made.expect("make a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it knows them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("its own certificate");
    TlsAcceptor::from(Arc::new(config))
}
