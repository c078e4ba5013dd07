//! The texts of `--help` and `--version`.

use super::{lex, options};
use crate::config::Mode;

/// Help for one mode: usage, every option that works in it with its default, examples [CLI-21].
pub(super) fn help(mode: Mode) -> String {
    let (template, usage) = match mode {
        Mode::Pasta => (PASTA_TEMPLATE, PASTA_USAGE),
        Mode::Passt => (PASST_TEMPLATE, PASST_USAGE),
    };
    let mut command = lex::command();
    for option in options::all() {
        let text = option.help(mode);
        command = command.mut_arg(option.long, |arg| arg.help(text).hide(text.is_empty()));
    }
    command
        .help_template(template)
        .override_usage(usage)
        .after_help(specifiers(mode))
        .render_help()
        .to_string()
}

/// Version and licence; the first line is `NAME VERSION` [CLI-20].
pub(super) fn version(mode: Mode) -> String {
    format!(
        "{} {}\n\
         Copyright (c) 2026 The passt-rs authors\n\
         MIT License <https://opensource.org/license/mit>\n\
         This is free software: you are free to change and redistribute it.\n\
         There is NO WARRANTY, to the extent permitted by law.\n\n",
        mode.name(),
        env!("CARGO_PKG_VERSION")
    )
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

/// What port specifiers are made of. Only namespaces have `-T` and `-U`, and `auto`.
fn specifiers(mode: Mode) -> String {
    let (guest, more, example) = match mode {
        Mode::Pasta => ("namespace", PASTA_SPEC, PASTA_EXAMPLE),
        Mode::Passt => ("guest", "", ""),
    };
    format!(
        "SPEC can be given several times and adds up. It is one of:
  none                 Forward nothing
  [ADDR[%NAME]/]PORTS  PORTS is a comma-separated list of ports and ranges, each
                       with optional target ports after ':', before which there
                       may be a target address and '/'. '~' and a port or range
                       excludes it; exclusions alone, and the word all, mean
                       every port but those that the kernel hands out. ADDR is
                       the address to listen on, * or none for all, and NAME the
                       interface{more}
Examples:
  -t 22                Port 22 of the host to port 22 of the {guest}
  -t 2222:22           Port 2222 to port 22
  -t 22,80             Ports 22 and 80 to the same ports
  -t 8000-8010         Ports 8000 to 8010 to the same ports
  -t 8000-8010:80-90   Ports 8000 to 8010 to ports 80 to 90, in order
  -t 8000-8010,~8005   Ports 8000 to 8010 but for port 8005
  -t ~25               Every port but 25
{example}  -t 127.0.0.1/8080    Port 8080 of 127.0.0.1 only
  -t %eth0/22          Port 22, for what comes in through eth0 only
  -t [::1]/8080:80     Port 8080 of ::1 only, to port 80"
    )
}

const PASTA_SPEC: &str = ";
                       not for -T and -U
  auto                 Forward the ports that are bound on the other side, and
                       follow as they change; with PORTS, only those among them";

const PASTA_EXAMPLE: &str =
    "  -t auto,~22          Whatever is bound in the namespace, but for port 22\n";

const PASST_USAGE: &str = "passt [OPTION]...";

const PASST_TEMPLATE: &str = "Usage: {usage}

Connect a virtual machine to the host's network, without privileges: one that
connects to a UNIX stream socket, as QEMU does with -netdev stream.

{all-args}{after-help}
";
