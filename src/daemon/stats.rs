//! Counters of events, on standard error (`--stats`) [CLI-23].
//!
//! A row says how often each kind of source has been served since the start, and how many packets
//! were dropped. There is at most one row per interval, and none while nothing happens. The
//! columns are those of passt whose sources exist here, and the dropped packets.

use std::fmt::Write as _;
use std::io;

use crate::config::Proto;
use crate::event::Source;
use crate::translate::FlowKind;

/// Rows between two lines that name the columns.
const PAGE: u32 = 20;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Tcp,
    TcpSpliced,
    TcpListen,
    Timer,
    UdpListen,
    Udp,
    UdpSpliced,
    Ping,
    Netns,
    Link,
    Guest,
    Dropped,
}

impl Column {
    const ALL: [(Self, &str); 12] = [
        (Self::Tcp, "tcp"),
        (Self::TcpSpliced, "tcp-s"),
        (Self::TcpListen, "tcp-l"),
        (Self::Timer, "timer"),
        (Self::UdpListen, "udp-l"),
        (Self::Udp, "udp"),
        (Self::UdpSpliced, "udp-s"),
        (Self::Ping, "ping"),
        (Self::Netns, "netns"),
        (Self::Link, "link"),
        (Self::Guest, "guest"),
        (Self::Dropped, "drop"),
    ];
}

/// The counters.
#[derive(Debug)]
pub(super) struct Stats {
    counts: [u64; Column::ALL.len()],
    /// Milliseconds between rows.
    interval: u64,
    /// When the next row may be printed, milliseconds of the clock.
    due: u64,
    rows: u32,
    /// Something was counted since the last row.
    news: bool,
    line: String,
}

impl Stats {
    /// All zero; rows at most every `delay` seconds.
    pub(super) fn new(delay: u32) -> Self {
        Self {
            counts: [0; Column::ALL.len()],
            interval: u64::from(delay).saturating_mul(1000),
            due: 0,
            rows: 0,
            news: false,
            line: String::with_capacity(200),
        }
    }

    /// Counts an event. `flow` and `listener` tell what the source is, if it is one of these.
    pub(super) fn count(&mut self, source: Source, flow: Option<FlowKind>, proto: Option<Proto>) {
        let column = match (source, flow, proto) {
            (Source::Link(_), ..) => Column::Link,
            (Source::Guest, ..) => Column::Guest,
            (Source::Netns, ..) => Column::Netns,
            (Source::Listener(_), _, Some(Proto::Tcp)) => Column::TcpListen,
            (Source::Listener(_), _, Some(Proto::Udp)) => Column::UdpListen,
            (Source::Flow { .. }, Some(kind), _) => match kind {
                FlowKind::Tcp => Column::Tcp,
                FlowKind::TcpSpliced => Column::TcpSpliced,
                FlowKind::Udp => Column::Udp,
                FlowKind::UdpSpliced => Column::UdpSpliced,
                FlowKind::Ping => Column::Ping,
            },
            // The end is near, or what it was for has gone.
            _ => return,
        };
        self.add(column);
    }

    /// Counts a turn in which a timer was due.
    pub(super) fn timer(&mut self) {
        self.add(Column::Timer);
    }

    /// The end of a turn: perhaps it is time for a row.
    pub(super) fn turn(&mut self, now: u64, dropped: u64) {
        self.counts[Column::Dropped as usize] = dropped;
        if now < self.due || !std::mem::take(&mut self.news) {
            return;
        }
        self.due = now.saturating_add(self.interval);
        self.line.clear();
        if self.rows.is_multiple_of(PAGE) {
            for (_, name) in Column::ALL {
                let _ = write!(self.line, "{name:>6} ");
            }
            self.end_line();
        }
        self.rows = self.rows.wrapping_add(1);
        for (column, _) in Column::ALL {
            let _ = write!(self.line, "{:>6} ", self.counts[column as usize]);
        }
        self.end_line();
        // Nobody could be told of an error.
        let _ = nix::unistd::write(io::stderr(), self.line.as_bytes());
    }

    fn end_line(&mut self) {
        self.line.truncate(self.line.trim_end().len());
        self.line.push('\n');
    }

    fn add(&mut self, column: Column) {
        let count = &mut self.counts[column as usize];
        *count = count.saturating_add(1);
        self.news = true;
    }
}
