//! What comes along: installation, completions, units, packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use passt::cli::Outcome;

use crate::support::ENV;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory, relative to it.
fn files(dir: &Path) -> Vec<String> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

// [AUX-3]
#[test]
fn installation_and_removal() {
    let dir = std::env::temp_dir().join(format!("passt-install-{}", std::process::id()));
    let bin = Path::new(env!("CARGO_BIN_EXE_pasta")).parent().unwrap();
    let install = |words: &[&str]| {
        let mut command = Command::new(root().join("contrib/install"));
        let output = command.args(words).env("DESTDIR", &dir).env("PASST_BIN", bin).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    install(&["/usr"]);
    let found = files(&dir);
    for file in [
        "usr/bin/pasta",
        "usr/bin/passt",
        "usr/share/man/man1/pasta.1",
        "usr/share/man/man1/passt.1",
        "usr/share/bash-completion/completions/passt",
        "usr/share/fish/vendor_completions.d/pasta.fish",
        "usr/share/zsh/site-functions/_pasta",
        "usr/share/passt-rs/slirp4netns",
        "usr/share/doc/passt-rs/README.md",
    ] {
        assert!(found.iter().any(|f| f == file), "{file}: {found:?}");
    }
    assert_eq!(fs::read_link(dir.join("usr/bin/passt")).unwrap(), PathBuf::from("pasta"));
    let version = Command::new(dir.join("usr/bin/passt")).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"passt "));
    install(&["--remove", "/usr"]);
    assert_eq!(files(&dir), [""; 0]);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn completion_in_bash() {
    let complete = |words: &[&str]| {
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                      _pasta \"$1\"; echo \"${COMPREPLY[*]}\"";
        let file = root().join("contrib/completions/pasta.bash");
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(file).arg(env!("CARGO_BIN_EXE_pasta")).args(words);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["--config"]), "--config-net");
    assert_eq!(complete(&["--dns-f"]), "--dns-forward");
    assert_eq!(complete(&["--outbound-if"]), "--outbound-if4 --outbound-if6");
    assert_eq!(complete(&["--offload", "t"]), "tcp");
    assert!(complete(&["-"]).contains("-t"));
    assert_eq!(complete(&["--", "x"]), "");
}

// What units start is accepted.
#[test]
fn units() {
    for name in ["passt@.service", "pasta@.service"] {
        let unit = fs::read_to_string(root().join("contrib/systemd").join(name)).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words = line.split_whitespace().filter(|word| *word != "$OPTIONS");
        let words = words.map(|w| w.replace("%t", "/run").replace("%i", "x").into()).collect();
        match passt::cli::parse(words, &ENV) {
            Ok(Outcome::Run { config, .. }) => assert!(config.foreground),
            other => panic!("{name}: {other:?}"),
        }
    }
}

// Packages contain files that exist.
#[test]
fn packages() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut sources = Vec::new();
    for line in manifest.lines().map(str::trim) {
        let quoted: Vec<&str> = line.split('"').collect();
        if line.starts_with("[\"") {
            sources.push(quoted[1]); // cargo deb
        } else if line.starts_with("{ source = \"") {
            sources.push(quoted[1]); // cargo generate-rpm
        }
    }
    assert!(sources.len() > 20, "{sources:?}");
    for source in sources {
        let is_built = source.starts_with("target/release/");
        assert!(is_built || root().join(source).exists(), "{source}");
    }
}
