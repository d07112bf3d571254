//! Methods of gRPC whose messages go both ways, such as the one by which sidecars get their configuration.
//!
//! Who implements one decides what is said; framing, limits, and the end of a connection are done here
//! (`receive::dialogue`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::peers::Identity;

/// A method whose messages go both ways.
pub trait Dialogue: fmt::Debug + Send + Sync + 'static {
    /// The method's path, `/package.Service/Method`.
    fn path(&self) -> &'static str;

    /// This sender, which was identified and not refused, has called.
    fn begin(&self, sender: &Identity) -> Box<dyn Talk>;
}

/// One call. Dropped when it ends, however it does.
pub trait Talk: Send {
    /// A message came.
    ///
    /// # Errors
    /// Why it cannot be taken, for the sender; the call ends with that.
    fn hear(&mut self, message: &[u8]) -> Result<(), String>;

    /// What is to be said next; `None` ends the call. It waits until there is something, and nothing is lost
    /// when the future is dropped before that.
    fn say(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + '_>>;
}
