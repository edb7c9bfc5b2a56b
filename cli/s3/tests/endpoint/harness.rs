//! An endpoint for a test: in this process, or in one that can be killed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
};
use dev_s3::serve;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const BUCKET: &str = "dev";
const ACCESS_KEY: &str = "MILLGRID";
const SECRET_KEY: &str = "a secret of the tests";
const ROOT_VARIABLE: &str = "DEV_S3_TEST_ROOT";

/// A served folder that vanishes with this.
pub struct Endpoint {
    pub client: Client,
    pub address: SocketAddr,
    root: TempDir,
}

impl Endpoint {
    pub async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let path = root.path().to_owned();
        std::fs::create_dir(path.join(BUCKET)).unwrap();
        tokio::spawn(async move { serve(listener, path, credentials(), std::future::pending()).await.unwrap() });
        Self { client: client(address, SECRET_KEY), address, root }
    }

    pub fn client_with_another_secret(&self) -> Client {
        client(self.address, "another secret")
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn file(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }
}

/// A process that serves a folder until it is killed.
pub struct Victim {
    process: Child,
    pub client: Client,
}

impl Victim {
    pub fn start(root: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve_until_killed", "--ignored", "--nocapture"])
            .env(ROOT_VARIABLE, root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.split("serving ").nth(1)?.parse().ok());
        Self { process, client: client(address.unwrap(), SECRET_KEY) }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What the victim does.
pub async fn serve_root_of_parent() {
    // Whoever asks for ignored tests by hand is no parent.
    let Some(root) = std::env::var_os(ROOT_VARIABLE).map(PathBuf::from) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("serving {}", listener.local_addr().unwrap());
    serve(listener, root, credentials(), std::future::pending()).await.unwrap();
}

fn credentials() -> dev_s3::Credentials {
    dev_s3::Credentials { access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into() }
}

fn client(address: SocketAddr, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("http://{address}"))
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true);
    Client::from_conf(config.build())
}
