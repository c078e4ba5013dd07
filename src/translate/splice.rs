//! TCP between two sockets, one on the host and one in the guest's namespace, past the link.
//!
//! # Theory of operation
//!
//! A [`Splice`] has two [ends](End) and two [ways](Way), one per direction, which know nothing of
//! each other. A way moves bytes as long as its source may have some and its destination may take
//! some; what is known of either is remembered in the ends and corrected by what the kernel says
//! [SPLICE-9]. So there is nothing to wait for explicitly, and nothing that could be waited for in
//! vain or too often [SPLICE-16].
//!
//! Bytes take one of two routes:
//!
//! * *copied* through a buffer of ours: two system calls per message and no pipe. What the
//!   destination did not take goes to a backlog, for which memory is promised beforehand;
//! * *spliced* through a pipe, without a copy, once a whole buffer was filled at a time. A pipe
//!   found empty goes back when little came through it lately, so that idle connections have none
//!   [SPLICE-6]. Where no pipe can be had, copying goes on.
//!
//! Where there is neither memory nor a pipe the bytes stay in the source, and a timer tries again.
//!
//! "Would block" from a splice into a pipe means that the source is empty or that the pipe is full,
//! so it counts as the former only if the pipe is empty.
//!
//! The end of a stream is what a read of 0 bytes says, nothing else [SPLICE-12]. It is passed on
//! when everything before it was, and the flow is over when both were [SPLICE-13]. Only a pending
//! error resets: a socket both of whose directions are shut still has data to deliver.

use std::io::IoSlice;

use super::retry::Retry;
use super::tcp::SocketReady;
use super::{
    Deadline, Far, HostError, Io, Moved, Now, PipeId, Sent, SockId, SpliceSockets, TcpSockets,
    Verdict,
};
use crate::flow::{Backlog, FlowId, Pool};
use crate::wire::Endpoint;

/// Bytes moved per visit and direction.
const BUDGET: usize = 1 << 20;

/// A pipe that carried less than this in one visit is given back.
const BULK: usize = 64 << 10;

/// Slices of a backlog sent at a time.
const SLICES: usize = 16;

/// One of the two sockets.
#[derive(Debug)]
struct End {
    sock: SockId,
    /// May have something to read.
    readable: bool,
    /// May take something.
    writable: bool,
    /// Its end may be queued, or urgent data that splits a read: fewer bytes than asked for do not
    /// mean that there are no more.
    thorough: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// The pipe, if bytes are spliced.
    pipe: Option<PipeId>,
    /// Bytes in it [SPLICE-17].
    pending: usize,
    /// Bytes copied that the destination did not take.
    backlog: Backlog,
    /// Bytes charged to the pool for them.
    promised: u32,
    /// The source's end was seen.
    eof: bool,
    /// It was passed on.
    fin: bool,
    /// There was neither memory nor a pipe for what the source has.
    starved: bool,
}

/// A connection between a client on one side and a server on the other.
#[derive(Debug)]
pub struct Splice {
    client: End,
    server: End,
    up: Way,
    down: Way,
    /// The connection to the server is not complete.
    connecting: bool,
    /// Work is left over.
    more: bool,
    /// When to see whether there is memory or a pipe again.
    retry: Retry,
}

const _: () = assert!(size_of::<Splice>() <= 192);

/// A socket is broken.
struct Broken;

impl Splice {
    /// A flow for whoever connected with socket `client`; it leads to `to` on the `far` side
    /// [SPLICE-1, SPLICE-2].
    ///
    /// # Errors
    /// Why the server cannot be reached at all. The caller resets the client then [SPLICE-5].
    pub fn open<N: SpliceSockets>(
        id: FlowId,
        client: SockId,
        (far, to): (Far, Endpoint),
        net: &mut N,
    ) -> Result<Self, HostError> {
        let server = net.connect_far(id, far, to)?;
        Ok(Self {
            client: End::new(client),
            server: End::new(server),
            up: Way::default(),
            down: Way::default(),
            connecting: true,
            more: false,
            retry: Retry::default(),
        })
    }

    /// Something happened to the server's (`far`) or the client's socket.
    pub fn on_socket<O, N: TcpSockets + SpliceSockets>(
        &mut self,
        far: bool,
        ready: SocketReady,
        buf: &mut [u8],
        io: &mut Io<'_, O, N>,
    ) -> Verdict {
        let end = if far { &mut self.server } else { &mut self.client };
        if ready.error && io.net.connect_error(end.sock).is_some() {
            return Verdict::Abort;
        }
        end.readable |= ready.read;
        end.writable |= ready.write;
        end.thorough |= ready.read_closed;
        if self.connecting {
            if !far {
                // What it sends waits in its socket.
                return Verdict::Keep;
            }
            if !ready.write {
                return Verdict::Abort;
            }
            self.connecting = false;
        }
        let up = self.up.run(&mut self.client, &mut self.server, buf, io);
        let down = self.down.run(&mut self.server, &mut self.client, buf, io);
        let (Ok(up), Ok(down)) = (up, down) else { return Verdict::Abort };
        self.more = up || down;
        if self.up.starved || self.down.starved {
            self.retry.later(io.now);
        } else {
            self.retry.done();
        }
        if self.up.fin && self.down.fin { Verdict::Close } else { Verdict::Keep }
    }

    /// True if [`Splice::on_socket`] stopped for want of budget.
    pub fn wants_more(&self) -> bool {
        self.more
    }

    /// True if so much comes at a time that it is spliced.
    pub fn is_transfer(&self) -> bool {
        self.up.pipe.is_some() || self.down.pipe.is_some()
    }

    /// When to try again.
    pub fn deadline(&self) -> Deadline {
        self.retry.deadline()
    }

    /// True if [`Splice::on_socket`] is to be tried again, as memory or a pipe was missing.
    pub fn retries(&self, now: Now) -> bool {
        self.retry.is_due(now)
    }

    /// Gives back what the flow holds.
    pub fn release<N: TcpSockets + SpliceSockets>(
        &mut self,
        net: &mut N,
        pool: &mut Pool,
        how: Verdict,
    ) {
        for way in [&mut self.up, &mut self.down] {
            way.give_back(net);
            pool.clear(&mut way.backlog);
            way.promise(pool, 0);
        }
        for end in [&self.client, &self.server] {
            if how == Verdict::Abort {
                net.abort(end.sock);
            } else {
                net.close(end.sock);
            }
        }
    }
}

impl End {
    /// A new socket: the first event tells whether it can be read.
    fn new(sock: SockId) -> Self {
        Self { sock, readable: false, writable: true, thorough: false }
    }
}

impl Way {
    /// Moves what can be moved; true if more could be.
    fn run<O, N: TcpSockets + SpliceSockets>(
        &mut self,
        from: &mut End,
        to: &mut End,
        buf: &mut [u8],
        io: &mut Io<'_, O, N>,
    ) -> Result<bool, Broken> {
        let mut moved = 0usize;
        self.starved = false;
        let more = loop {
            self.flush(to, io)?;
            if !self.backlog.is_empty() {
                break false;
            }
            let progress = match self.pipe {
                Some(pipe) => self.splice(pipe, from, to, (buf.len(), &mut moved), io)?,
                None => self.copy(from, to, buf, &mut moved, io)?,
            };
            if !progress {
                break false;
            }
            if moved >= BUDGET {
                break true;
            }
        };
        if self.eof && !self.fin && self.pending == 0 && self.backlog.is_empty() {
            // [SPLICE-12]
            if !io.net.shutdown(to.sock) {
                return Err(Broken);
            }
            self.fin = true;
        }
        Ok(more)
    }

    /// One round through the pipe [SPLICE-8]; false if there is nothing more to do now.
    fn splice<O, N: TcpSockets + SpliceSockets>(
        &mut self,
        pipe: PipeId,
        from: &mut End,
        to: &mut End,
        (room, moved): (usize, &mut usize),
        io: &mut Io<'_, O, N>,
    ) -> Result<bool, Broken> {
        if from.readable && !self.eof {
            match io.net.fill(from.sock, pipe) {
                Moved::Bytes(n) => {
                    self.pending = self.pending.saturating_add(n);
                    *moved = moved.saturating_add(n);
                }
                Moved::End => self.eof = true,
                Moved::Nothing if self.pending == 0 => {
                    if from.thorough && self.promise(io.pool, small(room)) {
                        // A splice does not get past urgent data, a copy does.
                        self.give_back(io.net);
                        return Ok(true);
                    }
                    from.readable = false;
                }
                // Empty or the pipe is full: seen when the pipe is empty.
                Moved::Nothing => {}
                Moved::Broken => return Err(Broken),
            }
        }
        if self.pending == 0 {
            if *moved < BULK || self.eof {
                self.give_back(io.net);
            }
            return Ok(false);
        }
        if !to.writable {
            return Ok(false);
        }
        // All that is pending, not what was just read: the pipe may have held some before.
        match io.net.drain(pipe, to.sock, self.pending) {
            Moved::Bytes(n) => self.pending = self.pending.saturating_sub(n),
            Moved::Nothing => to.writable = false,
            Moved::End | Moved::Broken => return Err(Broken),
        }
        Ok(to.writable)
    }

    /// One message through the buffer; false if there is nothing more to do now.
    fn copy<O, N: TcpSockets + SpliceSockets>(
        &mut self,
        from: &mut End,
        to: &mut End,
        buf: &mut [u8],
        moved: &mut usize,
        io: &mut Io<'_, O, N>,
    ) -> Result<bool, Broken> {
        if self.eof || !from.readable || !to.writable {
            return Ok(false);
        }
        // Before anything is taken from the socket there has to be a place for it.
        if !self.promise(io.pool, small(buf.len())) {
            self.pipe = io.net.take_pipe();
            self.starved = self.pipe.is_none();
            return Ok(!self.starved);
        }
        let n = match io.net.receive(from.sock, buf) {
            Moved::Bytes(n) => n,
            other => {
                self.promise(io.pool, 0);
                match other {
                    Moved::End => self.eof = true,
                    Moved::Broken => return Err(Broken),
                    _ => from.readable = false,
                }
                return Ok(false);
            }
        };
        *moved = moved.saturating_add(n);
        let whole = n == buf.len();
        if !whole && !from.thorough {
            // Whatever comes later makes another event.
            from.readable = false;
        }
        let data = buf.get(..n).unwrap_or_default();
        let Sent::Bytes(sent) = io.net.send(to.sock, &[IoSlice::new(data)]) else {
            return Err(Broken);
        };
        let rest = data.get(sent..).unwrap_or_default();
        if rest.is_empty() {
            self.promise(io.pool, 0);
        } else {
            to.writable = false;
            if io.pool.append(&mut self.backlog, rest) < rest.len() {
                return Err(Broken);
            }
            self.promise(io.pool, self.backlog.len());
        }
        if whole {
            self.pipe = io.net.take_pipe();
        }
        Ok(from.readable)
    }

    /// Sends the backlog.
    fn flush<O, N: TcpSockets>(
        &mut self,
        to: &mut End,
        io: &mut Io<'_, O, N>,
    ) -> Result<(), Broken> {
        while to.writable && !self.backlog.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = io.pool.slices(&self.backlog, &mut slices);
            let slices = slices.get(..filled).unwrap_or_default();
            let offered: usize = slices.iter().map(|s| s.len()).sum();
            let Sent::Bytes(sent) = io.net.send(to.sock, slices) else { return Err(Broken) };
            to.writable = sent >= offered;
            io.pool.consume(&mut self.backlog, sent);
            self.promise(io.pool, self.backlog.len());
        }
        Ok(())
    }

    /// Charges `n` bytes to the pool, in place of what was charged before.
    fn promise(&mut self, pool: &mut Pool, n: u32) -> bool {
        let done = pool.promise(self.promised, n);
        if done {
            self.promised = n;
        }
        done
    }

    fn give_back<N: SpliceSockets>(&mut self, net: &mut N) {
        if let Some(pipe) = self.pipe.take() {
            net.return_pipe(pipe, self.pending == 0);
            self.pending = 0;
        }
    }
}

/// A length of a buffer, as the pool counts.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
