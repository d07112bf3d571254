//! Faults: the program itself with a log, under load, while it, its disk, ClickHouse or the way there fail. What
//! was acknowledged is stored once in every table, and nothing else is there.
//!
//! Each scenario is short here, and long under `cargo xtask faults`, which says so in the environment
//! (`settings`). A scenario is a `Rig` that things are done to, in phases, each with counts of its own.

mod ballast;
mod belated;
mod check;
mod clock;
#[cfg(feature = "control-runs")]
mod control;
mod disk;
mod kills;
mod load;
mod overload;
mod program;
mod replies;
mod report;
mod rig;
mod settings;
mod soak;
mod store;
