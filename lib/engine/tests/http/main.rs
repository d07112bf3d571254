//! The HTTP front, asked the way clients ask.
#![allow(clippy::unwrap_used)] // in the tests' helpers too

mod cancel;
mod coding;
mod errors;
mod lifecycle;
mod rude;
mod sessions;
mod statements;
mod support;
