//! An HTTP proxy that counts requests and breaks as told.

mod chance;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use chance::Chance;

pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    open: watch::Sender<bool>,
    _runtime: Runtime,
}

struct State {
    upstream: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    seen: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
    chance: Mutex<Chance>,
    /// Real stores create atomically. Both test servers look, then write: so one at a time.
    put_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
}

#[derive(Debug)]
struct Rule {
    method: Option<&'static str>,
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Clone)]
pub enum Fault {
    /// An error in S3's words instead of the answer; 0, "" and none where not wanted.
    Answer {
        status: u16,
        code: &'static str,
        headers: Vec<(&'static str, &'static str)>,
    },
    /// 200 at first sight, an error in the body.
    ErrorIn200,
    /// Forwarded, done, and never answered.
    LoseAnswer,
    /// The connection ends before anything is done.
    LoseRequest,
    /// Never answered at all.
    Hang,
    Delay(Duration),
    /// The connection ends after the headers of the answer.
    ResetAfterHeaders,
    /// The connection ends after half the body.
    Truncate,
    /// The middle byte of the answer's body becomes another.
    FlipByte,
    /// The middle byte of the request's body becomes another.
    FlipSent,
    /// As stores do that keep no checksums.
    DropChecksums,
    /// The store claims to have other bytes.
    OtherChecksum,
    /// As stores do that know no conditions.
    IgnoreCondition,
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Fault::Answer { status, code: "", headers: Vec::new() }
    }

    pub fn error(status: u16, code: &'static str) -> Self {
        Fault::Answer { status, code, headers: Vec::new() }
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (open, opened) = watch::channel(true);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let state = Arc::new(State {
            upstream,
            client: Client::builder(TokioExecutor::new()).build(connector),
            seen: Mutex::default(),
            rules: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            chance: Mutex::default(),
            put_turn: tokio::sync::Mutex::default(),
        });
        let address = runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(accept(listener, state.clone(), opened));
            address
        });
        Proxy { address, state, open, _runtime: runtime }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For all requests of `method` (none: any) whose path and query contain `part`, until healed.
    pub fn fault(&self, method: Option<&'static str>, part: &str, fault: Fault) {
        self.fault_times(method, part, usize::MAX, fault);
    }

    /// As `fault`, for the next `times` such requests.
    pub fn fault_times(
        &self,
        method: Option<&'static str>,
        part: &str,
        times: usize,
        fault: Fault,
    ) {
        let rule = Rule { method, part: part.to_owned(), times, fault };
        self.state.rules.lock().unwrap().push(rule);
    }

    /// One of `faults` for this share of all requests, until healed; `seed` repeats the draw.
    pub fn fault_share(&self, seed: u64, share: f64, faults: &[Fault]) {
        self.state.chance.lock().unwrap().set(seed, share, faults);
    }

    /// How many faults of each kind came by chance so far.
    pub fn faults_by_chance(&self) -> BTreeMap<String, usize> {
        self.state.chance.lock().unwrap().given()
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state.rules.lock().unwrap().clear();
        self.state.chance.lock().unwrap().end();
        self.accept_connections();
    }

    /// Nobody listens any more, and what was connected is cut off.
    pub fn refuse_connections(&self) {
        self.open.send_replace(false);
        self.wait_until(|connected| connected.is_err());
    }

    pub fn accept_connections(&self) {
        self.open.send_replace(true);
        self.wait_until(|connected| connected.is_ok());
    }

    fn wait_until(&self, reached: impl Fn(std::io::Result<std::net::TcpStream>) -> bool) {
        for _ in 0..500 {
            if reached(std::net::TcpStream::connect(self.address)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the proxy did not change its mind in 5 s");
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|seen| seen.method == method).count()
    }

    /// How many requests were under way at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    pub fn forget_requests(&self) {
        self.state.seen.lock().unwrap().clear();
        self.state.most_at_once.store(0, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, mut open: watch::Receiver<bool>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if !*open.borrow_and_update() {
            drop(listener.take());
            connections.shutdown().await;
            // Bound and not listening: connections are refused, and nobody takes the port
            // meanwhile.
            let socket = bind_again(address).await;
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            listener = Some(socket.listen(1024).unwrap());
        }
        let accepting = listener.as_ref().unwrap();
        tokio::select! {
            accepted = accepting.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                // Small answers at once, not 40 ms later.
                socket.set_nodelay(true).unwrap();
                connections.spawn(serve(socket, state.clone()));
            }
            changed = open.changed() => if changed.is_err() { return },
        }
    }
}

/// Who asks whether the port is closed may have been given that very port to ask from, and have
/// reached himself.
async fn bind_again(address: SocketAddr) -> TcpSocket {
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("somebody else has the port of the proxy");
}

async fn serve(socket: tokio::net::TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move {
            let _under_way = state.enter();
            answer(state.clone(), request).await
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(socket), service).await.ok();
}

/// An error here closes the connection without an answer.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, String> {
    let method = request.method().to_string();
    let path = request.uri().path_and_query().unwrap().to_string();
    let fault = state.fault_for(&method, &path);
    state.seen.lock().unwrap().push(Seen { method, path });
    let (mut head, body) = request.into_parts();
    let mut body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    match &fault {
        Some(Fault::LoseRequest) => return Err("lost".to_owned()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Answer { status, code, headers }) => {
            return Ok(error_answer(*status, code, headers));
        }
        Some(Fault::ErrorIn200) => return Ok(error_answer(200, "InternalError", &[])),
        Some(Fault::IgnoreCondition) => {
            head.headers.remove("if-none-match");
        }
        Some(Fault::FlipSent) => body = flipped(&body),
        _ => {}
    }
    let (head, body) = state.forward(head, body).await?;
    break_answer(fault, head, body).await
}

struct UnderWay<'a>(&'a State);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn enter(&self) -> UnderWay<'_> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        UnderWay(self)
    }

    fn fault_for(&self, method: &str, path: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let applies = |rule: &&mut Rule| {
            rule.times > 0
                && rule.method.is_none_or(|wanted| wanted == method)
                && path.contains(&rule.part)
        };
        let Some(rule) = rules.iter_mut().find(applies) else {
            return self.chance.lock().unwrap().fault(method);
        };
        rule.times = if rule.times == usize::MAX { usize::MAX } else { rule.times - 1 };
        Some(rule.fault.clone())
    }

    async fn forward(
        &self,
        mut head: hyper::http::request::Parts,
        body: Bytes,
    ) -> Result<(hyper::http::response::Parts, Bytes), String> {
        let _turn = if head.method == "PUT" { Some(self.put_turn.lock().await) } else { None };
        let path = head.uri.path_and_query().unwrap().as_str();
        head.uri = format!("http://{}{path}", self.upstream).parse().unwrap();
        let request = Request::from_parts(head, Full::new(body));
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((head, body))
    }
}

async fn break_answer(
    fault: Option<Fault>,
    mut head: hyper::http::response::Parts,
    body: Bytes,
) -> Result<Response<Body>, String> {
    let middle = body.len() / 2;
    match fault {
        Some(Fault::LoseAnswer) => Err("lost".to_owned()),
        Some(Fault::ResetAfterHeaders) => Ok(cut(head, &body, 0)),
        Some(Fault::Truncate) => Ok(cut(head, &body, middle)),
        Some(Fault::FlipByte) if !body.is_empty() => {
            Ok(Response::from_parts(head, full(flipped(&body))))
        }
        Some(Fault::DropChecksums) => {
            let names: Vec<HeaderName> = head.headers.keys().cloned().collect();
            for name in names.iter().filter(|name| name.as_str().starts_with("x-amz-checksum")) {
                head.headers.remove(name);
            }
            Ok(Response::from_parts(head, full(body)))
        }
        Some(Fault::OtherChecksum) => {
            let other = HeaderValue::from_static("AAAAAA==");
            head.headers.insert("x-amz-checksum-crc32", other);
            Ok(Response::from_parts(head, full(body)))
        }
        // The answer to HEAD names a length and has no body.
        _ if body.is_empty() => Ok(Response::from_parts(head, empty())),
        _ => Ok(Response::from_parts(head, full(body))),
    }
}

/// Nothing stays nothing.
fn flipped(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x40;
    }
    bytes.into()
}

/// The headers promise all of `body`, the connection ends after `length` bytes of it.
fn cut(mut head: hyper::http::response::Parts, body: &Bytes, length: usize) -> Response<Body> {
    head.headers.insert("content-length", body.len().into());
    let part = (length > 0).then(|| body.slice(..length));
    // Time for what was said to reach the other side.
    let pause = Box::pin(tokio::time::sleep(Duration::from_millis(50)));
    Response::from_parts(head, Cut { part, pause }.boxed())
}

struct Cut {
    part: Option<Bytes>,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if let Some(part) = self.part.take() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        self.pause.as_mut().poll(context).map(|()| Some(Err(std::io::Error::other("cut"))))
    }
}

fn error_answer(
    status: u16,
    code: &str,
    headers: &[(&'static str, &'static str)],
) -> Response<Body> {
    let body = if code.is_empty() {
        String::new()
    } else {
        let message = "as the test wants it";
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
    };
    let mut answer = Response::new(full(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/xml"));
    for (name, value) in headers {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    answer
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed()
}

/// An empty PUT without a signature; the status of its answer.
pub fn put(endpoint: &str, path: &str) -> u16 {
    use std::io::{Read, Write};
    let host = endpoint.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
