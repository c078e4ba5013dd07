//! Exit status, streams and signals of `pasta -- COMMAND`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, SOON, eventually, output_within, pasta_path};
use crate::pasta::processes;

#[test]
fn exit_status_of_the_command_is_ours() {
    // [CLI-12]
    Lab::run(|lab| {
        for status in [0, 3, 7] {
            let exit = format!("exit {status}");
            let out = lab.pasta(&["--config-net", "--", "sh", "-c", &exit]);
            assert_eq!(out.status.code(), Some(status), "{out:?}");
        }
    });
}

#[test]
fn command_killed_by_a_signal_gives_128_plus_its_number() {
    // [CLI-13]
    Lab::run(|lab| {
        let mut guest = lab.guest("");
        kill(Pid::from_raw(guest.pid), Signal::SIGKILL).unwrap();
        assert_eq!(guest.pasta.wait(SOON).code(), Some(137));
    });
}

#[test]
fn command_that_cannot_run_gives_1_and_one_message() {
    // [CLI-12]
    Lab::run(|lab| {
        let text_file = lab.dir().join("data");
        fs::write(&text_file, "not a program").unwrap();
        for program in
            ["/nonexistent/program", "no-such-program-in-path", text_file.to_str().unwrap()]
        {
            let out = lab.pasta(&["--config-net", "--", program]);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            assert!(!out.stderr.trim().is_empty(), "{program}: no message");
        }
    });
}

#[test]
fn options_end_at_the_command() {
    // [CLI-2] `-6` belongs to `ip`.
    Lab::run(|lab| {
        let out = lab.pasta(&["--config-net", "ip", "-6", "-j", "addr"]).ok();
        assert!(out.contains("2001:db8:9::2"), "{out}");
        let out = lab.pasta(&["--config-net", "ip", "-4", "-j", "addr"]).ok();
        assert!(out.contains("10.9.0.2"), "{out}");
    });
}

#[test]
fn command_owns_the_standard_streams() {
    // [CLI-14] [NS-7] [COMPAT-31]: no banner, stdin is handed on.
    Lab::run(|lab| {
        let input = lab.dir().join("in");
        fs::write(&input, "hello").unwrap();
        let script =
            format!("exec {} --config-net -- cat < {}", pasta_path().display(), input.display());
        let out = output_within(Command::new("sh").args(["-c", &script]), SOON);
        assert_eq!(out.stdout, "hello", "{out:?}");
        let noise: Vec<_> =
            out.stderr.lines().filter(|l| !l.contains("root") && !l.contains("syslog")).collect();
        assert!(noise.is_empty(), "{noise:?}");
    });
}

#[test]
fn terminating_pasta_ends_it_with_0_and_promptly() {
    // [LIFE-6] [LIFE-10] [COMPAT-73]
    Lab::run(|lab| {
        for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
            let mut guest = lab.guest("");
            let links = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert!(guest.ns.enter(links).contains("up0"));
            guest.pasta.signal(signal);
            assert_eq!(guest.pasta.wait(Duration::from_millis(500)).code(), Some(0), "{signal}");
            eventually("tap goes away with pasta", SOON, || !guest.ns.enter(links).contains("up0"));
        }
    });
}

#[test]
fn shell_without_a_command_is_a_login_shell() {
    // [NS-5]
    Lab::run(|lab| {
        let typed = lab.dir().join("typed");
        fs::write(&typed, "tr '\\0' ' ' < /proc/$$/cmdline\nexit 5\n").unwrap();
        let line = format!("exec \"$0\" --config-net < {}", typed.display());
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(pasta_path()).env("SHELL", "/bin/sh");
        let out = output_within(&mut command, SOON);
        assert_eq!(out.status.code(), Some(5), "{out:?}");
        assert!(out.stdout.starts_with("-/bin/sh"), "{out:?}");
    });
}

#[test]
fn namespace_of_a_command_is_its_own_world() {
    // [NS-3] [NS-4] [NS-6]: process 1, root, own host name, unprivileged ping allowed.
    Lab::run(|lab| {
        let script = "echo $$; id -u; hostname; cat /proc/sys/net/ipv4/ping_group_range; ls /proc";
        let out = lab.pasta(&["--config-net", "--", "sh", "-c", script]).ok();
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("1"), "{out}");
        assert_eq!(lines.next(), Some("0"), "{out}");
        assert!(lines.next().unwrap().starts_with("pasta-"), "{out}");
        assert_eq!(lines.next(), Some("0\t0"), "{out}");
        let processes = lines.filter(|l| l.parse::<u32>().is_ok()).count();
        assert!((1..=2).contains(&processes), "{out}"); // sh and ls
    });
}

#[test]
fn environment_and_directory_are_handed_on() {
    // [NS-5] [COMPAT-16]
    Lab::run(|lab| {
        let mut command = lab.command("--config-net -- sh -c");
        command.arg("pwd; echo $GREETING").current_dir("/usr").env("GREETING", "hi");
        assert_eq!(output_within(&mut command, SOON).ok(), "/usr\nhi\n");
        let mut command = lab.command("--config-net -- /bin/true");
        output_within(command.env_clear().current_dir("/"), SOON).ok();
    });
}

#[test]
fn works_with_standard_streams_closed() {
    // [LIFE-4] [COMPAT-34] [TCP-97]
    Lab::run(|lab| {
        let seen = lab.dir().join("seen");
        // The command may run as another user than the one that made the directory.
        fs::write(&seen, "").unwrap();
        let line = format!(
            "\"$0\" --config-net -- sh -c 'exit 9' <&- >&- 2>&-; echo $? > {}",
            seen.display()
        );
        output_within(Command::new("sh").args(["-c", &line]).arg(pasta_path()), SOON).ok();
        assert_eq!(fs::read_to_string(&seen).unwrap(), "9\n");
    });
}

#[test]
fn nothing_is_left_behind() {
    // [LIFE-9]
    Lab::run(|lab| {
        let before = processes();
        lab.pasta(&["--config-net", "--", "true"]).ok();
        eventually("pasta and its helpers are gone", SOON, || {
            while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
                .is_ok_and(|s| s != nix::sys::wait::WaitStatus::StillAlive)
            {}
            processes() == before
        });
    });
}
