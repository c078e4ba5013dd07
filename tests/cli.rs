//! The command line, as a function and as a program.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "cli/accepted.rs"]
mod accepted;
#[path = "cli/binary.rs"]
mod binary;
#[path = "cli/contrib.rs"]
mod contrib;
#[path = "cli/manual.rs"]
mod manual;
#[path = "cli/refused.rs"]
mod refused;
#[path = "cli/support.rs"]
mod support;
#[path = "cli/table.rs"]
mod table;
