//! `millgrid-coordinator`: reads its configuration, serves until it is told to stop, and says by its exit code why it
//! ended.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use coordinator::{
    Metrics,
    config::{self, Arguments, Config, LogFormat},
    ending::{Ending, Exit},
    member::{Member, Running},
    serve::Listeners,
    tls,
};
use replication::DataDirectory;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{error, info};

/// A planned stop waits so long for another member to lead.
const HANDOVER: Duration = Duration::from_secs(2);
/// A disk that fails may hang too; the end waits no longer for it.
const MARK: Duration = Duration::from_secs(1);

fn main() {
    let config = match config::load(&Arguments::parse()) {
        Ok(config) => config,
        Err(invalid) => {
            eprintln!("millgrid-coordinator: {invalid}");
            std::process::exit(Exit::Configuration.code());
        }
    };
    start_logging(&config);
    abort_on_panic();
    info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    let exit = match tokio::runtime::Builder::new_multi_thread().worker_threads(network_threads()).enable_all().build()
    {
        Ok(runtime) => {
            let exit = runtime.block_on(run(config));
            // Nothing is worth waiting for any more, least of all a disk that hangs.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            error!(%error, "can't start");
            Exit::Failed
        }
    };
    info!(code = exit.code(), "ended");
    std::process::exit(exit.code());
}

/// Threads for the network: all cores but one, which is left to the threads of core, replica and log. On small machines
/// threads that hand each other work cost more than they carry: half of a call's cpu with two instead of one.
fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
}

/// Serves until the end, and leaves word on the disk if nothing may be started from it again.
async fn run(config: Config) -> Exit {
    let directory = config.data_dir.clone();
    let exit = serve(config).await;
    if exit == Exit::Sync {
        let marked = tokio::task::spawn_blocking(move || DataDirectory::condemn(&directory));
        match timeout(MARK, marked).await {
            Ok(Ok(Ok(()))) => {}
            // It fails every sync, this one too.
            Ok(Ok(Err(failure))) => error!(%failure, "this disk was not marked for good; don't restart on it"),
            Ok(Err(_)) | Err(_) => error!("this disk was not marked: it doesn't answer; don't restart on it"),
        }
    }
    exit
}

async fn serve(config: Config) -> Exit {
    let tls = match tls::load(&config) {
        Ok(tls) => tls,
        Err(invalid) => {
            error!(%invalid, "configuration");
            return Exit::Configuration;
        }
    };
    let listeners = match Listeners::bind(&config).await {
        Ok(listeners) => listeners,
        Err(error) => {
            error!(%error, "can't listen");
            return Exit::Failed;
        }
    };
    let ending = Ending::default();
    let member = match Member::open(config, tls, ending.clone(), Arc::new(Metrics::default())).await {
        Ok(member) => member,
        Err(error) => {
            error!(%error, "can't start");
            return error.exit();
        }
    };
    if let Err(error) = listeners.serve(Arc::clone(&member), &ending) {
        error!(%error, "can't serve");
        return Exit::Failed;
    }
    info!(address = member.config().address, "serving");
    tokio::select! {
        exit = ending.wait() => exit,
        () = told_to_stop() => {
            if let Ok(running) = member.running() {
                hand_over(&running).await;
            }
            Exit::Stopped
        }
    }
}

async fn told_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("can't handle signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Another member leads before this one ends, if one is there to do it.
async fn hand_over(running: &Running) {
    let mut leadership = running.leadership();
    if !leadership.borrow().leading {
        return;
    }
    if let Err(refused) = running.begin_transfer("") {
        info!(reason = refused.message, "leadership is not handed over");
        return;
    }
    let me = running.id();
    let other = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
    if timeout(HANDOVER, other).await.is_err() {
        info!("nobody took over in time");
    }
}

fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A panic on any thread is a bug, and half a coordinator is worse than none.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        error!(%panic, backtrace = %std::backtrace::Backtrace::capture(), "bug");
        eprintln!("millgrid-coordinator: bug: {panic}");
        std::process::abort();
    }));
}
