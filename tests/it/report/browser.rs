//! A real browser without a window: chromium, given a profile of its own, time enough, and nobody
//! to talk to but us.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::Scratch;

const PATIENCE: Duration = Duration::from_secs(180);

/// What chromium left behind.
pub struct Seen {
    pub stdout: String,
    pub stderr: String,
}

impl Seen {
    /// What pages said to the console: errors, refusals by policy.
    pub fn console(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.contains(":CONSOLE")).collect()
    }
}

/// Looks at `url` by these flags, and ends.
#[track_caller]
pub fn look(url: &str, flags: &[String]) -> Seen {
    let scratch = Scratch::new();
    let (out, err) = (scratch.join("out"), scratch.join("err"));
    let mut command = Command::new(program());
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-extensions"])
        .args(["--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr"])
        // Nothing has a name but this machine.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", scratch.join("profile").display()))
        .arg(format!("--disk-cache-dir={}", scratch.join("cache").display()))
        .args(flags)
        .arg(url)
        .env("HOME", scratch.path())
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("chromium: {error}\nrun: tests/setup/packages.sh test"));
    let group = Pid::from_child(&child);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    // Its helpers are in its group, and go with it.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let seen = Seen { stdout: read(&out), stderr: read(&err) };
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{}", seen.stderr);
    seen
}

/// Where no package brings a browser, as on Ubuntu, whose chromium is a snap, what needs one is
/// passed over. On Debian it is there, or the test fails.
pub fn can_be_had() -> bool {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let can = installed().is_some() || system.lines().any(|line| line == "ID=debian");
    if !can {
        eprintln!("passed over: neither chromium nor google-chrome is on this machine");
    }
    can
}

fn program() -> &'static str {
    installed().unwrap_or("chromium")
}

/// Debian's, or the one that is on machines of CI.
fn installed() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|it| it.join(name).exists());
    ["chromium", "google-chrome"].into_iter().find(is_there)
}

/// Serves pages on this machine, and remembers what was asked for.
pub struct Pages {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    /// Each with its path, such as `/report.html`. Lasts as long as the test's process.
    pub fn serve(pages: Vec<(&'static str, String)>) -> Pages {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = asked.clone();
        let pages = Arc::new(pages);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, asked) = (pages.clone(), remembered.clone());
                thread::spawn(move || answer(stream, &pages, &asked));
            }
        });
        Pages { url, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, pages: &[(&str, String)], asked: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&piece[..length]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = pages.iter().find(|(name, _)| *name == path).map(|(_, page)| page.as_str());
    asked.lock().unwrap().push(path);
    let (status, body) = page.map_or(("404 Not Found", ""), |page| ("200 OK", page));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
