//! Until when this process may write. Every write checks it first; a write that is under way when the time is
//! over is broken off.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use spanloom_plan::lease::Term;
use tokio::time::Instant;

/// The time of this process as the leader. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Leadership(Arc<Mutex<Option<Term>>>);

/// This process may not write, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Lease was not renewed in time; another replica may be the leader")]
pub struct NotLeading;

impl Leadership {
    /// The Lease was taken or renewed.
    pub fn renewed(&self, term: Term) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(term);
    }

    /// The Lease was given up or lost.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The time of this process as the leader; none when it may not write at all.
    pub fn term(&self) -> Option<Term> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this process may not write any more, however often the Lease is renewed meanwhile.
    pub async fn ended(&self) {
        while let Some(term) = self.term() {
            let ends = Instant::from_std(term.ends());
            if Instant::now() >= ends {
                return;
            }
            tokio::time::sleep_until(ends).await;
        }
    }

    /// What `write` gives, unless the time is over before it ends.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn during<T>(&self, write: impl Future<Output = T>) -> Result<T, NotLeading> {
        tokio::select! {
            biased;
            () = self.ended() => Err(NotLeading),
            done = write => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn term() -> Term {
        Term {
            duration: Duration::from_secs(15),
            renewed: Instant::now().into_std(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_broken_off_when_the_time_is_over() {
        let leadership = Leadership::default();
        assert_eq!(leadership.during(async { 1 }).await, Err(NotLeading));
        leadership.renewed(term());
        assert_eq!(leadership.during(async { 1 }).await, Ok(1));
        let begun = Instant::now();
        let hangs = leadership.during(std::future::pending::<()>()).await;
        assert_eq!(hangs, Err(NotLeading));
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_is_noticed_by_a_write_that_is_under_way() {
        let leadership = Leadership::default();
        leadership.renewed(term());
        let takes_long = tokio::time::sleep(Duration::from_secs(14));
        let renews = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            leadership.renewed(term());
        };
        let (done, ()) = tokio::join!(leadership.during(takes_long), renews);
        assert_eq!(done, Ok(()));
    }
}
