//! `millgrid cluster`

use std::{path::PathBuf, time::Duration};

use proto::v1::{
    BootstrapRequest, GetClusterStatusRequest, GetHistoryRequest, GetMemberRequest, Member, SetHistoryRequest,
    TransferLeaderRequest,
};
use serde::Serialize;

use crate::{
    failure::Failure,
    globals::Format,
    grammar::numbers,
    identity::{self, Role},
    output,
    scope::Scope,
    submission::build::proto_duration,
    view::{cluster::Status, history::History},
};

const HISTORY: &str = "Show, or set, how long ended jobs stay at hand before they move to the history.

What has moved is found as before, by ls, show, logs, explain, wait and --after; but it can't be retried any more.";

/// Arguments of cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:
  millgrid cluster status
  millgrid cluster transfer-leader c2
  millgrid cluster history --keep 30d --keep-jobs 5000000
  millgrid cluster init-ca --out ca
  millgrid cluster issue-cert --ca ca --role coordinator --name c1 --hosts 10.0.1.5
  millgrid cluster bootstrap --endpoint https://10.0.1.5:7070,https://10.0.2.5:7070,https://10.0.3.5:7070")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// Show all coordinators, their places in the log and the digests of their states
    Status,
    /// Move leadership to a member, or to the best follower
    TransferLeader {
        /// Name of the member
        #[arg(value_name = "NAME")]
        member: Option<String>,
    },
    /// Show, or set, how long ended jobs stay at hand before they move to the history
    #[command(long_about = HISTORY, before_help = "Example:
  millgrid cluster history --keep 30d --keep-jobs 5000000")]
    History {
        /// They move when they ended longer ago; 0: at once
        #[arg(long, value_parser = numbers::span, value_name = "TIME", allow_hyphen_values = true)]
        keep: Option<Duration>,
        /// They move, oldest end first, when there are more of them
        #[arg(long, value_parser = numbers::count, value_name = "N", allow_hyphen_values = true)]
        keep_jobs: Option<u64>,
    },
    /// Make the grid's own certificate authority: ca.pem, and ca.key, which is to be kept safe
    InitCa {
        /// Folder to write to
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// Issue a certificate of the authority: NAME.pem and NAME.key
    IssueCert {
        /// Folder of the authority
        // The global option of this name is a file, and of no use here.
        #[arg(long, value_name = "DIR", default_value = ".")]
        ca: PathBuf,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// Member, worker or owner of jobs
        #[arg(long)]
        name: String,
        /// Names and addresses by which a coordinator is reached, besides this machine's own
        #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
        hosts: Vec<String>,
        /// Folder to write to [default: the authority's]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Tell the coordinators at all endpoints, once, that they are the members of one cluster
    Bootstrap,
}

/// Operates the coordinators.
pub async fn run(args: Args, scope: &Scope) -> Result<u8, Failure> {
    match args.verb {
        Verb::Status => status(scope).await,
        Verb::TransferLeader { member } => transfer(member.unwrap_or_default(), scope).await,
        Verb::History { keep, keep_jobs } => history(keep, keep_jobs, scope).await,
        Verb::Bootstrap => bootstrap(scope).await,
        Verb::InitCa { out } => written(identity::init_ca(&out), scope),
        Verb::IssueCert { ca, role, name, hosts, out } => {
            let out = out.unwrap_or_else(|| ca.clone());
            written(identity::issue_cert(&ca, role, &name, &hosts, &out), scope)
        }
    }
}

/// Says which files were written.
fn written(files: Result<identity::Files, identity::Problem>, scope: &Scope) -> Result<u8, Failure> {
    #[derive(Serialize)]
    struct Written {
        cert: String,
        key: String,
    }
    let files = files?;
    let written = Written { cert: files.cert.display().to_string(), key: files.key.display().to_string() };
    scope.output.one(&written, &written.cert, || format!("{}\n{}", written.cert, written.key))?;
    Ok(0)
}

async fn status(scope: &Scope) -> Result<u8, Failure> {
    let answer = scope.grid()?.cluster().status(GetClusterStatusRequest {}).await?;
    let status = Status::from(&answer);
    match scope.output.format() {
        Format::Table | Format::Wide => {
            output::line(&status.headline())?;
            scope.output.rows(&status.members)?;
        }
        Format::Json | Format::Jsonl => scope.output.one(&status, "", String::new)?,
        Format::Csv | Format::Id => scope.output.rows(&status.members)?,
    }
    Ok(0)
}

#[derive(Serialize)]
struct Transfer {
    old_leader: Option<String>,
    new_leader: Option<String>,
}

async fn transfer(member: String, scope: &Scope) -> Result<u8, Failure> {
    let answer = scope.grid()?.cluster().transfer_leader(TransferLeaderRequest { member }).await?;
    let text = |name: &str| crate::view::text(name);
    let transfer = Transfer { old_leader: text(&answer.old_leader), new_leader: text(&answer.new_leader) };
    scope.output.one(&transfer, &answer.new_leader, || {
        format!("{} leads, before it {}", answer.new_leader, answer.old_leader)
    })?;
    Ok(0)
}

/// Sets what is given, and shows what holds.
async fn history(keep: Option<Duration>, keep_jobs: Option<u64>, scope: &Scope) -> Result<u8, Failure> {
    let grid = scope.grid()?;
    let answer = match (keep.map(proto_duration), keep_jobs) {
        (None, None) => grid.jobs().history(GetHistoryRequest {}).await?,
        (keep, keep_jobs) => {
            grid.jobs().set_history(SetHistoryRequest { request_id: String::new(), keep, keep_jobs }).await?
        }
    };
    let history = History::from(&answer);
    scope.output.one(&history, &history.rules_version.to_string(), || history.screen())?;
    Ok(0)
}

/// Asks each coordinator who it is, and tells all of them who all are. Safe to repeat: who was told keeps
/// the same content, and the cluster's id is taken over from whoever has one.
async fn bootstrap(scope: &Scope) -> Result<u8, Failure> {
    let settings = scope.config.settings()?;
    let timeout = scope.globals.timeout.unwrap_or(client::DEFAULT_TIMEOUT);
    let members = members(&settings, timeout).await?;
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::usage("endpoint", format!("two endpoints lead to the member `{}`", twice[0]))
            .hint("name each coordinator once, by an address of its own"));
    }
    let known: Vec<&str> =
        members.iter().map(|member| member.cluster_id.as_str()).filter(|id| !id.is_empty()).collect();
    let cluster_id = known.first().map_or_else(client::request_id, |id| (*id).to_owned());
    if known.iter().any(|id| *id != cluster_id) {
        return Err(Failure::usage("endpoint", "these coordinators belong to different clusters")
            .hint("an empty data directory makes a coordinator new"));
    }
    let listed: Vec<Member> =
        members.iter().map(|member| Member { cluster_id: String::new(), ..member.clone() }).collect();
    let request = BootstrapRequest { cluster_id: cluster_id.clone(), members: listed };
    for url in &settings.endpoints {
        let grid = one(&settings, url, timeout)?;
        grid.cluster().bootstrap(request.clone()).await?;
    }
    #[derive(Serialize)]
    struct Bootstrapped<'a> {
        cluster_id: &'a str,
        members: Vec<&'a str>,
    }
    let done = Bootstrapped { cluster_id: &cluster_id, members: names };
    scope.output.one(&done, &cluster_id, || {
        format!("cluster {cluster_id}: {}; each was told, a leader follows within seconds", done.members.join(", "))
    })?;
    Ok(0)
}

async fn members(settings: &client::Settings, timeout: Duration) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    for url in &settings.endpoints {
        members.push(one(settings, url, timeout)?.cluster().member(GetMemberRequest {}).await?);
    }
    Ok(members)
}

/// One coordinator alone: these calls are never relayed.
fn one(settings: &client::Settings, url: &str, timeout: Duration) -> Result<client::Grid, Failure> {
    let settings = client::Settings { endpoints: vec![url.to_owned()], timeout, ..settings.clone() };
    Ok(client::Grid::connect(settings)?)
}
