//! Tests that run themselves again under `unshare`, as root of a new user and network namespace.
//!
//! Needs `unshare` and `ip`; no privileges.

use std::process::Command;

/// Tells the second run of a test from the first.
const INSIDE: &str = "ISOLATED_TEST_INSIDE";

/// A test whose body runs in namespaces of its own, where loopback is up.
macro_rules! isolated {
    ($(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::isolated::run(module_path!(), stringify!($name), || $body);
        }
    };
}

/// Runs `body` in there, by running the test `name` of this module again.
pub(crate) fn run(module: &str, name: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return body();
    }
    let name = match module.split_once("::") {
        Some((_, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    };
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([name.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1)");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    print!("{out}");
}

/// Runs ip(8) with these words.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("ip(8)");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {err}");
    String::from_utf8(output.stdout).unwrap()
}
