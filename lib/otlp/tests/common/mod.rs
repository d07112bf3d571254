//! What the tests share: requests made at random, and readers to compare.
#![allow(dead_code, unused_imports)] // each test file uses its part

mod compare;
mod requests;
mod to_json;

pub use compare::{compare, normal, viewed};
pub use requests::request;
pub use to_json::request_json;
