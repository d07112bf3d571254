//! The way of a call's messages from the task that makes them to the connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::code;
use crate::db::DbError;
use crate::problem::Problem;
use crate::tempo::error::Plain;
use crate::tempo::search::CUT;

/// Messages that wait for a client; each is bounded ([`super::packets::BYTES_MAX`]).
const QUEUED_MAX: usize = 2;

/// How long a client may take none of them. Who is slower than that is not waited for: its answer is in memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a call ended that has an answer.
#[derive(Debug)]
pub struct Ended {
    /// Why the answer does not have everything.
    pub partial: Option<String>,
}

/// Why a call ended before its answer did.
#[derive(Debug)]
pub enum Stop {
    /// There is none.
    Problem(Problem),
    /// The client does not read it.
    Unread,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Plain> for Stop {
    fn from(Plain(problem): Plain) -> Self {
        Self::Problem(problem)
    }
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Problem(error.into())
    }
}

/// Where a call puts its messages.
#[derive(Debug)]
pub struct Queue<T>(mpsc::Sender<Result<T, Status>>);

/// Room for one message.
pub struct Room<'a, T>(mpsc::Permit<'a, Result<T, Status>>);

impl<T> Queue<T> {
    /// Adds a message, once there is room.
    ///
    /// # Errors
    /// When the client does not take the ones before.
    pub async fn send(&self, message: T) -> Result<(), Stop> {
        match tokio::time::timeout(PATIENCE, self.0.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Unread),
        }
    }

    /// Room for a message now, if there is any.
    pub fn room(&self) -> Option<Room<'_, T>> {
        self.0.try_reserve().ok().map(Room)
    }
}

impl<T> Room<'_, T> {
    /// Fills it.
    pub fn fill(self, message: T) {
        self.0.send(Ok(message));
    }
}

/// The messages of a call, and the task that makes them: it ends when this is dropped.
///
/// The task is needed since a client that does not read must not hold a slot for queries: hyper polls no answer
/// for which the connection has no window, and so a query that is part of the answer would neither go on nor
/// reach its deadline.
#[derive(Debug)]
pub struct Messages<T> {
    queue: mpsc::Receiver<Result<T, Status>>,
    is_over: bool,
    _task: AbortOnDropHandle<()>,
}

impl<T: Send + 'static> Messages<T> {
    /// Those of `run`.
    pub fn of<F>(run: impl FnOnce(Queue<T>) -> F) -> Self
    where
        F: Future<Output = Result<Ended, Stop>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(QUEUED_MAX);
        let call = run(Queue(sender.clone()));
        let task = tokio::spawn(async move {
            let end = status(call.await);
            // The end is no message: it waits as long as the connection is there. When it is not, neither is this.
            let _ = sender.send(Err(end)).await;
        });
        Self {
            queue,
            is_over: false,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(self.queue.poll_recv(cx)).unwrap_or_else(|| {
            // A panic: what was sent is not all, and must not look like it.
            Err(Status::internal(
                "the query failed; see the log of the query service",
            ))
        });
        self.is_over = next.is_err();
        Poll::Ready(Some(next))
    }
}

/// How a call ended, as it is said in the trailers. Success is a status too, and may have a reason beside it.
fn status(end: Result<Ended, Stop>) -> Status {
    match end {
        Ok(Ended { partial }) => {
            let why = partial.and_then(|why| HeaderValue::try_from(why).ok());
            let trailers: HeaderMap = why.map(|why| (CUT, why)).into_iter().collect();
            Status::with_metadata(Code::Ok, "", MetadataMap::from_headers(trailers))
        }
        Err(Stop::Problem(problem)) => Status::new(code(problem.kind()), Plain(problem).text()),
        Err(Stop::Unread) => Status::deadline_exceeded(format!(
            "the client did not read the response for {} s",
            PATIENCE.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_call_ends_with_its_messages() {
        let held = Arc::new(());
        let seen = Arc::downgrade(&held);
        let mut messages = Messages::of(|queue| async move {
            let _held = held;
            loop {
                queue.send(1).await?;
            }
        });
        assert_eq!(messages.next().await.unwrap().unwrap(), 1);
        assert!(seen.upgrade().is_some());
        drop(messages);
        while seen.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_queue_is_short() {
        let mut messages = Messages::of(|queue| async move {
            for _ in 0..QUEUED_MAX {
                queue.send(1).await?;
            }
            assert!(queue.room().is_none());
            Ok(Ended { partial: None })
        });
        for _ in 0..QUEUED_MAX {
            assert_eq!(messages.next().await.unwrap().unwrap(), 1);
        }
        let end = messages.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), Code::Ok);
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_call_that_panics_does_not_look_complete() {
        let mut messages = Messages::<u32>::of(|_queue| async { panic!("as a bug would") });
        let end = messages.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), Code::Internal);
        assert!(messages.next().await.is_none());
    }
}
