//! Garage, a store people run at home and at work; it ignores `If-None-Match`, and so keeps us
//! honest.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use walden::storage::s3;

use super::Scratch;
use super::cluster::within;

pub const BUCKET: &str = "bucket";
/// Garage wants them in this form: GK and 24 hexadecimal digits; 64 hexadecimal digits.
const ACCESS_KEY: &str = "GK31c2f218a2e44f485b94239e";
const SECRET_KEY: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";

pub struct Garage {
    process: Child,
    endpoint: String,
    // Last: the process must be gone before its directory goes.
    _scratch: Scratch,
}

impl Garage {
    /// A single node with one bucket, listening on free ports.
    pub fn start() -> Garage {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/garage.sh");
        let made = Command::new(setup).stderr(Stdio::inherit()).output().expect("run garage.sh");
        assert!(made.status.success(), "tests/setup/garage.sh failed: it needs crates.io");
        let program = String::from_utf8(made.stdout).expect("a path");
        let scratch = Scratch::new();
        let [s3, rpc] = [free_port(), free_port()];
        let configuration = scratch.join("garage.toml");
        fs::write(&configuration, configuration_text(&scratch, s3, rpc)).expect("write it");
        let log = fs::File::create(scratch.join("log")).expect("open its log");
        let process = Command::new(program.trim())
            .arg("--config")
            .arg(&configuration)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share its log"))
            .stderr(log)
            .spawn()
            .expect("start garage");
        let endpoint = format!("http://127.0.0.1:{s3}");
        let mut garage = Garage { process, endpoint, _scratch: scratch };
        garage.wait_until_it_answers();
        garage
    }

    /// Until an object can be created: the port opens before the bucket is there.
    fn wait_until_it_answers(&mut self) {
        use walden::storage::{Body, Key, Storage as _};
        let store = s3::S3::new(BUCKET, Some("ready"), self.s3_options(), None);
        let ready = Key::new("ready").expect("a key");
        let up = within(Duration::from_secs(60), || {
            store.put_new(&ready, &Body::new("x")).is_ok() || store.head(&ready).is_ok()
        });
        let log = fs::read_to_string(self._scratch.join("log")).unwrap_or_default();
        assert!(up, "garage never answered:\n{log}");
    }

    pub fn s3_options(&self) -> s3::Options {
        s3::Options {
            endpoint: Some(self.endpoint.clone()),
            credentials: Some(s3::Credentials {
                access_key_id: ACCESS_KEY.to_owned(),
                secret_access_key: SECRET_KEY.to_owned(),
            }),
            ..s3::Options::default()
        }
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("WALDEN_S3_ENDPOINT", self.endpoint.clone()),
        ]
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration_text(scratch: &Scratch, s3: u16, rpc: u16) -> String {
    let directory = scratch.path().display();
    let secret = "0123456789abcdef".repeat(4);
    format!(
        "metadata_dir = \"{directory}/meta\"\n\
         data_dir = \"{directory}/data\"\n\
         db_engine = \"sqlite\"\n\
         replication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{secret}\"\n\
         [s3_api]\n\
         s3_region = \"us-east-1\"\n\
         api_bind_addr = \"127.0.0.1:{s3}\"\n"
    )
}

/// Free a moment ago; Garage cannot be told to choose one and say which.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
