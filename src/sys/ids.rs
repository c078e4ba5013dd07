//! Which user we run as, and becoming it [SANDBOX-5, W-27].
//!
//! Started as root of the machine we switch to `nobody`. Two traps of that switch are handled
//! here. The kernel marks a process that changed its user as not dumpable, which gives its
//! `/proc/self` files to root: the maps of a user namespace created later could then not be
//! written, so the mark is taken back (until [`sandbox::seal`](super::sandbox::seal) sets it for
//! good). And the switch clears all capabilities, without which the namespaces of other users
//! cannot be joined: the few that the remaining start needs are kept across it, and dropped with
//! the sandbox like all others.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, setgroups, setresgid, setresuid};

use super::error::{Error, What};
use super::{caps, userns};
use crate::config::RunAs;

/// The user and group we run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Decides: `--runas` if given; `nobody`, with a warning, if we are root of the machine; else the
/// effective ids, which includes root of a container.
///
/// # Errors
/// We are root and there is no user `nobody`.
pub fn resolve(runas: Option<RunAs>) -> Result<Ids, Error> {
    if let Some(RunAs { uid, gid }) = runas {
        return Ok(Ids { uid, gid });
    }
    if !geteuid().is_root() || !userns::is_initial() {
        return Ok(Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() });
    }
    match User::from_name("nobody") {
        Ok(Some(user)) => {
            log::warn!("started as root, switching to user nobody (see --runas)");
            Ok(Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
        }
        Ok(None) => Err(Error::Other("started as root, and there is no user nobody".into())),
        Err(errno) => {
            Err(Error::Call { what: "started as root, cannot look up nobody".into(), errno })
        }
    }
}

impl Ids {
    /// Becomes this user, for good. Files that only the starting user may create come before.
    ///
    /// # Errors
    /// We may not become that user.
    pub fn switch(&self) -> Result<(), Error> {
        let what = || format!("cannot switch to user {} and group {}", self.uid, self.gid);
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let changes = uid != geteuid();
        match setgroups(&[]) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(Error::Call { what: what(), errno }),
        }
        if changes {
            prctl::set_keepcaps(true).what(what)?;
        }
        setresgid(gid, gid, gid).what(what)?;
        setresuid(uid, uid, uid).what(what)?;
        if changes {
            prctl::set_keepcaps(false).what(what)?;
            caps::raise_for_setup()?;
        }
        own_proc()
    }
}

/// Takes back the mark "not dumpable", so that our own files in `/proc` are ours.
pub(super) fn own_proc() -> Result<(), Error> {
    prctl::set_dumpable(true).what(|| "cannot make the process dumpable".into())
}
