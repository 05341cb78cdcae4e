//! Whether a consumer takes deliveries: while a dependency is down it takes none but one now and then, to try it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// Between two trials: doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without anything to try, nothing is known against the dependency any more.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// A dependency that a handler needs is down: its deliveries are handed back, and none of that is their failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{dependency}: {reason}")]
pub struct Unavailable {
    /// Its name, for people.
    pub dependency: &'static str,
    /// What it said or did not say; it goes into logs and `/ready`: no secrets, no payload.
    pub reason: String,
}

/// Open, or closed for an outage. A closed one lets a single delivery through when its pause is over: if that one goes
/// through, it opens, else it stays closed for longer. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    state: Arc<Mutex<Option<Closed>>>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Closed {
    outage: Unavailable,
    pause: Duration,
    until: Instant,
    /// The delivery that is tried.
    trial: Option<u64>,
}

impl Gate {
    /// The outage that it is closed for; for `/ready`.
    ///
    /// # Errors
    /// The outage.
    pub fn check(&self) -> Result<(), Unavailable> {
        let mut state = self.lock();
        forget(&mut state);
        match &*state {
            Some(closed) => Err(closed.outage.clone()),
            None => Ok(()),
        }
    }

    /// For how many deliveries the broker may be asked: `batch`, one to try, or none.
    pub(crate) fn leave(&self, batch: usize) -> usize {
        let mut state = self.lock();
        forget(&mut state);
        match &*state {
            None => batch,
            Some(closed) => usize::from(closed.trial.is_none() && closed.until <= Instant::now()),
        }
    }

    /// Whether this delivery may be worked on; one that is tried must end in `went_through` or `close`.
    pub(crate) fn admits(&self, seq: u64) -> bool {
        match &mut *self.lock() {
            None => true,
            Some(closed) if closed.trial.is_none() && closed.until <= Instant::now() => {
                closed.trial = Some(seq);
                true
            }
            Some(_) => false,
        }
    }

    /// When a delivery that is handed back should come again.
    pub(crate) fn delay(&self) -> Duration {
        let left = self.lock().as_ref().map_or(Duration::ZERO, |closed| {
            closed.until.saturating_duration_since(Instant::now())
        });
        left + Duration::from_millis(100) + jittered(Duration::from_millis(200))
    }

    /// The delivery met an outage.
    pub(crate) fn close(&self, seq: u64, outage: Unavailable) {
        let mut state = self.lock();
        let pause = match &*state {
            None => {
                tracing::warn!(reason = %outage, "a dependency is down; nothing is taken until it is back");
                FIRST_PAUSE
            }
            Some(closed) if closed.trial == Some(seq) => LAST_PAUSE.min(closed.pause * 2),
            Some(_) => return,
        };
        *state = Some(Closed {
            outage,
            pause,
            until: Instant::now() + pause,
            trial: None,
        });
        self.changes.send_replace(());
    }

    /// The delivery met no outage, whatever else became of it.
    pub(crate) fn went_through(&self, seq: u64) {
        let mut state = self.lock();
        if let Some(closed) = state.take_if(|closed| closed.trial == Some(seq)) {
            tracing::info!(
                dependency = closed.outage.dependency,
                "deliveries are taken again"
            );
            self.changes.send_replace(());
        }
    }

    /// Tells of changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Returns when one may be tried, never where none waits for that.
    pub(crate) async fn pause_is_over(&self) {
        let until = self
            .lock()
            .as_ref()
            .filter(|closed| closed.trial.is_none() && closed.until > Instant::now())
            .map(|closed| closed.until);
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Closed>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(state: &mut Option<Closed>) {
    state.take_if(|closed| closed.trial.is_none() && Instant::now() > closed.until + FORGOTTEN);
}

/// Between half of a duration and all of it.
pub(crate) fn jittered(duration: Duration) -> Duration {
    let random = Uuid::new_v4().as_bytes()[0];
    duration.mul_f64(0.5 + f64::from(random) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Unavailable {
        Unavailable {
            dependency: "store",
            reason: "it does not answer".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_closes_it_and_what_goes_through_opens_it() {
        let gate = Gate::default();
        assert!(gate.admits(1) && gate.admits(2));
        gate.close(1, outage());
        assert_eq!(gate.check(), Err(outage()));
        assert_eq!(gate.leave(64), 0);
        assert!(!gate.admits(3));
        gate.pause_is_over().await;
        assert_eq!(gate.leave(64), 1);
        assert!(gate.admits(3) && !gate.admits(4));
        assert_eq!(gate.leave(64), 0);
        gate.went_through(2);
        assert_eq!(
            gate.leave(64),
            0,
            "only the one that is tried says anything"
        );
        gate.went_through(3);
        assert_eq!((gate.leave(64), gate.check()), (64, Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_grow_to_five_seconds() {
        let gate = Gate::default();
        gate.close(0, outage());
        for (seq, pause) in (1..).zip([500, 1000, 2000, 4000, 5000, 5000]) {
            let began = Instant::now();
            gate.pause_is_over().await;
            assert_eq!(
                began.elapsed().as_millis().next_multiple_of(10),
                pause,
                "{seq}"
            );
            assert!(gate.admits(seq));
            gate.close(99, outage());
            gate.close(seq, outage());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_any_more_is_forgotten() {
        let gate = Gate::default();
        gate.close(1, outage());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!((gate.check(), gate.leave(64)), (Ok(()), 64));
    }
}
