//! What the kernel knows about a TCP connection.
//!
//! `struct tcp_info` grows with kernels; only bytes the kernel says it wrote are trusted, field
//! by field [TCP-101]. Offsets are those of `include/uapi/linux/tcp.h`.

use crate::translate::TcpView;

const RTT: usize = 68;
const BYTES_ACKED: usize = 120;
const MIN_RTT: usize = 148;
const DELIVERY_RATE: usize = 160;
const LENGTH: usize = 168;

/// `SO_MEMINFO` words (`include/uapi/linux/sock_diag.h`).
const MEMINFO_SNDBUF: usize = 3;
const MEMINFO_WMEM_QUEUED: usize = 5;
const MEMINFO_WORDS: usize = 9;

/// Room for the network and transport headers of a SYN with all options, and extension headers.
const SYN_HEADERS: usize = 256;

/// `TCP_INFO`, `None` if the socket is broken.
pub(super) fn view(fd: i32) -> Option<TcpView> {
    let mut raw = [0u8; LENGTH];
    let len = read_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut raw)?;
    fields(raw.get(..len)?)
}

/// What there is of it; `None` without the part that every kernel has.
fn fields(raw: &[u8]) -> Option<TcpView> {
    Some(TcpView {
        rtt_us: word(raw, RTT)?,
        min_rtt_us: word(raw, MIN_RTT).filter(|v| *v != 0),
        bytes_acked: long(raw, BYTES_ACKED),
        delivery_rate: long(raw, DELIVERY_RATE),
    })
}

/// Bytes of payload the send buffer can take without growing; half of the free memory, as the
/// kernel charges its own overhead too.
pub(super) fn free_space(fd: i32) -> u32 {
    let mut raw = [0u8; MEMINFO_WORDS * 4];
    if read_option(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut raw).is_none() {
        return 0;
    }
    let at = |n: usize| word(&raw, n * 4).unwrap_or(0);
    at(MEMINFO_SNDBUF).saturating_sub(at(MEMINFO_WMEM_QUEUED)) / 2
}

/// Type of service or traffic class of the SYN that opened an accepted connection: the network
/// header that the kernel kept of it (`TCP_SAVE_SYN`), and forgets now. 0 if it kept none, as with
/// SYN cookies.
pub(super) fn peer_tos(fd: i32) -> u8 {
    let mut raw = [0u8; SYN_HEADERS];
    let len = read_option(fd, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut raw).unwrap_or(0);
    match raw.get(..len) {
        Some([first, second, ..]) if first >> 4 == 4 => *second,
        Some([first, second, ..]) if first >> 4 == 6 => first << 4 | second >> 4,
        _ => 0,
    }
}

/// Size of the send buffer.
pub(super) fn send_buffer(fd: i32) -> u32 {
    let mut raw = [0u8; 4];
    match read_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &mut raw) {
        Some(_) => u32::from_ne_bytes(raw),
        None => 0,
    }
}

fn read_option(fd: i32, level: i32, name: i32, out: &mut [u8]) -> Option<usize> {
    let mut len = libc::socklen_t::try_from(out.len()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to a buffer of that size.
    let r = unsafe { libc::getsockopt(fd, level, name, out.as_mut_ptr().cast(), &raw mut len) };
    if r < 0 { None } else { usize::try_from(len).ok() }
}

fn word(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*raw.get(at..)?.first_chunk()?))
}

fn long(raw: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*raw.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    // [TCP-40] The kernel counts the SYN of connections it opened, and not of accepted ones.
    #[test]
    fn acknowledged_bytes() {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
        let (mut s, _) = l.accept().unwrap();
        c.write_all(b"hello").unwrap();
        s.read_exact(&mut [0; 5]).unwrap();
        s.write_all(b"hello").unwrap();
        c.read_exact(&mut [0; 5]).unwrap();
        let v = view(c.as_raw_fd()).unwrap();
        assert_eq!(v.bytes_acked, Some(6));
        assert!(v.min_rtt_us.is_some() && v.delivery_rate.is_some());
        // The acknowledgement of the answer may be delayed; the first five bytes were.
        assert!(free_space(c.as_raw_fd()) > 0);
        assert!(send_buffer(c.as_raw_fd()) > 0);
    }

    // [TCP-51] What a socket is said to have room for it takes, however it is cut: what is
    // queued counts as the kernel counts it, with its overhead.
    #[test]
    fn free_space_is_taken() {
        for segment in [100, 1400, 60_000] {
            let l = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
            let (_peer_that_does_not_read, _) = l.accept().unwrap();
            c.set_nonblocking(true).unwrap();
            c.set_nodelay(true).unwrap();
            let (data, mut rounds) = (vec![0; 60_000], 0);
            loop {
                let mut free = usize::try_from(free_space(c.as_raw_fd())).unwrap();
                if free == 0 {
                    break;
                }
                rounds += 1;
                while free > 0 {
                    let n = free.min(segment);
                    assert_eq!(c.write(&data[..n]).ok(), Some(n), "round {rounds}, {free} left");
                    free -= n;
                }
            }
            assert!(rounds > 0);
        }
    }

    // [TCP-101] Older kernels write less: each field is there or it is not.
    #[test]
    fn shorter_structures_of_older_kernels() {
        let mut raw = [0; LENGTH];
        for (at, value) in [(RTT, 1u32), (BYTES_ACKED, 2), (MIN_RTT, 3), (DELIVERY_RATE, 4)] {
            raw[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (len, acked, min_rtt, rate) in [
            (LENGTH, Some(2), Some(3), Some(4)),
            (LENGTH - 1, Some(2), Some(3), None),
            (MIN_RTT, Some(2), None, None),
            (BYTES_ACKED + 8, Some(2), None, None),
            (BYTES_ACKED + 7, None, None, None),
            (104, None, None, None),
        ] {
            let view = fields(&raw[..len]).unwrap();
            assert_eq!(view.rtt_us, 1);
            assert_eq!(
                (view.bytes_acked, view.min_rtt_us, view.delivery_rate),
                (acked, min_rtt, rate),
                "{len} bytes"
            );
        }
        assert_eq!(fields(&raw[..RTT]), None);
    }

    #[test]
    fn no_socket_no_view() {
        assert_eq!(view(-1), None);
        assert_eq!(free_space(-1), 0);
    }
}
