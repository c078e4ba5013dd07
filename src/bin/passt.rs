//! The `passt` program: connects a virtual machine. See [`passt::daemon::main`].

fn main() -> std::process::ExitCode {
    passt::daemon::main()
}
