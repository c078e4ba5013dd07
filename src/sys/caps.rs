//! Capabilities: fewer at every step, none while running [SANDBOX-1, SANDBOX-3, SANDBOX-9, W-2].
//!
//! Everything that needs a capability (binding low ports, namespaces, the tap) happens before the
//! sandbox is complete, so the running process keeps none at all, in any set.

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;

use super::error::Error;
use super::sandbox::Fallback;

/// Needed between the start and the change of user [SANDBOX-1]. SETPCAP is here because without
/// it the bounding set cannot be cleared later [W-2].
const INITIAL: &[Capability] = &[
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_SYS_CHROOT,
];

/// Needed in addition by user 0: to map it into a new namespace (Linux 5.12), and to look into
/// the namespaces of other processes of a container.
const INITIAL_ROOT: &[Capability] = &[Capability::CAP_SETFCAP, Capability::CAP_SYS_PTRACE];

/// Needed from the change of user until [`drop_all`]; with [`Fallback::chroot`] CAP_SYS_CHROOT as
/// well.
const SETUP: &[Capability] = &[
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_PTRACE,
];

/// Reduces the effective and permitted sets to what the whole start needs. First step.
///
/// # Errors
/// The kernel refuses, which it does not for a reduction.
pub fn reduce_initial() -> Result<(), Error> {
    let mut keep: CapsHashSet = INITIAL.iter().copied().collect();
    if nix::unistd::geteuid().is_root() {
        keep.extend(INITIAL_ROOT);
    }
    restrict(&keep)
}

/// Reduces them to what working on namespaces needs. To be called once the target namespaces
/// exist; a command that is still to be started needs more, so after [`spawn`](super::spawn).
///
/// # Errors
/// The kernel refuses.
pub fn reduce_for_setup(fallback: Fallback) -> Result<(), Error> {
    let mut keep: CapsHashSet = SETUP.iter().copied().collect();
    if fallback.chroot {
        keep.insert(Capability::CAP_SYS_CHROOT);
    }
    restrict(&keep)
}

/// Empties all five sets: bounding, ambient, inheritable, permitted, effective.
///
/// # Errors
/// A set cannot be cleared. Only for the bounding set a missing CAP_SETPCAP is let pass: then we
/// had not been given the means, and `no_new_privs` makes up for it.
pub fn drop_all() -> Result<(), Error> {
    for cap in 0..64 {
        // SAFETY: takes integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) }) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break, // past the last capability this kernel knows
            Err(Errno::EPERM) => break,
            Err(errno) => {
                return Err(Error::Call {
                    what: "cannot clear the capability bounding set".into(),
                    errno,
                });
            }
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Permitted] {
        // Clearing the permitted set clears the effective one with it.
        caps::clear(None, set).map_err(failed)?;
    }
    Ok(())
}

/// Makes the capabilities that [`reduce_for_setup`] may keep effective again after a change of user
/// that kept the permitted set, and gives up all others.
pub(super) fn raise_for_setup() -> Result<(), Error> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let setup = SETUP.iter().copied().chain([Capability::CAP_SYS_CHROOT]);
    let keep: CapsHashSet = setup.filter(|cap| permitted.contains(cap)).collect();
    caps::set(None, CapSet::Effective, &keep).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(failed)
}

fn restrict(keep: &CapsHashSet) -> Result<(), Error> {
    for set in [CapSet::Effective, CapSet::Permitted] {
        let have = caps::read(None, set).map_err(failed)?;
        let keep: CapsHashSet = have.intersection(keep).copied().collect();
        caps::set(None, set, &keep).map_err(failed)?;
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value)] // used as `map_err(failed)`
fn failed(error: caps::errors::CapsError) -> Error {
    Error::Other(format!("cannot change capabilities: {error}"))
}
