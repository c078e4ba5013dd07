//! Room for control messages (cmsg(3)), the writing of one, and the reading of what the kernel
//! wrote.
//!
//! Reading goes by the bytes of the room and by lengths that were checked, not by the pointers of
//! cmsg(3): one that was made from a reference to a header must not be followed beyond it.

use std::mem::MaybeUninit;
use std::{iter, ptr};

/// Where the data of a message starts, from its header on.
// SAFETY: only computes.
const DATA: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// What can be read from a control message.
///
/// # Safety
/// Any bytes are a value of it.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers, and structures of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: as above.
unsafe impl Plain for libc::in6_pktinfo {}

/// A control message that was received.
pub(super) struct Message<'a> {
    /// Level and type.
    pub(super) kind: (i32, i32),
    data: &'a [u8],
}

impl Message<'_> {
    /// Its data. What the message is too short for is zero.
    pub(super) fn value<T: Plain>(&self) -> T {
        if let Some(all) = self.data.get(..size_of::<T>()) {
            // SAFETY: a slice of its size, and any bytes are a value.
            return unsafe { all.as_ptr().cast::<T>().read_unaligned() };
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: there is less than a value has room for, and any bytes are one.
        unsafe {
            ptr::copy_nonoverlapping(
                self.data.as_ptr(),
                value.as_mut_ptr().cast(),
                self.data.len(),
            );
            value.assume_init()
        }
    }
}

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

    /// What the kernel wrote in a call with `msg`.
    pub(super) fn messages(&self, msg: &libc::msghdr) -> impl Iterator<Item = Message<'_>> {
        // The types of both lengths differ between C libraries.
        #[allow(clippy::unnecessary_cast)]
        let len = msg.msg_controllen as usize;
        let mut rest = self.0.get(..len).unwrap_or(&self.0);
        iter::from_fn(move || {
            let header = rest.get(..size_of::<libc::cmsghdr>())?;
            // SAFETY: a slice of its size, and any bytes are a header.
            let header = unsafe { header.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
            #[allow(clippy::unnecessary_cast)]
            let len = header.cmsg_len as usize;
            let data = rest.get(DATA..len)?;
            rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
            Some(Message { kind: (header.cmsg_level, header.cmsg_type), data })
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes the room look as if the kernel had written this.
    fn received(bytes: &[u8]) -> (Control, libc::msghdr) {
        let mut control = Control::new();
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        control.receive(&mut msg);
        msg.msg_controllen = bytes.len() as _;
        control.0[..bytes.len()].copy_from_slice(bytes);
        (control, msg)
    }

    /// A message, padded.
    fn message<T: Copy>(kind: (i32, i32), value: T) -> Vec<u8> {
        let mut control = Control::new();
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        control.put(&mut msg, kind, value);
        control.0[..DATA + size_of::<T>().next_multiple_of(size_of::<usize>())].to_vec()
    }

    /// As the macros of cmsg(3) have them.
    fn by_macros(msg: &mut libc::msghdr) -> Vec<(i32, i32)> {
        let mut found = vec![];
        // SAFETY: the messages are well-formed, and the pointers those of the whole room.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(msg);
            while !header.is_null() {
                found.push(((*header).cmsg_level, (*header).cmsg_type));
                header = libc::CMSG_NXTHDR(msg, header);
            }
        }
        found
    }

    // Run by Miri, too: reading by pointers that came from a reference to a header, as it was
    // done, is what it does not let pass.
    #[test]
    fn what_was_written_is_read() {
        let info = libc::in_pktinfo {
            ipi_ifindex: 7,
            ipi_spec_dst: libc::in_addr { s_addr: 1 },
            ipi_addr: libc::in_addr { s_addr: 2 },
        };
        let mut bytes = message((1, 2), 3u8);
        bytes.extend(message((4, 5), -6i32));
        bytes.extend(message((7, 8), info));
        let (mut control, mut msg) = received(&bytes);
        let kinds: Vec<_> = control.messages(&msg).map(|m| m.kind).collect();
        assert_eq!(kinds, [(1, 2), (4, 5), (7, 8)]);
        let found: Vec<_> = control.messages(&msg).collect();
        assert_eq!((found[0].value::<u8>(), found[1].value::<i32>()), (3, -6));
        assert_eq!(found[2].value::<libc::in_pktinfo>().ipi_addr.s_addr, 2);
        assert_eq!(found[0].value::<i32>(), i32::from_ne_bytes([3, 0, 0, 0]), "zeros follow");
        let len = msg.msg_controllen;
        control.receive(&mut msg);
        msg.msg_controllen = len;
        assert_eq!(by_macros(&mut msg), kinds);
    }

    #[test]
    fn a_message_that_was_cut_is_none() {
        let bytes = message((4, 5), 6i32);
        for len in 0..DATA + size_of::<i32>() {
            let (control, msg) = received(&bytes[..len]);
            assert!(control.messages(&msg).next().is_none(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..128),
        ) {
            let (control, msg) = received(&bytes);
            for message in control.messages(&msg) {
                message.value::<libc::in6_pktinfo>();
            }
        }
    }
}
