//! The keeper: found or started, told, heard, and lost.

use std::io;

use worker_core::{Adopted, Input, Standing};
use worker_keeper::protocol::{Welcome, from_agent, from_keeper};

use super::{Agent, Event};
use crate::{
    keeper::{self, Keeper},
    record::{Memo, Record},
};

impl Agent {
    pub(super) fn find_keeper(&self) {
        let (events, state_dir) = (self.events.clone(), self.config.state_dir.clone());
        tokio::spawn(async move {
            let (keeper, welcome) = Keeper::find(&state_dir).await;
            let _ = events.send(Event::Keeper(keeper, welcome));
        });
    }

    pub(super) fn tell_keeper(&mut self, message: from_agent::Message) {
        // Without one the core knows, and compares when there is one again.
        if let Some(keeper) = &mut self.keeper {
            keeper.say(message);
        }
    }

    pub(super) fn lose_keeper(&mut self, error: &io::Error) {
        tracing::warn!("the keeper is gone: {error}");
        self.keeper = None;
        self.step(Input::KeeperLost);
        self.find_keeper();
    }

    pub(super) fn hear_keeper(&mut self, ready: io::Result<()>) {
        let Some(keeper) = &mut self.keeper else { return };
        let arrived = ready.and_then(|()| keeper.read());
        // What came before the end counts.
        loop {
            let message = match self.keeper.as_mut().map(Keeper::take) {
                Some(Ok(Some(message))) => message,
                Some(Ok(None)) | None => break,
                Some(Err(error)) => return self.lose_keeper(&error),
            };
            self.heard(message);
        }
        if let Err(error) = arrived {
            self.lose_keeper(&error);
        }
    }

    pub(super) fn heard(&mut self, message: from_keeper::Message) {
        match message {
            from_keeper::Message::Welcome(welcome) => self.welcome(welcome),
            from_keeper::Message::Started(started) => {
                if let Some(key) = keeper::core_key(started.key) {
                    self.step(Input::Started { key, start_time_ms: started.start_time_ms });
                }
            }
            from_keeper::Message::Exited(exited) => {
                if let Some(key) = keeper::core_key(exited.key) {
                    let exit = keeper::exit(exited);
                    // Of others nobody will ever ask.
                    let exit = if self.core.holds(&key) { self.measured(key, exit) } else { exit };
                    self.step(Input::Exited { key, exit });
                }
            }
            from_keeper::Message::Expired(_) => self.step(Input::Expired),
        }
    }

    pub(super) fn welcome(&mut self, welcome: Welcome) {
        let standing = (welcome.session != 0).then_some(Standing {
            session: welcome.session,
            connection: welcome.connection,
            deadline_ms: welcome.deadline_ms,
        });
        tracing::info!(
            keeper = welcome.keeper_pid,
            session = welcome.session,
            processes = welcome.processes.len(),
            "keeper found"
        );
        if standing.is_some_and(|standing| standing.session == self.grounds.session) {
            // Ends that our predecessor didn't report are to be reported with their logs.
            self.begin_uploads();
        }
        // It may be another one.
        self.servers_told.clear();
        let mut processes = Vec::with_capacity(welcome.processes.len());
        for process in welcome.processes {
            let Some(key) = keeper::core_key(process.key) else { continue };
            let memo = Memo::read(&process.memo);
            let adopted = Adopted {
                key,
                resources: memo.resources.unwrap_or_default(),
                outputs: !memo.outputs.is_empty(),
                start_time_ms: process.start_time_ms,
                after: keeper::core_key(process.after),
                exit: None,
            };
            let directory = self.spools.directory(key);
            self.records.entry(key).or_insert_with(|| Record::new(directory, memo));
            self.spools.open(key);
            let left = self.take_left(key);
            let mut exit = process.exited.map(|exited| self.measured(key, keeper::exit(exited)));
            if let (Some(exit), Some(left)) = (&mut exit, left) {
                // What was promised is what is uploaded.
                (exit.stdout_bytes, exit.stderr_bytes) = (left.stdout, left.stderr);
            }
            processes.push(Adopted { exit, ..adopted });
        }
        self.keep_left();
        self.sweep_leftovers();
        self.step(Input::KeeperConnected { standing, processes, follows: welcome.follows });
    }
}
