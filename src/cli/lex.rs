//! Splits an argument vector into options, in order, and operands, as `getopt_long(3)` does.
//!
//! clap does the splitting; its matches carry the position of every occurrence, which gives back
//! the order on the command line that options act in [CLI-22]. Where clap finds a fault, the
//! options before it are returned all the same, because an immediate one among them (`--version
//! --unknown`) must win. Faults are worded as getopt words them: callers look for that text.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::options::{self, Opt, SECTIONS};

/// An option as met on the command line.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) option: &'static Opt,
    /// Its argument; empty for a flag.
    pub(super) value: OsString,
}

/// A command line taken apart.
#[derive(Debug)]
pub(super) struct Lexed {
    /// Options in command line order, up to the fault if there is one.
    pub(super) events: Vec<Event>,
    /// Everything from the first non-option argument on [CLI-2].
    pub(super) operands: Vec<OsString>,
    /// What is wrong after `events`, without the program's name.
    pub(super) fault: Option<String>,
}

/// Takes `args` (without the program's name) apart.
pub(super) fn lex(args: &[OsString]) -> Lexed {
    let mut command = command();
    let error = match command.try_get_matches_from_mut(args) {
        Ok(matches) => return collect(&matches, None),
        Err(error) => error,
    };
    let fault = Some(getopt_text(&error, args));
    let valid = longest_valid_prefix(&mut command, args);
    match command.try_get_matches_from_mut(args.iter().take(valid)) {
        Ok(matches) => collect(&matches, fault),
        Err(_) => Lexed { events: Vec::new(), operands: Vec::new(), fault },
    }
}

/// The clap command for the whole table, without help or version of its own.
pub(super) fn command() -> Command {
    let mut command = Command::new("pasta")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true);
    for (heading, section) in SECTIONS {
        for option in *section {
            command = command.arg(arg(option).help_heading(*heading));
        }
    }
    command.arg(
        Arg::new(OPERANDS)
            .num_args(0..)
            .trailing_var_arg(true)
            .value_parser(ValueParser::os_string())
            .hide(true),
    )
}

/// Id of the positional arguments; not a possible option name.
const OPERANDS: &str = "COMMAND...";

fn arg(option: &'static Opt) -> Arg {
    let mut arg = Arg::new(option.long)
        .long(option.long)
        .value_parser(ValueParser::os_string())
        .action(ArgAction::Append);
    if let Some(short) = option.short {
        arg = arg.short(short);
    }
    if let Some(alias) = option.alias {
        arg = arg.alias(alias);
    }
    match option.value {
        // As with getopt, the argument may look like an option.
        Some(name) => arg.num_args(1).value_name(name).allow_hyphen_values(true),
        // The empty value makes each occurrence of a flag count, with its position.
        None => arg.num_args(0).default_missing_value(""),
    }
}

fn collect(matches: &ArgMatches, fault: Option<String>) -> Lexed {
    let mut found = Vec::new();
    for option in options::all() {
        let (Some(indices), Some(values)) =
            (matches.indices_of(option.long), matches.get_many::<OsString>(option.long))
        else {
            continue;
        };
        found.extend(indices.zip(values).map(|(i, v)| (i, Event { option, value: v.clone() })));
    }
    found.sort_by_key(|(index, _)| *index);
    let operands = matches.get_many::<OsString>(OPERANDS).into_iter().flatten().cloned().collect();
    Lexed { events: found.into_iter().map(|(_, event)| event).collect(), operands, fault }
}

/// Number of leading words that parse without fault.
///
/// A prefix can also fail because it ends between an option and its argument, but then the next
/// longer one does not: two failures in a row mean that the faulty word has been passed. Counting
/// up, not down, keeps the effort independent of the length of a command that follows.
fn longest_valid_prefix(command: &mut Command, args: &[OsString]) -> usize {
    let mut valid = 0;
    for n in 1..=args.len() {
        if command.try_get_matches_from_mut(args.iter().take(n)).is_ok() {
            valid = n;
        } else if n > valid + 1 {
            break;
        }
    }
    valid
}

/// The words of `getopt_long(3)` for a fault, without the program's name.
fn getopt_text(error: &clap::Error, args: &[OsString]) -> String {
    let shown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let name = shown.split([' ', '=']).next().unwrap_or(shown);
    match error.kind() {
        ErrorKind::UnknownArgument => match name.strip_prefix("--") {
            Some(long) => unknown_long(long),
            None => format!("invalid option -- '{}'", name.trim_start_matches('-')),
        },
        ErrorKind::TooManyValues => format!("option '{name}' doesn't allow an argument"),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            // Only the last word can lack its argument; it tells how the option was written.
            let last = args.last().map(|word| word.to_string_lossy()).unwrap_or_default();
            match last.chars().last() {
                Some(short) if !last.starts_with("--") => {
                    format!("option requires an argument -- '{short}'")
                }
                _ => format!("option '{name}' requires an argument"),
            }
        }
        _ => format!("unrecognized option '{shown}'"),
    }
}

fn unknown_long(long: &str) -> String {
    let candidates: Vec<String> = options::all()
        .filter(|option| option.long.starts_with(long))
        .map(|option| format!("'--{}'", option.long))
        .collect();
    if candidates.is_empty() {
        format!("unrecognized option '--{long}'")
    } else {
        format!("option '--{long}' is ambiguous; possibilities: {}", candidates.join(" "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lexed(line: &[&str]) -> (Vec<String>, Vec<String>, Option<String>) {
        let args: Vec<OsString> = line.iter().map(OsString::from).collect();
        let Lexed { events, operands, fault } = lex(&args);
        let events = events
            .iter()
            .map(|e| match e.option.value {
                Some(_) => format!("{}={}", e.option.long, e.value.to_str().unwrap()),
                None => e.option.long.to_string(),
            })
            .collect();
        (events, operands.iter().map(|o| o.to_str().unwrap().to_string()).collect(), fault)
    }

    #[test]
    fn clap_accepts_the_table() {
        command().debug_assert();
    }

    // [CLI-2] [COMPAT-7] Clusters, glued and separate values, abbreviations, terminator.
    #[test]
    fn forms() {
        for (line, events, operands) in [
            (&["-4d"][..], &["ipv4-only", "debug"][..], &[][..]),
            (&["-4t80"], &["ipv4-only", "tcp-ports=80"], &[]),
            (
                &["-t", "80", "--tcp-ports=81", "--tcp-ports", "82"],
                &["tcp-ports=80", "tcp-ports=81", "tcp-ports=82"],
                &[],
            ),
            (&["-d", "-q", "-d"], &["debug", "quiet", "debug"], &[]),
            (&["-t", "-80"], &["tcp-ports=-80"], &[]),
            (&["--mtu", "--version"], &["mtu=--version"], &[]),
            (&["--mtu", "--", "x"], &["mtu=--"], &["x"]),
            (&["--mtu="], &["mtu="], &[]),
            (&["--mtu", ""], &["mtu="], &[]),
            (&["--vers", "--config-n"], &["version", "config-net"], &[]),
            (&["--sock", "/x"], &["socket=/x"], &[]),
            (&["--socket-path", "/x"], &["socket=/x"], &[]),
            (&["--dns", "x"], &["dns=x"], &[]),
            (&["--config-net", "ip", "-6", "route"], &["config-net"], &["ip", "-6", "route"]),
            (&["--", "-6", "x"], &[], &["-6", "x"]),
            (&["--", "a", "--", "b"], &[], &["a", "--", "b"]),
            (&["a", "--", "b"], &[], &["a", "--", "b"]),
            (&["a", "--help", "--vhost-user"], &[], &["a", "--help", "--vhost-user"]),
            (&["-", "-4"], &[], &["-", "-4"]),
            (&["", "-4"], &[], &["", "-4"]),
            (&["-f", "--"], &["foreground"], &[]),
        ] {
            let (e, o, fault) = lexed(line);
            assert_eq!(
                (e, o, fault),
                (
                    events.iter().map(ToString::to_string).collect(),
                    operands.iter().map(ToString::to_string).collect(),
                    None
                ),
                "{line:?}"
            );
        }
    }

    // [COMPAT-4] Faults in getopt's words, with the options before them.
    #[test]
    fn faults() {
        for (line, events, fault) in [
            (&["--foo"][..], &[][..], "unrecognized option '--foo'"),
            (&["-f", "--foo=1", "-d"], &["foreground"], "unrecognized option '--foo'"),
            (&["--map-guest-addrX", "a"], &[], "unrecognized option '--map-guest-addrX'"),
            (&["-4Z"], &[], "invalid option -- 'Z'"),
            (&["-f", "--mtu"], &["foreground"], "option '--mtu' requires an argument"),
            (&["-fm"], &[], "option requires an argument -- 'm'"),
            (&["--no-tcp=3"], &[], "option '--no-tcp' doesn't allow an argument"),
            (
                &["--outbound-i", "x"],
                &[],
                "option '--outbound-i' is ambiguous; possibilities: '--outbound-if4' '--outbound-if6'",
            ),
            (
                &["--version", "-m", "1", "--foo", "x", "y"],
                &["version", "mtu=1"],
                "unrecognized option '--foo'",
            ),
        ] {
            let (e, _, f) = lexed(line);
            assert_eq!(
                (e, f.as_deref()),
                (events.iter().map(ToString::to_string).collect(), Some(fault)),
                "{line:?}"
            );
        }
    }
}
