//! The `pasta` program: connects a network namespace. See [`passt::daemon::main`].

fn main() -> std::process::ExitCode {
    passt::daemon::main()
}
