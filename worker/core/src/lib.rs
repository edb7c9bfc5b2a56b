//! What a worker's agent decides: its session with the grid, which tasks start when, and what is reported.
//!
//! Pure: a function of its inputs and of the time passed in. A driver steps [`Core`] with what happened, takes its
//! outputs and carries them out; the agent is one driver, the simulator another.
//!
//! *Invariant*: no I/O, no clock, no randomness, no iteration over hashed collections.
//! *Invariant*: nothing is started but for a grant to the present session while its deadline lies ahead.

mod attempts;
mod input;
mod keeper;
mod key;
mod link;
mod output;
mod publications;
mod recent;
mod reclaim;
mod session;
mod slots;
pub mod timing;
mod upstream;

use std::collections::BTreeMap;

use attempts::{Attempts, Dying};
use link::{Link, Stage};
use proto::v1::{CoordinatorMessage, WorkerMessage, coordinator_message, worker_message};
use publications::Publications;
use recent::{Ended, Specs};
use reclaim::Reclaim;
use session::Session;
use slots::Slots;
use upstream::Upstream;

pub use input::{Adopted, End, Exit, Failure, Input, PublishFailure, Settings, Standing};
pub use key::Key;
pub use output::{Output, Task};

/// The agent's decisions.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    /// What the newest step was told.
    now_ms: u64,
    wall_ms: i64,
    keeper: keeper::Contact,
    link: Link,
    /// Session that stands, whether or not a stream to it does.
    session: Option<Session>,
    /// Sessions in a row that the grid ended young.
    short_sessions: u32,
    nonce: u64,
    free_memory_mib: u64,
    upstream: Upstream,
    attempts: Attempts,
    slots: Slots,
    /// Processes that were ordered to be killed, and what they still occupy.
    dying: BTreeMap<Key, Dying>,
    publications: Publications,
    /// The machine is about to be taken back.
    reclaim: Option<Reclaim>,
    specs: Specs,
    ended: Ended,
    forget: Vec<Key>,
    outputs: Vec<Output>,
}

impl Core {
    /// A core that waits for its keeper.
    pub fn new(settings: Settings) -> Self {
        Self {
            now_ms: 0,
            wall_ms: 0,
            keeper: keeper::Contact::NotYet,
            link: Link::new(settings.jitter),
            session: None,
            short_sessions: 0,
            nonce: 0,
            free_memory_mib: 0,
            upstream: Upstream::default(),
            attempts: Attempts::default(),
            slots: Slots::new(settings.capacity),
            dying: BTreeMap::new(),
            publications: Publications::default(),
            reclaim: None,
            specs: Specs::default(),
            ended: Ended::default(),
            forget: Vec::new(),
            outputs: Vec::new(),
            settings,
        }
    }

    /// Takes in what happened.
    ///
    /// `now_ms` is `CLOCK_BOOTTIME`, never going back; `wall_ms` milliseconds since the Unix epoch, for people alone.
    pub fn step(&mut self, input: Input, now_ms: u64, wall_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.wall_ms = wall_ms;
        // Before anything else: what waited in a queue while we were stopped may not start anything any more.
        self.fence_if_due();
        match input {
            Input::Tick => {}
            Input::KeeperConnected { standing, processes, follows } => {
                self.keeper_connected(standing, processes, follows);
            }
            Input::KeeperLost => self.keeper = self.keeper.lost(),
            Input::Started { key, start_time_ms } => self.started(key, start_time_ms),
            Input::Exited { key, exit } => self.exited(key, exit),
            Input::Expired => {
                if self.session.is_some() {
                    self.lose_session("the keeper's timer fired before a renewal was answered", 0);
                }
            }
            Input::StreamOpened { stream } => self.stream_opened(stream),
            Input::StreamClosed { stream, elsewhere } => {
                if self.link.stream() == Some(stream) {
                    self.link.retire(self.now_ms, elsewhere, 0);
                }
            }
            Input::Received { stream, message } => self.received(stream, message),
            Input::Prepared { key, result } => self.prepared(key, result),
            Input::StagedOut { key, result } => self.staged_out(key, result),
            Input::PublishEnded { key, result } => self.publish_ended(key, result),
            Input::SpotNotice { ends_ms } => self.spot_notice(ends_ms),
            Input::FreeMemory { mib } => self.free_memory_mib = mib,
        }
    }

    /// What is to be done, in order. To be called once everything that was waiting has been stepped: it does what
    /// time asks for, and joins what can go together.
    pub fn outputs(&mut self, now_ms: u64) -> Vec<Output> {
        self.now_ms = self.now_ms.max(now_ms);
        self.fence_if_due();
        self.tend_reclaim();
        self.return_overdue();
        if self.keeper.here() {
            if self.reclaim.is_none() {
                self.start_waiting();
            }
            self.tend_link();
        }
        self.report_starts();
        self.publish_again();
        self.renew_if_due();
        self.send_reports();
        if !self.forget.is_empty() {
            let keys = std::mem::take(&mut self.forget);
            self.outputs.push(Output::Forget { keys });
        }
        self.leave_if_due();
        std::mem::take(&mut self.outputs)
    }

    /// When `Input::Tick` is due; `None`: never, as things stand.
    pub fn next_timer_ms(&self) -> Option<u64> {
        let link = self.keeper.here().then(|| self.link.timer_ms()).flatten();
        let session = self.session.as_ref().map(|session| session.timer_ms(self.link.open().is_some()));
        let reports = self.link.open().and_then(|_| self.upstream.timer_ms());
        let reclaim = self.reclaim.as_ref().and_then(Reclaim::timer_ms);
        let attempts = [self.attempts.timer_ms(), self.publications.timer_ms()];
        [link, session, reports, reclaim].into_iter().chain(attempts).flatten().min()
    }

    /// The session that stands, and until when tasks may be started for it (`CLOCK_BOOTTIME`, milliseconds).
    pub fn standing(&self) -> Option<Standing> {
        self.session.as_ref().map(Session::standing)
    }

    /// Every attempt held: granted or running, not yet ended, or with its end not yet acknowledged.
    pub fn held(&self) -> Vec<Key> {
        self.attempts.keys().collect()
    }

    /// Whether the attempt is held, see [`Self::held`].
    pub fn holds(&self, key: &Key) -> bool {
        self.attempts.contains(key)
    }

    /// Publications still to be completed or to be acknowledged.
    pub fn publishing(&self) -> Vec<Key> {
        self.publications.keys().collect()
    }

    fn received(&mut self, stream: u64, message: CoordinatorMessage) {
        use coordinator_message::Message;
        let Some(message) = message.message else { return };
        if let Stage::Opening { stream: opening, sent_ms } = self.link.stage
            && stream == opening
        {
            match message {
                Message::Opened(opened) => self.session_opened(stream, sent_ms, opened),
                Message::Ended(ended) => self.session_refused(&ended.reason),
                // Nothing else has a meaning before the session stands.
                Message::Renewed(_) | Message::Acknowledged(_) | Message::Instructions(_) | Message::ReadLog(_) => {}
            }
            return;
        }
        if self.link.open() != Some(stream) {
            return;
        }
        match message {
            Message::Opened(_) => {}
            Message::Renewed(renewed) => self.renewed(renewed.nonce),
            Message::Acknowledged(acknowledged) => self.acknowledged(acknowledged),
            Message::Instructions(instructions) => self.instructed(instructions),
            Message::ReadLog(request) => self.outputs.push(Output::ReadLog { stream, request }),
            Message::Ended(ended) => self.session_refused(&ended.reason),
        }
    }

    fn tend_link(&mut self) {
        if self.link.overdue(self.now_ms) {
            self.reconnect(true);
        }
        if let Some((stream, elsewhere)) = self.link.connect_if_due(self.now_ms) {
            self.outputs.push(Output::Connect { stream, elsewhere });
        }
    }

    /// Gives up the stream, if there is one, and plans another.
    fn reconnect(&mut self, elsewhere: bool) {
        if let Some(stream) = self.link.stream() {
            self.outputs.push(Output::Disconnect { stream });
        }
        self.link.retire(self.now_ms, elsewhere, 0);
    }

    fn send_reports(&mut self) {
        let Some(stream) = self.link.open() else { return };
        while let Some(report) = self.upstream.next_report(self.now_ms, self.attempts.some_wait()) {
            self.send(stream, worker_message::Message::Report(report));
        }
    }

    fn send(&mut self, stream: u64, message: worker_message::Message) {
        self.outputs.push(Output::Send { stream, message: WorkerMessage { message: Some(message) } });
    }
}
