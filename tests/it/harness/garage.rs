//! Garage: a store that ignores `If-None-Match`; only with the feature `test-stores`.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use walden::storage::s3;

pub const BUCKET: &str = "bucket";
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub struct Garage {
    port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Garage {
    pub fn start() -> Self {
        let program = std::env::var("WALDEN_TEST_GARAGE")
            .expect("WALDEN_TEST_GARAGE names the program that tests/setup/garage.sh printed");
        let folder = tempfile::tempdir().unwrap();
        let (port, rpc_port) = (free_port(), free_port());
        let config = folder.path().join("garage.toml");
        let root = folder.path().display();
        let text = format!(
            "metadata_dir = \"{root}/meta\"\ndata_dir = \"{root}/data\"\ndb_engine = \"sqlite\"\n\
             replication_factor = 1\nrpc_bind_addr = \"127.0.0.1:{rpc_port}\"\n\
             rpc_public_addr = \"127.0.0.1:{rpc_port}\"\nrpc_secret = \"{SECRET_KEY}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{port}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let garage = Garage { port, process, _folder: folder };
        for _ in 0..300 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return garage;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("garage does not listen after 30 s");
    }

    pub fn s3_options(&self) -> s3::Options {
        let (access_key_id, secret_access_key) = (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned());
        s3::Options {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: Some("garage".to_owned()),
            credentials: Some(s3::Credentials { access_key_id, secret_access_key }),
            ..s3::Options::default()
        }
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
