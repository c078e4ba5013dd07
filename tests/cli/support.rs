//! Shorthands for parsing a command line against a made-up host.

use std::ffi::OsString;

use passt::cli::{CliEnv, CliError, Outcome, parse};
use passt::config::{Config, RunAs};

/// A host with the users `alice` (1000, group 100) and `toor` (root by another name), the group
/// `staff` (50), and IPv6.
pub(crate) const ENV: CliEnv = CliEnv {
    user: |name| match name {
        "alice" => Some(RunAs { uid: 1000, gid: 100 }),
        "toor" | "root" => Some(RunAs { uid: 0, gid: 0 }),
        _ => None,
    },
    group: |name| (name == "staff").then_some(50),
    ipv6: true,
    ephemeral: Some((32768, 60999)),
};

/// Parses a whole command line in which blanks separate words.
pub(crate) fn outcome(line: &str) -> Result<Outcome, CliError> {
    outcome_on(line, &ENV)
}

pub(crate) fn outcome_on(line: &str, env: &CliEnv) -> Result<Outcome, CliError> {
    parse(line.split_whitespace().map(OsString::from).collect(), env)
}

/// Configuration and warnings of a pasta command line that must be valid.
pub(crate) fn run(options: &str) -> (Config, Vec<String>) {
    match outcome(&format!("pasta {options}")) {
        Ok(Outcome::Run { config, warnings }) => (*config, warnings),
        other => panic!("{options}: {other:?}"),
    }
}

pub(crate) fn config(options: &str) -> Config {
    run(options).0
}

/// Text that is printed by a command line that must ask for it.
pub(crate) fn printed(line: &str) -> String {
    match outcome(line) {
        Ok(Outcome::Print { text }) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// Message of a command line that must be refused.
pub(crate) fn refused(line: &str) -> CliError {
    match outcome(line) {
        Err(error) => error,
        other => panic!("{line}: {other:?}"),
    }
}

/// Message of a pasta command line that must be refused without the usage text.
pub(crate) fn error(options: &str) -> String {
    let error = refused(&format!("pasta {options}"));
    assert_eq!(error.usage, None, "{options}");
    error.message
}
