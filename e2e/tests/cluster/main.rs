//! Scenarios on a real Kubernetes: `cargo xtask test --only cluster` starts one, puts the images on
//! its nodes and runs these.
//!
//! Everything goes through kubectl and helm, as people do it. `KUBECONFIG` says which cluster,
//! `SPANLOOM_KUBECTL` and `SPANLOOM_HELM` which programs, `SPANLOOM_IMAGES` the folder that
//! `cargo xtask images` filled; `SPANLOOM_XTASK` can freeze nodes. All are below the module `scenario`, so that other stages pass them over.

#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may stop on the first surprise
#![allow(clippy::print_stdout)] // what was measured is worth a line

#[path = "."]
mod scenario {
    mod bare;
    mod clock;
    mod configuration;
    mod control;
    mod external;
    mod first_trace;
    mod growth;
    mod healing;
    mod host_path;
    mod injection;
    mod loss;
    mod overload;
    mod ownership;
    mod password;
    mod query_access;
    mod rights;
    mod support;
    mod switch;
    mod upheaval;
}
