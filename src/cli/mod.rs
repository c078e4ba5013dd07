//! The command line: from an argument vector to a [`Config`], or to the text that says why not.
//!
//! # Theory of operation
//!
//! Nothing here touches the system, except through [`CliEnv`]. [`parse`] works in steps, each in
//! a file of its own:
//!
//! 1. `options`: the table of all options; parser, help and refusals are derived from it.
//! 2. `lex`: arguments to a sequence of options, plus the operands.
//! 3. Mode selection, from `--vhost-user` or the program's name [CLI-1]. It looks at options only,
//!    so a command's own `--vhost-user` means nothing.
//! 4. `build`: options are applied from left to right; `--help` and `--version` end the run where
//!    they stand [CLI-22], and an option that does not work (yet, or in this mode) fails there.
//! 5. `build` again: what options say together, with `ports` and `runas`.
#![forbid(unsafe_code)]

mod build;
mod help;
mod lex;
mod options;
mod ports;
mod runas;
mod values;

use std::ffi::{OsStr, OsString};

use build::Builder;
use lex::Event;
use options::{Action, Modes};
pub use runas::CliEnv;

use crate::config::{Config, Mode};

/// What a valid command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// Run with this configuration.
    Run {
        /// The configuration.
        config: Box<Config>,
        /// Messages for the log, at warning level, once it is open.
        warnings: Vec<String>,
    },
    /// Print `text` to standard output and exit with status 0.
    Print {
        /// Complete lines.
        text: String,
    },
}

/// Why a command line was refused; the exit status is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// One line for the user, without a newline.
    pub message: String,
    /// The usage text to print after it: only when the syntax was wrong [CLI-21].
    pub usage: Option<String>,
}

impl From<String> for CliError {
    fn from(message: String) -> Self {
        Self { message: one_line(&message), usage: None }
    }
}

/// Shows what an argument may contain and a terminal or log must not get: control characters.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Parses a command line, program name first.
///
/// # Errors
///
/// [`CliError`] with the text for the first fault from the left; faults in what several options
/// say together come after all others.
pub fn parse(argv: Vec<OsString>, env: &CliEnv) -> Result<Outcome, CliError> {
    let (program, args) = match argv.split_first() {
        Some((program, args)) => (program.as_os_str(), args),
        None => (OsStr::new(""), [].as_slice()),
    };
    let lexed = lex::lex(args);
    let vhost_user = lexed.events.iter().any(|e| e.option.action == Action::VhostUser);
    let mode = mode(program, vhost_user)?;

    let mut builder = Builder::new(env, mode);
    for event in &lexed.events {
        match event.option.action {
            Action::Help => return Ok(Outcome::Print { text: help::help(mode) }),
            Action::Version => return Ok(Outcome::Print { text: help::version(mode) }),
            _ => {
                check_supported(event, mode)?;
                builder.apply(event)?;
            }
        }
    }
    if let Some(fault) = lexed.fault {
        let message = one_line(&format!("{}: {fault}", program.to_string_lossy()));
        return Err(CliError { message, usage: Some(help::help(mode)) });
    }
    let (config, warnings) = builder.finish(lexed.operands)?;
    Ok(Outcome::Run { config: Box::new(config), warnings })
}

/// The descriptor that `--fd` names last, for whoever closes all others before [`parse`] [LIFE-4].
/// Whether it may be given at all is for [`parse`] to say.
pub fn guest_fd(argv: &[OsString]) -> Option<i32> {
    let lexed = lex::lex(argv.get(1..).unwrap_or_default());
    let fds = lexed.events.iter().filter(|e| e.option.action == Action::Fd);
    fds.filter_map(|e| values::descriptor(e.value.to_str()?).ok()).next_back()
}

/// The program's mode: `pasta` anywhere in the last component of its name, else `passt` [CLI-1].
fn mode(program: &OsStr, vhost_user: bool) -> Result<Mode, String> {
    let program = program.to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default();
    if vhost_user {
        Ok(Mode::Passt)
    } else if name.contains("pasta") {
        Ok(Mode::Pasta)
    } else if name.contains("passt") {
        Ok(Mode::Passt)
    } else {
        Err(format!(
            "cannot determine mode from program name '{program}': \
             it must contain 'pasta' or 'passt'"
        ))
    }
}

/// Refuses what belongs to the other mode or does not work yet.
fn check_supported(event: &Event, mode: Mode) -> Result<(), String> {
    let Event { option, value } = event;
    let long = option.long;
    match option.modes {
        Modes::Pasta | Modes::Passt if !option.modes.include(mode) => {
            let other = if mode == Mode::Pasta { Mode::Passt } else { Mode::Pasta };
            Err(format!("option --{long} is for {} mode only", other.name()))
        }
        _ if option.action == Action::VhostUser => {
            Err(format!("option --{long} is not supported yet"))
        }
        _ if option.action == Action::RepairPath && value == "none" => Ok(()),
        _ if option.action == Action::RepairPath && mode == Mode::Pasta => {
            Err(format!("option --{long} is for {} mode only", Mode::Passt.name()))
        }
        _ if matches!(option.action, Action::NotYet | Action::RepairPath)
            && option.value.is_some() =>
        {
            Err(format!("option --{long} '{}' is not supported yet", value.to_string_lossy()))
        }
        _ if option.action == Action::NotYet => {
            Err(format!("option --{long} is not supported yet"))
        }
        _ => Ok(()),
    }
}
