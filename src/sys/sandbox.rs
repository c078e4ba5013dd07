//! The walls around the running process [SANDBOX-7..SANDBOX-10, W-2, W-40].
//!
//! Two steps, because going to the background comes between them. [`isolate`] takes away what can
//! be named (files, other processes, IPC objects) and all capabilities; [`seal`] takes away system
//! calls, and hides our memory from other processes of the same user.
//!
//! [Landlock](super::landlock) stands behind the former. Where the former cannot be had, because the
//! machine or a container does not let us have namespaces, it stands alone if the user wants that
//! rather than no start: then it has to be there.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{chdir, chroot, pivot_root};

use super::error::{Error, What};
use super::{caps, landlock, seccomp, userns};

/// How the process is going to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// As started, perhaps with a command of ours to wait for.
    Foreground,
    /// Detached: the fork that follows starts a PID namespace, too.
    Background,
}

/// What is done where a wall cannot be had. Without any of it we do not start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// Where the root cannot be pivoted the empty directory is moved on top of it, and entered
    /// [SANDBOX-8]. The files below are still mounted then, but nothing is left that could reach
    /// them.
    pub chroot: bool,
    /// Where there can be no namespaces Landlock keeps files out of reach.
    pub landlock: bool,
}

/// Moves into IPC, mount and UTS namespaces (in the background: PID too) of our own, makes an
/// empty read-only directory the root, and drops every capability.
///
/// Needs CAP_SYS_ADMIN in our user namespace and a single thread. Afterwards nothing can be opened
/// by name: have [`Null`](super::background::Null) and everything else open.
///
/// # Errors
/// Any step fails: there is no running with half a sandbox, unless `fallback` says which half will do.
pub fn isolate(run: Run, fallback: Fallback) -> Result<(), Error> {
    if let Err(error) = leave(run, fallback) {
        stay(fallback, error)?;
    }
    caps::drop_all()
}

/// Makes up for namespaces that we cannot have, and says so.
///
/// # Errors
/// `error`, why we cannot have them, or that there is no Landlock either.
fn stay(fallback: Fallback, error: Error) -> Result<(), Error> {
    if !fallback.landlock {
        return Err(error);
    }
    prctl::set_no_new_privs().what(|| "cannot renounce new privileges".into())?;
    if !landlock::restrict()? {
        let fact = error.fact();
        return Err(Error::Other(format!("{fact}; nor does this kernel have Landlock")));
    }
    log::warn!("{}: isolating by Landlock instead", error.fact());
    chdir("/").what(|| "cannot enter the root directory".into())
}

/// Leaves the namespaces and the file system that we were started in.
fn leave(run: Run, fallback: Fallback) -> Result<(), Error> {
    let mut flags = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    if run == Run::Background {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    unshare(flags)
        .map_err(|errno| userns::refused("cannot create namespaces to isolate in", errno, true))?;
    empty_root(fallback)
}

/// Makes the process not dumpable and unable to gain privileges, and installs the filter.
///
/// # Errors
/// The kernel refuses, or the filter does not know this machine.
pub fn seal(allow: seccomp::Allow) -> Result<(), Error> {
    seal_with(&seccomp::Filter::compile(allow)?)
}

/// [`seal`], for a process with another filter.
pub(super) fn seal_with(filter: &seccomp::Filter) -> Result<(), Error> {
    prctl::set_dumpable(false).what(|| "cannot make the process undumpable".into())?;
    prctl::set_no_new_privs().what(|| "cannot renounce new privileges".into())?;
    // One wall more where it can be had: there may be none, or too many around us already.
    if let Err(error) = landlock::restrict() {
        log::debug!("{error}");
    }
    #[cfg(feature = "attack")]
    if std::env::var_os(super::attack::UNFILTERED).is_some() {
        return Ok(());
    }
    filter.install()
}

/// Replaces the root by an empty tmpfs that can hold nothing.
fn empty_root(fallback: Fallback) -> Result<(), Error> {
    let none: Option<&str> = None;
    let recursive = MsFlags::MS_UNBINDABLE | MsFlags::MS_REC;
    // Unbindable implies private: nothing that follows is seen outside.
    mount(none, "/", none, recursive, none).what(|| "cannot detach mounts".into())?;

    let point = mount_point()?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_RDONLY;
    mount(Some("tmpfs"), point, Some("tmpfs"), flags, Some("nr_inodes=2,nr_blocks=0"))
        .what(|| format!("cannot mount an empty directory on {}", point.display()))?;
    chdir(point).what(|| format!("cannot enter {}", point.display()))?;
    // Stacks the old root on top of the new one, from where it is taken off: pivot_root(2).
    match (pivot_root(".", "."), fallback.chroot) {
        (Ok(()), _) => umount2(".", MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .what(|| "cannot leave the old root directory".into())?,
        // The root of an initramfs cannot be pivoted.
        (Err(_), true) => {
            mount(Some("."), "/", none, MsFlags::MS_MOVE, none)
                .and_then(|()| chroot("."))
                .what(|| "cannot change the root directory, not even by chroot".into())?;
        }
        (Err(errno), false) => {
            let hint = "see --chroot-fallback".to_owned();
            let what = "cannot change the root directory".to_owned();
            return Err(Error::Hint { what, errno, hint });
        }
    }
    chdir("/").what(|| "cannot enter the empty root directory".into())
}

/// Some directory: what is on it disappears for us alone. Minimal images may lack `/tmp` [W-40].
fn mount_point() -> Result<&'static Path, Error> {
    ["/tmp", "/run", "/var", "/dev", "/proc", "/usr", "/etc"]
        .into_iter()
        .map(Path::new)
        // Not a symbolic link, whose target could be anywhere.
        .find(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
        .ok_or_else(|| Error::Other("no directory to mount the empty root on".into()))
}
