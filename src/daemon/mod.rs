//! Composition: start-up stages, the loop, mode selection.

/// The one main of every program name.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
