//! Hooks that make a system call fail in a process and its children, as a container or an initramfs
//! would.

use std::io;

/// pivot_root(2) fails with EINVAL, as where the root is an initramfs.
#[allow(dead_code)] // not by every test
pub(crate) fn pivot_root() -> io::Result<()> {
    fails(libc::SYS_pivot_root, libc::EINVAL)
}

/// unshare(2) fails with EPERM, as in a container that allows no namespaces.
pub(crate) fn unshare() -> io::Result<()> {
    fails(libc::SYS_unshare, libc::EPERM)
}

fn fails(call: libc::c_long, errno: i32) -> io::Result<()> {
    let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let number = u32::try_from(call).unwrap_or(0);
    let mut program = [
        load(0), // the number of the call
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | errno.unsigned_abs() },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 },
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: sets a flag and takes no memory.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its description live until the call returns.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
