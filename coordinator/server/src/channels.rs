//! Connections to the other members, made when first used. Log, relays and snapshots have one each, so that neither
//! many bytes nor many calls delay a heartbeat.

use std::{collections::BTreeMap, time::Duration};

use proto::v1::Member;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Bytes of one message between coordinators: a client's largest, or a batch of the log, and what is around it.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// The other members, by id.
pub struct Channels {
    members: BTreeMap<u64, Lines>,
}

struct Lines {
    endpoint: Endpoint,
    relay: Channel,
}

impl Channels {
    /// Endpoints of all `members` but the one with id `me`.
    pub fn new(members: &[Member], me: u64, tls: &ClientTlsConfig) -> Result<Self, tonic::transport::Error> {
        let others = members.iter().filter(|member| member.id != me);
        let members = others
            .map(|member| {
                let endpoint = endpoint(&member.peer_address, tls)?;
                let relay = endpoint.connect_lazy();
                Ok((member.id, Lines { endpoint, relay }))
            })
            .collect::<Result<_, tonic::transport::Error>>()?;
        Ok(Self { members })
    }

    /// The connection for relayed calls, shared by all who ask.
    pub fn relay(&self, member: u64) -> Option<Channel> {
        self.members.get(&member).map(|lines| lines.relay.clone())
    }

    /// A connection of its own.
    pub fn own(&self, member: u64) -> Option<Channel> {
        self.members.get(&member).map(|lines| lines.endpoint.connect_lazy())
    }

    /// The ids of the other members.
    pub fn others(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.keys().copied()
    }
}

fn endpoint(address: &str, tls: &ClientTlsConfig) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls.clone())?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true))
}
