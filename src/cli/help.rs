//! The texts of `--help` and `--version`.

use clap::Arg;

use super::{lex, options};
use crate::config::Mode;

/// Help for one mode: usage, every option that works in it with its default, examples [CLI-21].
pub(super) fn help(mode: Mode) -> String {
    let command = lex::command();
    let hidden: Vec<&str> =
        options::all().filter(|option| !option.listed(mode)).map(|option| option.long).collect();
    let (template, usage, after) = match mode {
        Mode::Pasta => (PASTA_TEMPLATE, PASTA_USAGE, PORT_SPEC),
        Mode::Passt => (PASST_TEMPLATE, PASST_USAGE, PORT_SPEC),
    };
    let text = command
        .mut_args(|arg: Arg| {
            let hide = hidden.contains(&arg.get_id().as_str()) || arg.is_positional();
            arg.hide(hide)
        })
        .help_template(template)
        .override_usage(usage)
        .after_help(after)
        .render_help()
        .to_string();
    match mode {
        Mode::Pasta => text,
        // The table is written for namespaces.
        Mode::Passt => text.replace("; not for -T and -U", "").replace("namespace", "guest"),
    }
}

/// Version and licence; the first line is `NAME VERSION` [CLI-20].
pub(super) fn version(mode: Mode) -> String {
    format!(
        "{} {}\n\
         Copyright (c) 2026 The passt-rs authors\n\
         MIT License <https://opensource.org/license/mit>\n\
         This is free software: you are free to change and redistribute it.\n\
         There is NO WARRANTY, to the extent permitted by law.\n\n",
        name(mode),
        env!("CARGO_PKG_VERSION")
    )
}

/// The program's name in texts.
pub(super) fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Pasta => "pasta",
        Mode::Passt => "passt",
    }
}

const PASTA_USAGE: &str = "pasta [OPTION]... [COMMAND [ARG]...]
       pasta [OPTION]... PID
       pasta [OPTION]... --netns PATH|NAME";

const PASTA_TEMPLATE: &str = "Usage: {usage}

Connect a network namespace to the host's network, without privileges: that of
the process PID, that given by --netns, or a new one in which COMMAND, or a
shell, is started.

{all-args}{after-help}
";

const PORT_SPEC: &str = "SPEC can be given several times and adds up. It is one of:
  none                 Forward nothing
  [ADDR/]PORTS         PORTS is a comma-separated list of ports and ranges, each
                       with optional target ports after ':'. ADDR is the address
                       to listen on, * or none for all; not for -T and -U
Examples:
  -t 22                Port 22 of the host to port 22 of the namespace
  -t 2222:22           Port 2222 to port 22
  -t 22,80             Ports 22 and 80 to the same ports
  -t 8000-8010         Ports 8000 to 8010 to the same ports
  -t 8000-8010:80-90   Ports 8000 to 8010 to ports 80 to 90, in order
  -t 127.0.0.1/8080    Port 8080 of 127.0.0.1 only
  -t [::1]/8080:80     Port 8080 of ::1 only, to port 80";

const PASST_USAGE: &str = "passt [OPTION]...";

const PASST_TEMPLATE: &str = "Usage: {usage}

Connect a virtual machine to the host's network, without privileges: one that
connects to a UNIX stream socket, as QEMU does with -netdev stream.

{all-args}{after-help}
";
