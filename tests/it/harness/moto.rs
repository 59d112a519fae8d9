//! moto from PyPI, a second make of S3: a process of its own, stopped with its value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use walden::storage::s3;

use crate::harness::bucket;
use crate::harness::proxy::Proxy;

/// Signatures and checksums are not checked here; buckets are made as told.
pub struct Moto {
    pub proxy: Proxy,
    process: Child,
}

impl Moto {
    pub fn start() -> Self {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/moto.sh");
        let made = Command::new(setup).stderr(Stdio::inherit()).output().unwrap();
        assert!(
            made.status.success(),
            "tests/setup/moto.sh failed: it needs python3-venv and PyPI"
        );
        let python = String::from_utf8(made.stdout).unwrap();
        let mut process = Command::new(python.trim())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            line.split_once("Running on http://")?.1.trim().parse::<SocketAddr>().ok()
        });
        // It logs each request: a pipe nobody reads would fill and stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.expect("moto says where it listens");
        Moto { proxy: Proxy::start(address), process }
    }

    pub fn create_bucket(&self, name: &str) {
        let made = crate::harness::proxy::put(&self.proxy.endpoint(), &format!("/{name}"));
        assert_eq!(made, 200, "moto makes the bucket {name}");
    }

    pub fn s3_options(&self) -> s3::Options {
        s3::Options {
            endpoint: Some(self.proxy.endpoint()),
            credentials: Some(bucket::credentials()),
            ..s3::Options::default()
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
