//! The real programs: streams and exit status.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

fn pasta(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pasta")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

// [CLI-14] [CLI-20] [COMPAT-2] All of it on stdout, into a pipe, with status 0.
#[test]
fn version() {
    let output = pasta(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with(concat!("pasta ", env!("CARGO_PKG_VERSION"), "\n")));
    assert!(text(&output.stdout).ends_with("\n\n"));
    assert!(output.stderr.is_empty());
    let output = Command::new(env!("CARGO_BIN_EXE_passt")).arg("--version").output().unwrap();
    assert!(text(&output.stdout).starts_with("passt "));
}

// [CLI-21] [COMPAT-5] Complete in a pipe.
#[test]
fn help() {
    let output = pasta(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    assert!(help.starts_with("Usage: pasta ") && help.ends_with("to port 80\n"), "{help}");
    assert!(output.stderr.is_empty());
}

// [COMPAT-2] Nothing is lost when stdout is a file, or closed early.
#[test]
fn stdout_elsewhere() {
    let path = std::env::temp_dir().join(format!("pasta-help-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    let status =
        Command::new(env!("CARGO_BIN_EXE_pasta")).arg("--help").stdout(file).status().unwrap();
    let written = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(status.success());
    assert_eq!(written, pasta(&["--help"]).stdout);

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status =
        Command::new(env!("CARGO_BIN_EXE_pasta")).arg("--version").stdout(writer).status().unwrap();
    assert!(status.success(), "{status}");
}

// [COMPAT-4] [CLI-21] Usage on stderr, status 1.
#[test]
fn unknown_option() {
    let output = pasta(&["--foo"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = text(&output.stderr);
    let (line, usage) = stderr.split_once('\n').unwrap();
    assert_eq!(line, concat!(env!("CARGO_BIN_EXE_pasta"), ": unrecognized option '--foo'"));
    assert_eq!(usage, text(&pasta(&["--help"]).stdout));
}

// [COMPAT-42] One line on stderr, status 1.
#[test]
fn invalid_value() {
    let output = pasta(&["--mtu", "70000", "true"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "invalid MTU '70000': must be 0 to 65521\n");
}

// [CLI-1] The mode comes from the name we are called by.
#[test]
fn other_names() {
    let named = |name: &str| {
        Command::new(env!("CARGO_BIN_EXE_passt")).arg0(name).arg("--version").output().unwrap()
    };
    assert!(text(&named("/x/my-pasta-y").stdout).starts_with("pasta "));
    let output = named("foo");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot determine mode"));
}

// [CLI-22] [COMPAT-3]
#[test]
fn left_to_right() {
    assert_eq!(pasta(&["--mtu", "junk", "--version"]).status.code(), Some(1));
    assert_eq!(pasta(&["--version", "--mtu", "junk"]).status.code(), Some(0));
    assert_eq!(pasta(&["--config-net", "--version"]).status.code(), Some(0));
    assert_eq!(pasta(&["--unknown", "--version"]).status.code(), Some(1));
}

// [COMPAT-16] An empty environment is enough.
#[test]
fn empty_environment() {
    let status = Command::new(env!("CARGO_BIN_EXE_pasta"))
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

// `--runas` looks users up in the host's databases.
#[test]
fn real_users() {
    let output = pasta(&["--runas", "no-such-user-here", "--netns", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "invalid --runas 'no-such-user-here': no user 'no-such-user-here'\n"
    );
}
