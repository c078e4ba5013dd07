//! Segments to the guest.

use super::{Events, Tcp};
use crate::translate::{FrameOut, Io};
use crate::wire::{Head, Mac, Path, Seq, TcpFlags, TcpHead};

impl Tcp {
    /// Link and network addresses of segments to the guest.
    pub(super) fn path(&self, src_mac: Mac, guest_mac: Mac) -> Path {
        Path {
            src_mac,
            dst_mac: guest_mac,
            src: self.ours,
            dst: self.guest,
            // Any value that is stable for the connection (RFC 6437).
            flow_label: self.sock.0.unsigned_abs(),
            tos: self.peer_tos,
            ttl: crate::wire::TTL,
        }
    }

    /// Sends a segment whose first `len` payload bytes are in the link's buffer already.
    /// False if the link lost it.
    pub(super) fn emit<O: FrameOut, N>(
        &mut self,
        io: &mut Io<'_, O, N>,
        flags: TcpFlags,
        seq: Seq,
        ack: Seq,
        window: u16,
        len: usize,
    ) -> bool {
        if self.events.has(Events::TIMESTAMPS) {
            let options = self.timestamps(io.now).encode();
            self.emit_with(io, flags, seq, ack, window, &options, len)
        } else {
            self.emit_with(io, flags, seq, ack, window, &[], len)
        }
    }

    /// The same with these options and no others.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a TCP header")]
    pub(super) fn emit_with<O: FrameOut, N>(
        &mut self,
        io: &mut Io<'_, O, N>,
        flags: TcpFlags,
        seq: Seq,
        ack: Seq,
        window: u16,
        options: &[u8],
        len: usize,
    ) -> bool {
        let path = self.path(io.mac_of(self.ours.addr), io.guest_mac);
        let tcp = TcpHead { seq, ack, flags, window, options, mss: self.gmss };
        match Head::tcp(&path, &tcp, len) {
            Some(head) => io.out.send(&head, len),
            None => false,
        }
    }

    /// The sequence number for a segment without payload: what was sent last, but not beyond the
    /// guest's window, where the guest would not look at its acknowledgement.
    pub(super) fn acceptable_seq(&self) -> Seq {
        if self.events.has(Events::ESTABLISHED) {
            self.tx_next.min(self.tx_una.add(self.gwin))
        } else {
            self.tx_next
        }
    }

    /// Sends a reset that the guest believes in whatever state it is.
    pub(super) fn emit_reset<O: FrameOut, N>(&mut self, io: &mut Io<'_, O, N>) {
        if self.events.has(Events::SYN_SENT) {
            // Nothing of the guest is known that could be acknowledged; an acknowledgement of
            // something else would make it ignore the reset.
            self.emit(io, TcpFlags::RST, self.tx_next, Seq(0), 0, 0);
            return;
        }
        // A guest in SYN-SENT needs the ACK flag to believe the reset [TCP-14].
        let flags = TcpFlags::RST.with(TcpFlags::ACK);
        let refused = self.events.has(Events::CONNECTING) && !self.events.has(Events::SYNACK_SENT);
        let seq = if refused { self.tx_next.sub(1) } else { self.acceptable_seq() };
        self.emit(io, flags, seq, self.rx_next, 0, 0);
    }
}
