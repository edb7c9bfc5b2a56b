//! Coordinators that say what a test tells them to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::v1::{job_service_server::JobServiceServer, *};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};
use tonic_types::{ErrorDetails, StatusExt};

mod jobs;
pub use jobs::log;

/// The answer to the next submit.
#[derive(Clone, Copy)]
pub enum Next {
    Unavailable,
    Aborted,
    Refuse,
    Silence,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn ca(&self) -> Vec<u8> {
        self.pem.clone().into_bytes()
    }

    pub fn issue(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        self.issue_until(name, 2090)
    }

    pub fn issue_expired(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        self.issue_until(name, 2001)
    }

    fn issue_until(&self, name: &str, year: i32) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

/// What a coordinator of a test is told, and remembers.
#[derive(Default)]
pub struct Mind {
    next: VecDeque<Next>,
    first_attempt_is_read: bool,
    request_ids: Vec<String>,
}

pub struct Coordinator {
    port: u16,
    mind: Arc<Mutex<Mind>>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Coordinator {
    pub async fn start(authority: &Authority) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cert, key) = authority.issue("c1");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(cert, key))
            .client_ca_root(Certificate::from_pem(authority.ca()));
        let mind = Arc::new(Mutex::new(Mind::default()));
        let service = JobServiceServer::new(jobs::Fake { mind: mind.clone() });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Server::builder().tls_config(tls).unwrap();
        let server = tokio::spawn(async move {
            let serving = serving.serve_with_incoming(service, TcpListenerStream::new(listener));
            tokio::select! {
                served = serving => served.unwrap(),
                _ = stopped => {}
            }
        });
        Self { port, mind, stop: Some(stop), server: Some(server) }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn say(&self, next: impl IntoIterator<Item = Next>) {
        self.mind.lock().unwrap().next = next.into_iter().collect();
    }

    pub fn request_ids(&self) -> Vec<String> {
        self.mind.lock().unwrap().request_ids.clone()
    }

    /// The port is closed afterwards. Its connections live on in tasks of their own and answer no more.
    pub async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.server.take().unwrap().await.unwrap();
        self.say(std::iter::repeat_n(Next::Unavailable, 1000));
    }
}

impl Mind {
    /// What to answer to a submit.
    async fn answer(mind: &Mutex<Self>, request_id: &str) -> Result<Job, Status> {
        let next = {
            let mut mind = mind.lock().unwrap();
            mind.request_ids.push(request_id.to_owned());
            mind.next.pop_front()
        };
        match next {
            None => Ok(Job { id: 1, ..Job::default() }),
            Some(Next::Unavailable) => Err(Status::unavailable("no leader")),
            Some(Next::Aborted) => Err(Status::aborted("the leader changed")),
            Some(Next::Silence) => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(Status::unavailable("too late"))
            }
            Some(Next::Refuse) => {
                let metadata = [("hint", "choose another"), ("field", "spec.name")];
                let metadata: HashMap<String, String> =
                    metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                let details = ErrorDetails::with_error_info("BAD_NAME", "millgrid", metadata);
                Err(Status::with_error_details(Code::InvalidArgument, "the name is bad", details))
            }
        }
    }
}
