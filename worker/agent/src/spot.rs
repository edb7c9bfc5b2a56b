//! The notice that this machine is about to be taken back.
//!
//! It is a file, `STATE_DIR/spot-notice.json`, in the words in which EC2's instance metadata announces a reclaim
//! (docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html, `spot/instance-action`):
//! `{"action": "terminate", "time": "2026-11-22T18:40:00Z"}`. Whoever learns of it puts it there, under another name
//! first, and an agent that is restarted meanwhile finds it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use aws_smithy_types::{DateTime, date_time::Format};
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::core_loop::Event;

const FILE: &str = "spot-notice.json";
/// Bytes of changes taken at once; what they are doesn't matter.
const CHANGES: usize = 4 << 10;

/// What the file says. All of AWS's actions (`hibernate`, `stop`, `terminate`) end what runs.
#[derive(Debug, Deserialize)]
struct InstanceAction {
    time: String,
}

/// Tells the core loop of a notice that is there, and of each that comes. The thread sleeps until a file in the
/// directory itself has changed, which is seldom; it ends with the core loop, or with the process.
pub fn watch(state_dir: &Path, events: mpsc::UnboundedSender<Event>) -> io::Result<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, state_dir, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE)?;
    let path = state_dir.join(FILE);
    thread::Builder::new().name("spot".to_owned()).spawn(move || {
        let mut changes = [0; CHANGES];
        // Read first, and then after every change that came since: none is missed.
        loop {
            if let Some(gone_ms) = read(&path)
                && events.send(Event::SpotNotice { gone_ms }).is_err()
            {
                return;
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(&watch, &mut changes)) {
                Ok(_) => {}
                Err(error) => return tracing::error!("can't watch {}: {error}", path.display()),
            }
        }
    })?;
    Ok(())
}

/// When the machine is gone, in milliseconds since the Unix epoch.
fn read(path: &Path) -> Option<i64> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!("can't read {}: {error}", path.display());
            return None;
        }
    };
    let time = serde_json::from_slice::<InstanceAction>(&text).map_err(|error| error.to_string()).and_then(|action| {
        let time = DateTime::from_str(&action.time, Format::DateTimeWithOffset).map_err(|error| error.to_string())?;
        time.to_millis().map_err(|error| error.to_string())
    });
    match time {
        Ok(time) => Some(time),
        Err(problem) => {
            tracing::error!(
                "{} is no notice ({problem}); write {{\"action\": \"terminate\", \"time\": \"2026-11-22T18:40:00Z\"}}",
                path.display()
            );
            None
        }
    }
}

/// Removes a notice that is over, or that was of a machine before this one.
pub fn remove(state_dir: &Path) {
    let path: PathBuf = state_dir.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("can't delete {}: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn next(events: &mut mpsc::UnboundedReceiver<Event>) -> i64 {
        match events.recv().await.unwrap() {
            Event::SpotNotice { gone_ms } => gone_ms,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_notice_is_heard_whether_it_was_there_or_comes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join(FILE), folder.path().join("new"));
        fs::write(&path, r#"{"action": "terminate", "time": "2026-11-22T18:40:00Z"}"#).unwrap();
        let (events, mut heard) = mpsc::unbounded_channel();
        watch(folder.path(), events).unwrap();
        assert_eq!(next(&mut heard).await, 1_795_372_800_000);
        remove(folder.path());
        remove(folder.path());
        // One that can't be read is passed over.
        fs::write(&new, "{").unwrap();
        fs::rename(&new, &path).unwrap();
        fs::write(&new, r#"{"action": "stop", "time": "2026-11-22T18:40:00.5+00:00", "more": 1}"#).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(next(&mut heard).await, 1_795_372_800_500);
    }
}
