//! Composition: start-up stages, the loop, mode selection.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, CliEnv, Outcome};

/// The one main of every program name.
pub fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect(), &CliEnv::host()) {
        Ok(Outcome::Print { text }) => {
            let mut out = std::io::stdout().lock();
            // A reader that went away is its own affair.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run { warnings, .. }) => {
            for warning in warnings {
                eprintln!("{warning}");
            }
            eprintln!("not implemented");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            if let Some(usage) = &error.usage {
                eprint!("{usage}");
            }
            ExitCode::FAILURE
        }
    }
}
