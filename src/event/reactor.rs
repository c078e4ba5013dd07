//! A façade over mio: register once, kernel events first, then leftovers.
//!
//! System calls: `epoll_wait`, `epoll_ctl`, `sched_yield`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::courtesy::Courtesy;
use super::spin::{self, Spin};
use super::token::{Source, encode, source};

/// What happened to a descriptor. All of it is a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Data, a connection, or the end of the stream can be read.
    pub read: bool,
    /// More can be written.
    pub write: bool,
    /// An error or hang-up is pending.
    pub error: bool,
    /// The peer will send nothing more, or (where asked for) sent urgent data: a short read does not
    /// mean that nothing is left.
    pub read_closed: bool,
}

impl From<&Event> for Ready {
    fn from(e: &Event) -> Self {
        Self {
            read: e.is_readable() || e.is_read_closed(),
            write: e.is_writable(),
            error: e.is_error(),
            read_closed: e.is_read_closed() || e.is_priority(),
        }
    }
}

/// Registers descriptors.
#[derive(Debug)]
pub struct Registrar(Registry);

impl Registrar {
    /// Registers a descriptor for as long as it is open, edge-triggered.
    pub fn add(&self, fd: BorrowedFd<'_>, from: Source, write: bool) -> io::Result<()> {
        let interest =
            if write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.0.register(&mut SourceFd(&fd.as_raw_fd()), encode(from), interest)
    }

    /// As [`Registrar::add`], for a stream that is read to the last byte: urgent data counts.
    pub fn add_stream(&self, fd: BorrowedFd<'_>, from: Source) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.0.register(&mut SourceFd(&fd.as_raw_fd()), encode(from), interest)
    }
}

/// The set of registered descriptors and the sources with work left over.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    events: Events,
    again: Vec<Token>,
    batch: Vec<(Source, Ready)>,
    spin: Spin,
    courtesy: Courtesy,
    /// When this turn began.
    began: Instant,
}

impl Reactor {
    /// Events taken from the kernel at a time.
    const EVENTS: usize = 128;

    /// An empty set. `leftovers` bounds the ready list, which is allocated here.
    pub fn new(leftovers: usize) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(Self::EVENTS),
            again: Vec::with_capacity(leftovers),
            batch: Vec::with_capacity(leftovers.saturating_add(Self::EVENTS)),
            spin: Spin::new(),
            courtesy: Courtesy::new(),
            began: Instant::now(),
        })
    }

    /// A handle to register descriptors with, for whoever opens them.
    pub fn registrar(&self) -> io::Result<Registrar> {
        Ok(Registrar(self.poll.registry().try_clone()?))
    }

    /// Asks to visit a source again next turn: its budget is spent and work is left.
    pub fn again(&mut self, from: Source) {
        let token = encode(from);
        if self.again.last() != Some(&token) {
            self.again.push(token);
        }
    }

    /// The turn is over. Did it serve `transfers`, which a moment does not matter to, and nothing else?
    pub fn served(&mut self, transfers: bool) {
        self.courtesy.served(transfers);
    }

    /// Waits for events, at most `timeout`; does not wait while leftovers are listed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.again.is_empty() { timeout } else { Some(Duration::ZERO) };
        if timeout == Some(Duration::ZERO) || !self.put_off()? {
            self.take(timeout)?;
        }
        self.began = Instant::now();
        self.batch.clear();
        let leftover = Ready { read: true, write: true, ..Ready::default() };
        self.batch
            .extend(self.events.iter().filter_map(|e| Some((source(e.token())?, Ready::from(e)))));
        self.batch.extend(self.again.drain(..).filter_map(|t| Some((source(t)?, leftover))));
        Ok(())
    }

    /// Puts off going to sleep, where that is likely to be worth it; true if there is something now.
    fn put_off(&mut self) -> io::Result<bool> {
        if !self.courtesy.is_calm() {
            return self.look_again();
        }
        let began = Instant::now();
        // Nobody waits for the next part of a transfer as for an answer.
        if self.courtesy.wanted(began) {
            std::thread::yield_now();
            self.courtesy.stood_back(began, Instant::now());
        }
        Ok(false)
    }

    /// Asks again for a moment, where that is likely to be worth it; true if there was something.
    fn look_again(&mut self) -> io::Result<bool> {
        let began = Instant::now();
        if !self.spin.wanted(self.sources(), (self.began, began)) {
            return Ok(false);
        }
        loop {
            self.take(Some(Duration::ZERO))?;
            let found = !self.events.is_empty();
            let now = Instant::now();
            if found || now.duration_since(began) >= spin::LIMIT {
                self.spin.looked(found, (began, now));
                return Ok(found);
            }
        }
    }

    /// How many there were work for; the link is one, with however many queues.
    fn sources(&self) -> usize {
        let link = |(source, _): &&(Source, Ready)| matches!(source, Source::Link(_));
        let queues = self.batch.iter().filter(link).count();
        self.batch.len().saturating_sub(queues.saturating_sub(1))
    }

    fn take(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        Ok(())
    }

    /// The events of this turn, by position.
    pub fn event(&self, n: usize) -> Option<(Source, Ready)> {
        self.batch.get(n).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn leftovers_are_served_without_waiting() {
        let mut r = Reactor::new(4).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        r.registrar().unwrap().add(a.as_fd(), Source::Link(0), false).unwrap();
        b.write_all(b"x").unwrap();
        r.wait(Some(Duration::from_secs(5))).unwrap();
        let (s, ready) = r.event(0).unwrap();
        assert_eq!((s, ready.read), (Source::Link(0), true));
        // Nothing was read, and the edge is not repeated.
        r.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(r.event(0), None);
        r.again(Source::Link(0));
        r.again(Source::Link(0));
        r.wait(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(r.event(0).unwrap().0, Source::Link(0));
        assert_eq!(r.event(1), None);
    }

    #[test]
    fn queues_of_the_link_are_one_source() {
        let mut r = Reactor::new(4).unwrap();
        let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        for ((a, b), source) in pairs.iter().zip([Source::Link(0), Source::Link(1), Source::Signal])
        {
            r.registrar().unwrap().add(a.as_fd(), source, false).unwrap();
            (&*b).write_all(b"x").unwrap();
        }
        r.wait(Some(Duration::from_secs(5))).unwrap();
        assert_eq!((r.batch.len(), r.sources()), (3, 2));
    }
}
