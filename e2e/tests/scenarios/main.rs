//! End-to-end scenarios: the real program, the real engine, real SDKs.
//!
//! All are below the module `scenario`, so that `cargo xtask test` can run them as a stage of their own.

#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may stop on the first surprise

#[path = "."]
mod scenario {
    mod arguments;
    mod field;
    mod golden;
    mod hotrod;
    mod life;
    mod rate;
    mod sdk;
    mod sdk_rust;
    mod show;
    mod support;
}
