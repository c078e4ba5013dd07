//! Room for control messages (cmsg(3)), and the writing of one.

/// Control messages of one call, aligned as the kernel wants them: enough for the packet
/// information of both families.
#[repr(C, align(8))]
pub(super) struct Control([u8; 128]);

impl Control {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self([0; 128])
    }

    /// Lets the kernel write to all of the room. It must outlive the use of `msg`.
    pub(super) fn receive(&mut self, msg: &mut libc::msghdr) {
        msg.msg_control = self.0.as_mut_ptr().cast();
        msg.msg_controllen = self.0.len() as _;
    }

    /// Makes `value` the only control message of `msg`. It must outlive the use of `msg`.
    pub(super) fn put<T: Copy>(
        &mut self,
        msg: &mut libc::msghdr,
        (level, kind): (i32, i32),
        value: T,
    ) {
        const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() + 16 <= size_of::<Self>()) };
        let len = u32::try_from(size_of::<T>()).unwrap_or(0);
        msg.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the room is aligned and, as asserted, holds
        // a header and the value, so the first header exists and its data can be written.
        unsafe {
            msg.msg_controllen = libc::CMSG_SPACE(len) as _;
            let header = libc::CMSG_FIRSTHDR(msg);
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
    }
}
