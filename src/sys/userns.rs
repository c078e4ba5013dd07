//! User namespaces: the source of all our rights, and the first wall around us [NS-2, NS-3].
//!
//! With a new user namespace comes every capability *inside* it, which is what an ordinary user
//! needs to create the other namespaces. `passt` takes one without any id mapping, so that its
//! user is nobody in particular; a command that `pasta` starts gets one in which it is root.
//!
//! Listeners on low ports of the host must be bound before, with the capabilities of the host
//! [SANDBOX-4, W-1].

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::error::{Error, What};
use super::ids::{self, Ids};

/// Whether [`join`] had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// We are in the namespace now.
    Moved,
    /// We had been in it all along [W-45].
    Already,
}

/// Creates a user namespace and enters it. With `map`, those ids are root inside; without, none
/// is mapped. Needs a single-threaded process and, with `map`, the ids already switched to.
///
/// # Errors
/// The kernel, or a policy, does not allow it. A map that cannot be written is a warning.
pub fn create(map: Option<Ids>) -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| refused("cannot create a user namespace", errno, map.is_none()))?;
    ids::own_proc()?;
    if let Some(Ids { uid, gid }) = map {
        for (file, text) in [
            ("uid_map", format!("0 {uid} 1")),
            ("setgroups", "deny".into()), // or an ordinary user may not write the next one
            ("gid_map", format!("0 {gid} 1")),
        ] {
            if let Err(error) = fs::write(format!("/proc/self/{file}"), text) {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                log::warn!("cannot write /proc/self/{file}: {}", errno.desc());
            }
        }
    }
    Ok(())
}

/// Enters the user namespace at `path`, unless it is the one we are in.
///
/// # Errors
/// It does not exist, is none, or is not ours to enter. The text names the path.
pub fn join(path: &Path) -> Result<Joined, Error> {
    let name = path.display();
    let file = File::open(path).what(|| format!("cannot open user namespace {name}"))?;
    if super::netns::namespace_type(&file) != Some(libc::CLONE_NEWUSER) {
        return Err(Error::Other(format!("{name} is not a user namespace")));
    }
    if same(&file)? {
        return Ok(Joined::Already);
    }
    setns(&file, CloneFlags::CLONE_NEWUSER)
        .what(|| format!("cannot join user namespace {name}"))?;
    ids::own_proc()?;
    Ok(Joined::Moved)
}

/// Enters the user namespace of a process, unless it is the one we are in.
///
/// # Errors
/// As [`join`]; a process that is gone is named as such.
pub fn join_pid(pid: i32) -> Result<Joined, Error> {
    super::netns::exists(pid)?;
    join(&Path::new("/proc").join(pid.to_string()).join("ns/user"))
}

/// Enters the user namespace that owns a network namespace, unless it is the one we are in: whoever
/// may work in a network namespace is decided there. False if the owner is not among ours.
///
/// # Errors
/// It is not ours to enter.
pub fn join_owner(netns: &File) -> Result<bool, Error> {
    /// `_IO(0xb7, 0x1)` of linux/nsfs.h.
    const NS_GET_USERNS: u32 = 0xb701;
    // SAFETY: the request takes no argument, and the file is that of a namespace.
    let owner = unsafe { libc::ioctl(netns.as_raw_fd(), NS_GET_USERNS as _) };
    let Ok(owner) = Errno::result(owner) else { return Ok(false) };
    // SAFETY: the kernel has just created it for us.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    if !same(&owner)? {
        setns(&owner, CloneFlags::CLONE_NEWUSER)
            .what(|| "cannot join the user namespace that owns the network namespace".into())?;
        ids::own_proc()?;
    }
    Ok(true)
}

/// Whether this is the machine's own user namespace [SANDBOX-2]: all ids map to themselves.
#[must_use]
pub fn is_initial() -> bool {
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return false };
    map.lines().count() == 1 && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Describes a refused namespace, with the switches that usually cause it, and what can be done
/// without one if it was to be a wall and nothing else.
pub(super) fn refused(what: &str, errno: Errno, wall: bool) -> Error {
    let what = what.to_owned();
    let setting = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let mut hints = Vec::new();
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        hints.push("sysctl user.max_user_namespaces is 0");
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        hints.push("sysctl kernel.unprivileged_userns_clone is 0");
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        hints.push("AppArmor: sysctl kernel.apparmor_restrict_unprivileged_userns is 1");
    }
    if hints.is_empty() && matches!(errno, Errno::EPERM | Errno::ENOSPC | Errno::EUSERS) {
        hints.push(
            "check sysctls user.max_*_namespaces and kernel.unprivileged_userns_clone, AppArmor, \
             and the container's seccomp profile; there are none in a chroot",
        );
    }
    if hints.is_empty() {
        return Error::Call { what, errno };
    }
    if wall {
        hints.push("or see --landlock-fallback");
    }
    Error::Hint { what, errno, hint: hints.join("; ") }
}

/// Whether `file` is the user namespace we are in.
fn same(file: &File) -> Result<bool, Error> {
    let what = || "cannot examine user namespaces".to_owned();
    let ours = fs::metadata("/proc/self/ns/user").what(what)?;
    let theirs = file.metadata().what(what)?;
    Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
}
