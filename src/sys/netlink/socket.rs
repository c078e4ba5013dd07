//! A blocking netlink socket: dumps, single requests, pipelined batches.

use std::io;

use netlink_sys::{
    Socket as RawSocket, SocketAddr,
    protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};

use super::message::{self, Message, Received};

/// Receive buffer, bytes. The kernel's dump datagrams do not exceed 32 KiB [NL-1].
const RECEIVE_BYTES: usize = 64 * 1024;

/// Messages per datagram of a batch. Every one of them may be answered by an error message, and
/// all the answers wait in the socket's receive queue until we read: about 1 KiB of kernel memory
/// each, against a default limit of 208 KiB.
const BATCH_MESSAGES: usize = 64;

/// Bytes per datagram of a batch, well below the default send buffer.
const BATCH_BYTES: usize = 32 * 1024;

/// How often an interrupted dump is repeated before its last result is taken as it is.
const DUMP_ATTEMPTS: usize = 8;

/// A netlink socket. It stays in the network namespace it was opened in.
pub struct Socket {
    raw: RawSocket,
    /// Sequence number of the last request; the first one is 1.
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a routing socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn open() -> io::Result<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    /// As [`Socket::open`], for sock_diag(7).
    pub(super) fn open_diag() -> io::Result<Self> {
        Self::open_protocol(NETLINK_SOCK_DIAG)
    }

    fn open_protocol(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        // All three only improve matters: filters that the kernel applies, shorter error
        // messages. Kernels before 4.20 and 4.3 do without.
        let _ = raw.set_netlink_get_strict_chk(true);
        let _ = raw.set_cap_ack(true);
        Ok(Self { raw, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Dumps a table: every reply of `reply` type, up to the end of the dump.
    ///
    /// A table that changes meanwhile makes the kernel flag the dump as interrupted; it is
    /// repeated then. A family the kernel lacks, or a table that does not exist yet, is empty.
    ///
    /// # Errors
    /// The kernel's error for the request, or a socket error.
    pub(super) fn dump(&mut self, get: u16, reply: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 1..DUMP_ATTEMPTS {
            let (messages, interrupted) = self.dump_once(get, reply, body)?;
            if !interrupted {
                return Ok(messages);
            }
        }
        log::warn!("netlink: the host's configuration keeps changing, using what was read last");
        Ok(self.dump_once(get, reply, body)?.0)
    }

    /// As `dump`, once: a table that changed meanwhile is taken as it was read.
    pub(super) fn dump_as_is(
        &mut self,
        get: u16,
        reply: u16,
        body: &[u8],
    ) -> io::Result<Vec<Message>> {
        self.dump_once(get, reply, body).map(|(messages, _)| messages)
    }

    /// Sends one request and returns the messages that answer it, without its acknowledgement.
    ///
    /// # Errors
    /// The kernel's error for the request, or a socket error.
    pub(super) fn request(&mut self, message: &Message) -> io::Result<Vec<Message>> {
        let sequence = self.next_sequence();
        let mut wire = Vec::with_capacity(message.wire_len());
        message.emit(message::F_ACK, sequence, &mut wire);
        self.send(&wire)?;
        let mut replies = Vec::new();
        let mut result = None;
        while result.is_none() {
            self.receive(|r| {
                expect_sequence(&r, sequence, sequence)?;
                match r.kind {
                    message::ERROR => result = Some(r.errno()),
                    message::NOOP => {}
                    _ => replies.push(owned(&r)),
                }
                Ok(())
            })?;
        }
        match result {
            Some(0) | None => Ok(replies),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Sends many requests, a datagram's worth at a time, and returns the error number of each (0
    /// for success) in order.
    ///
    /// Only the last one of a datagram asks for an acknowledgement: the kernel works through a
    /// datagram in order before the send returns, so its answer is the last of them.
    ///
    /// # Errors
    /// Socket errors only.
    pub(super) fn batch(&mut self, messages: &[Message]) -> io::Result<Vec<i32>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut rest = messages;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch_len(rest));
            results.extend(self.batch_once(now)?);
            rest = later;
        }
        Ok(results)
    }

    fn batch_once(&mut self, messages: &[Message]) -> io::Result<Vec<i32>> {
        let mut wire = Vec::new();
        let first = self.sequence.wrapping_add(1);
        let mut last = first;
        for (i, message) in messages.iter().enumerate() {
            last = self.next_sequence();
            let ack = if i + 1 == messages.len() { message::F_ACK } else { 0 };
            message.emit(ack, last, &mut wire);
        }
        self.send(&wire)?;
        let mut results = vec![0; messages.len()];
        let mut done = false;
        while !done {
            self.receive(|r| {
                expect_sequence(&r, first, last)?;
                if r.kind == message::ERROR {
                    let at = usize::try_from(r.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                    if let Some(slot) = results.get_mut(at) {
                        *slot = r.errno();
                    }
                    done |= r.sequence == last;
                }
                Ok(())
            })?;
        }
        Ok(results)
    }

    fn dump_once(&mut self, get: u16, reply: u16, body: &[u8]) -> io::Result<(Vec<Message>, bool)> {
        let request = Message { kind: get, flags: message::F_DUMP, body: body.to_vec() };
        let sequence = self.next_sequence();
        let mut wire = Vec::new();
        // No NLM_F_ACK: NLMSG_DONE, or the error, is what ends a dump.
        request.emit(0, sequence, &mut wire);
        self.send(&wire)?;
        let (mut messages, mut interrupted, mut result) = (Vec::new(), false, None);
        while result.is_none() {
            self.receive(|r| {
                expect_sequence(&r, sequence, sequence)?;
                interrupted |= r.flags & message::F_DUMP_INTR != 0;
                match r.kind {
                    message::DONE | message::ERROR => result = Some(r.errno()),
                    message::OVERRUN => interrupted = true,
                    kind if kind == reply => messages.push(owned(&r)),
                    _ => {}
                }
                Ok(())
            })?;
        }
        match result {
            Some(0) | None => Ok((messages, interrupted)),
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT) => Ok((Vec::new(), false)),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, wire: &[u8]) -> io::Result<()> {
        retry(|| self.raw.send_to(wire, &SocketAddr::new(0, 0), 0)).map(drop)
    }

    /// Receives one datagram and hands over each of its messages.
    fn receive(&mut self, mut each: impl FnMut(Received<'_>) -> io::Result<()>) -> io::Result<()> {
        self.buffer.clear();
        let (len, from) = retry(|| self.raw.recv_from(&mut self.buffer, libc::MSG_TRUNC))?;
        if from.port_number() != 0 {
            return Ok(()); // not from the kernel
        }
        if len > self.buffer.len() {
            return Err(invalid("datagram longer than the receive buffer"));
        }
        message::walk(&self.buffer).try_for_each(&mut each)
    }
}

/// How many of `messages` (not empty) go into one datagram; at least one.
fn batch_len(messages: &[Message]) -> usize {
    let mut bytes = 0usize;
    let fitting = messages.iter().take(BATCH_MESSAGES).take_while(|m| {
        bytes = bytes.saturating_add(m.wire_len());
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// Everything is drained up to its end, so an answer to another request means that we are out of
/// step with the kernel, and nothing it says can be trusted any more [NL-1].
fn expect_sequence(r: &Received<'_>, first: u32, last: u32) -> io::Result<()> {
    if r.sequence.wrapping_sub(first) <= last.wrapping_sub(first) {
        return Ok(());
    }
    Err(invalid("answer to a request we did not make"))
}

fn owned(r: &Received<'_>) -> Message {
    Message { kind: r.kind, flags: r.flags, body: r.body.to_vec() }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::message::{GETLINK, LinkHeader, NEWLINK};
    use super::*;

    // [NL-1] A failed request does not poison the ones after it.
    #[test]
    fn errors_leave_the_socket_usable() {
        let mut s = Socket::open().unwrap();
        let body =
            LinkHeader { index: 0x7fff_fff0, ..Default::default() }.body(&Default::default());
        let get = Message { kind: GETLINK, flags: 0, body };
        for _ in 0..3 {
            assert_eq!(s.request(&get).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
        let links = s.dump(GETLINK, NEWLINK, &[0; LinkHeader::LEN]).unwrap();
        assert!(!links.is_empty());
        assert_eq!(s.batch(&vec![get; 200]).unwrap(), vec![libc::ENODEV; 200]);
        assert_eq!(s.dump(GETLINK, NEWLINK, &[0; LinkHeader::LEN]).unwrap().len(), links.len());
    }

    #[test]
    fn batches_are_bounded_but_never_empty() {
        let m = |len| Message { kind: 1, flags: 0, body: vec![0; len] };
        assert_eq!(batch_len(&vec![m(60); 500]), BATCH_MESSAGES);
        assert_eq!(batch_len(&vec![m(20_000); 5]), 1);
        assert_eq!(batch_len(&[m(60_000)]), 1);
    }

    #[test]
    fn sequence_windows() {
        let r = |sequence| Received { kind: 0, flags: 0, sequence, body: &[] };
        assert!(expect_sequence(&r(5), 4, 6).is_ok());
        assert!(expect_sequence(&r(3), 4, 6).is_err());
        assert!(expect_sequence(&r(7), 4, 6).is_err());
        assert!(expect_sequence(&r(0), u32::MAX, 1).is_ok());
    }
}
