//! One connection for each endpoint, made when it is needed, and which of them was good last.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Mutex;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{
    error::{Error, Trouble},
    settings::Settings,
};

/// Time to connect, TLS included. A coordinator that doesn't shake hands in this time is left for another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often, and given up when none comes in as much time
/// again: a paused coordinator costs its callers about four seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The endpoints of a grid.
pub(crate) struct Connections {
    slots: Vec<Slot>,
    good: AtomicUsize,
}

struct Slot {
    url: String,
    endpoint: Endpoint,
    channel: Mutex<Option<(u64, Channel)>>,
    generation: AtomicU64,
}

/// A connection that was alive when it was given out.
#[derive(Clone)]
pub struct Connection {
    /// Ready for any generated client.
    pub channel: Channel,
    /// URL of the coordinator behind it.
    pub endpoint: String,
    pub(crate) slot: usize,
    pub(crate) generation: u64,
}

impl Connections {
    /// Checks the settings; connects to nothing yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        if settings.endpoints.is_empty() {
            return Err(Error::Settings { field: "endpoints", problem: "none is given".to_owned() });
        }
        let slots = settings.endpoints.iter().map(|url| Slot::new(url, settings)).collect::<Result<Vec<_>, _>>()?;
        // Callers spread over the coordinators, any of which is a front.
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).expect("the operating system has randomness once it has booted");
        let good = AtomicUsize::new(u64::from_le_bytes(random) as usize % slots.len());
        Ok(Self { slots, good })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The endpoint that was good last, or whose turn it is.
    pub(crate) fn good(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// The URL of an endpoint.
    pub(crate) fn url(&self, slot: usize) -> &str {
        &self.slots[slot].url
    }

    /// A connection to an endpoint.
    pub(crate) async fn get(&self, index: usize) -> Result<Connection, Trouble> {
        let slot = &self.slots[index];
        // Held while connecting, so that a hundred callers make one connection.
        let mut channel = slot.channel.lock().await;
        let (generation, channel) = match &*channel {
            Some(open) => open.clone(),
            None => {
                let made = slot.connect().await?;
                let generation = slot.generation.fetch_add(1, Ordering::Relaxed);
                channel.insert((generation, made)).clone()
            }
        };
        Ok(Connection { channel, endpoint: slot.url.clone(), slot: index, generation })
    }

    /// The next caller goes elsewhere, if this endpoint is still the one that is tried first.
    pub(crate) fn rotate(&self, slot: usize) {
        let next = (slot + 1) % self.slots.len();
        // Another caller may have moved on already; its choice holds.
        let _ = self.good.compare_exchange(slot, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Forgets a broken connection, and rotates.
    pub(crate) async fn discard(&self, connection: &Connection) {
        let mut channel = self.slots[connection.slot].channel.lock().await;
        if channel.as_ref().is_some_and(|(generation, _)| *generation == connection.generation) {
            *channel = None;
        }
        drop(channel);
        self.rotate(connection.slot);
    }
}

impl Slot {
    fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let malformed = |problem: String| Error::Settings { field: "endpoints", problem };
        if !url.starts_with("https://") {
            return Err(malformed(format!("`{url}` is not an https URL, e.g. `https://127.0.0.1:7070`")));
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&settings.ca_pem))
            .identity(Identity::from_pem(&settings.cert_pem, &settings.key_pem))
            .timeout(CONNECT_TIMEOUT);
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| malformed(format!("`{url}` is not a URL: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(4 << 20)
            .initial_stream_window_size(1 << 20)
            .user_agent(concat!("millgrid/", env!("CARGO_PKG_VERSION")))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| {
                let problem = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
                Error::Settings { field: "cert", problem: format!("the certificates can't be used: {problem}") }
            })?;
        Ok(Self { url: url.to_owned(), endpoint, channel: Mutex::new(None), generation: AtomicU64::new(0) })
    }

    async fn connect(&self) -> Result<Channel, Trouble> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(Trouble::from_transport(&error)),
            Err(_) => Err(Trouble::Transport("no answer to a connection".to_owned())),
        }
    }
}
