//! Composition: start-up stages, the loop, mode selection.
//!
//! `stages.rs` is start-up as a straight line of types; `engine.rs` is the loop that feeds a
//! [`Translator`](crate::translate::Translator) from link, sockets and clock.

mod auto;
mod engine;
mod network;
mod ports;
mod stages;
mod stats;

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{self, CliEnv, Outcome};
use crate::sys::{fds, logsink, memory, signals};

/// The one main of every program name.
pub fn main() -> ExitCode {
    let inherited = signals::Inherited::record();
    memory::single_arena();
    logsink::init();
    let argv: Vec<_> = std::env::args_os().collect();
    let guest = match fds::sanitize(cli::guest_fd(&argv)) {
        Ok(guest) => guest,
        Err(e) => {
            log::error!("{e}");
            return ExitCode::FAILURE;
        }
    };
    fds::raise_nofile();
    signals::ignore_sigpipe();
    match cli::parse(argv, &CliEnv::host()) {
        Ok(Outcome::Print { text }) => {
            // A reader that has gone away is no error worth a word.
            let mut out = std::io::stdout();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run { config, warnings }) => {
            let status = stages::run(*config, &warnings, inherited, guest);
            status.unwrap_or_else(|e| {
                // Nobody else will say who logs, if nobody has.
                logsink::identify(std::process::id());
                log::error!("{e}");
                ExitCode::FAILURE
            })
        }
        Err(e) => {
            log::error!("{}", e.message);
            if let Some(usage) = e.usage {
                let _ = std::io::stderr().write_all(usage.as_bytes());
            }
            ExitCode::FAILURE
        }
    }
}
