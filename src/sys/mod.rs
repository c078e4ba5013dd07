//! The operating system: descriptors, signals, privileges, namespaces, sandbox, logging.
//!
//! # Theory of operation
//!
//! Everything here runs at start-up, in one straight line, and consumes privileges step by step.
//! The order matters; each function says what it needs. In full:
//!
//! 1. [`signals::Inherited::record`] (what the caller gave us), [`fds::sanitize`],
//!    [`logsink::init`], [`fds::raise_nofile`], [`signals::ignore_sigpipe`].
//! 2. [`caps::reduce_initial`]; parse; [`logfile::LogFile::create`], [`logsink::configure`];
//!    [`ids::resolve`];
//!    [`spawn::Program::find`] so that a missing command fails before anything exists.
//! 3. As the starting user: [`pidfile::PidFile::open`], [`background::Null::open`], host
//!    netlink, listening sockets on the host side.
//! 4. [`ids::Ids::switch`], then [`userns::create`] or [`userns::join`].
//! 5. [`netns::open_path`] or [`netns::open_pid`], or [`spawn::prepare`]; [`watch::NetnsWatch`];
//!    then any number of [`netns::run_in`] for the tap, its netlink and its sockets.
//! 6. [`signals::Signals::listen`], then [`factory::start`] if sockets are needed in the namespace
//!    later on.
//! 7. [`sandbox::isolate`]: empty root, own namespaces, no capability left. From here on nothing
//!    can be opened by name and no thread is started.
//! 8. In the background: [`background::detach`], which forks.
//! 9. [`sandbox::seal`]: no dump, no new privileges, system call filter.
//! 10. Release: [`background::Background::ready`], or [`spawn::Waiting::release`] and
//!     [`logsink::command_started`]. Then the loop.
//!
//! Steps 4 to 7 need a process with a single thread [HAZ-4].

mod error;

#[cfg(feature = "attack")]
pub mod attack;
pub mod background;
pub mod caps;
pub mod factory;
pub mod fds;
pub mod ids;
mod landlock;
pub mod logfile;
pub mod logsink;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod pidfile;
pub mod sandbox;
pub mod seccomp;
pub mod signals;
pub mod spawn;
pub mod sysctl;
pub mod userns;
pub mod watch;

pub use error::Error;

#[cfg(all(feature = "attack", not(debug_assertions)))]
compile_error!("the feature `attack` is for tests: not in a release build");
