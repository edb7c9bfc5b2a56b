//! The way to a thread that sleeps between two messages. The standard library's channels wake it up while they still
//! hold what it needs next, so that on a busy processor each message costs several switches; this one wakes it once, and
//! only if it sleeps.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

/// Nobody takes messages any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// There is no room.
    Full,
    /// Nobody takes messages any more.
    Gone,
}

/// The end into which messages go; cheap to clone.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end from which they come. Dropped, it takes what waits along.
pub struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    limit: usize,
    /// Something came, or the last sender went.
    filled: Condvar,
    /// There is room again, or the receiver went.
    emptied: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    senders: usize,
    received: bool,
    /// The receiver waits: whoever adds something wakes it, once.
    asleep: bool,
    /// Senders that wait for room.
    waiting: usize,
}

/// A queue of at most `limit` messages.
pub fn bounded<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), senders: 1, received: true, asleep: false, waiting: 0 };
    let shared = Shared { state: Mutex::new(state), limit, filled: Condvar::new(), emptied: Condvar::new() };
    let shared = Arc::new(shared);
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// A queue whose senders bound themselves.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here can panic between two states that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message for which there is room.
    fn push(&self, mut state: MutexGuard<'_, State<T>>, message: T) {
        state.messages.push_back(message);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State<T>>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        // Whether or not anybody waits, this is a system call.
        if asleep {
            self.filled.notify_one();
        }
    }
}

impl<T> Sender<T> {
    /// Adds a message; waits for room if it must.
    ///
    /// # Errors
    /// When the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), Gone> {
        let mut state = self.0.lock();
        while state.messages.len() >= self.0.limit && state.received {
            state.waiting += 1;
            state = self.0.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if !state.received {
            return Err(Gone);
        }
        self.0.push(state, message);
        Ok(())
    }

    /// Adds a message if there is room.
    ///
    /// # Errors
    /// When there is none, or the receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), NotSent> {
        let state = self.0.lock();
        if !state.received {
            return Err(NotSent::Gone);
        }
        if state.messages.len() >= self.0.limit {
            return Err(NotSent::Full);
        }
        self.0.push(state, message);
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            self.0.wake(state);
        }
    }
}

impl<T> Receiver<T> {
    /// The next message; waits for it at most so long, or for ever.
    ///
    /// # Errors
    /// When none came in that time, or there is none and no sender is left.
    pub fn recv(&self, patience: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.0.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                let waiting = state.waiting > 0;
                drop(state);
                if waiting {
                    self.0.emptied.notify_one();
                }
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(RecvTimeoutError::Timeout);
            }
            state.asleep = true;
            state = match left {
                Some(left) => self.0.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.asleep = false;
        }
    }

    /// The next message, if there is one already.
    pub fn try_recv(&self) -> Option<T> {
        self.recv(Some(Duration::ZERO)).ok()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.received = false;
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        self.0.emptied.notify_all();
        // They may hold senders of this very queue.
        drop(messages);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn messages_come_in_their_order_and_the_end_behind_them() {
        let (sender, receiver) = bounded(10);
        let other = sender.clone();
        assert_eq!((sender.send(1), other.send(2)), (Ok(()), Ok(())));
        drop((sender, other));
        assert_eq!((receiver.recv(LONG), receiver.recv(None)), (Ok(1), Ok(2)));
        assert_eq!(receiver.recv(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn an_empty_queue_is_waited_for_no_longer_than_asked() {
        let (sender, receiver) = bounded::<u8>(1);
        assert_eq!(receiver.recv(Some(Duration::from_millis(1))), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.try_recv(), None);
        drop(sender);
    }

    #[test]
    fn a_full_queue_refuses_or_holds_up_until_there_is_room() {
        let (sender, receiver) = bounded(1);
        assert_eq!(sender.try_send(0), Ok(()));
        assert_eq!(sender.try_send(1), Err(NotSent::Full));
        thread::scope(|scope| {
            scope.spawn(|| (1..1_000).for_each(|number| assert_eq!(sender.send(number), Ok(()))));
            (0..1_000).for_each(|number| assert_eq!(receiver.recv(LONG), Ok(number)));
        });
    }

    #[test]
    fn who_waits_for_room_hears_that_the_receiver_is_gone() {
        let (sender, receiver) = bounded(1);
        assert_eq!(sender.send(0), Ok(()));
        thread::scope(|scope| {
            let waits = scope.spawn(|| sender.send(1));
            drop(receiver);
            assert_eq!(waits.join().ok(), Some(Err(Gone)));
        });
        assert_eq!((sender.send(2), sender.try_send(2)), (Err(Gone), Err(NotSent::Gone)));
    }

    #[test]
    fn a_sleeper_is_woken_by_a_message_and_by_the_end() {
        let (sender, receiver) = bounded(1_000);
        thread::scope(|scope| {
            let sum = scope.spawn(move || {
                let mut sum = 0;
                while let Ok(number) = receiver.recv(None) {
                    sum += number;
                }
                sum
            });
            (0..100).for_each(|number| assert_eq!(sender.send(number), Ok(())));
            drop(sender);
            assert_eq!(sum.join().ok(), Some(4_950));
        });
    }
}
