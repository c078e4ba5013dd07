//! Ports that follow the other side (`auto`) [FWD-19..FWD-24].
//!
//! # Theory of operation
//!
//! A bit more than once a second the kernel is asked which ports are bound in either namespace, as far as rules
//! want to know. A port of a rule is open exactly while the port that it leads to is bound on the
//! other side. What *we* hold there does not count: otherwise two rules would keep each other alive
//! for ever [FWD-21]. For UDP, TCP listeners count too: programs such as iperf3 agree over TCP
//! on what they do with UDP [FWD-20].
//!
//! As long as the answer is the same as the last time, nothing else is done. A port that cannot be
//! opened is told once, and tried again for as long as it is bound on the other side.

use std::io;
use std::os::fd::AsFd as _;

use crate::config::{Config, ForwardSpec, PortSet, Proto};
use crate::event::{Registrar, Source};
use crate::host::{Listeners, Net, RuleId, Side};
use crate::sys::netlink::Bound;
use crate::translate::{FrameOut, Translator};

/// Milliseconds between two looks.
const INTERVAL_MS: u64 = 900;

/// Eyes in the current network namespace. Without them, which is said, `auto` means nothing.
pub(super) fn look() -> Option<Bound> {
    Bound::open()
        .inspect_err(|e| log::warn!("cannot tell which ports are bound, 'auto' has no effect: {e}"))
        .ok()
}

/// Looks at both sides.
pub(super) struct Auto {
    host: Bound,
    guest: Bound,
    /// When to look next, milliseconds of the clock.
    at: u64,
    follows: [Follow; 4],
}

/// Rules of one side and protocol.
struct Follow {
    side: Side,
    proto: Proto,
    /// There are such rules.
    wanted: bool,
    /// What was bound on the other side the last time.
    seen: PortSet,
    /// What could not be opened: was told, and is tried again.
    failed: PortSet,
}

impl Auto {
    /// With eyes in the guest's namespace; in that of the host, where we are, they are opened here.
    /// `None` if there are none.
    pub(super) fn new(config: &Config, guest: Option<Bound>) -> Option<Self> {
        let guest = guest?;
        let host = look()?;
        let follow = |side, proto, spec: &ForwardSpec| Follow {
            side,
            proto,
            wanted: spec.is_auto(),
            seen: PortSet::default(),
            failed: PortSet::default(),
        };
        Some(Self {
            host,
            guest,
            at: 0,
            follows: [
                follow(Side::Host, Proto::Tcp, &config.tcp_in),
                follow(Side::Host, Proto::Udp, &config.udp_in),
                follow(Side::Namespace, Proto::Tcp, &config.tcp_out),
                follow(Side::Namespace, Proto::Udp, &config.udp_out),
            ],
        })
    }

    /// True if any rule needs to know about the other side.
    pub(super) fn is_needed(config: &Config) -> bool {
        [&config.tcp_in, &config.udp_in, &config.tcp_out, &config.udp_out]
            .iter()
            .any(|spec| spec.is_auto())
    }

    /// When to look next, milliseconds of the clock.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Looks, if it is time, and opens and closes ports accordingly.
    pub(super) fn run<O: FrameOut>(
        &mut self,
        now: u64,
        listeners: &mut Listeners,
        translator: &mut Translator<O, Net>,
        registrar: &Registrar,
    ) {
        if now < self.at {
            return;
        }
        self.at = now.saturating_add(INTERVAL_MS);
        // Before anything changes: what we hold is what the kernel shows as ours.
        let wants = |side, proto| {
            self.follows.iter().any(|f| f.wanted && f.side == side && f.proto == proto)
        };
        let [inward, outward] = [Side::Host, Side::Namespace]
            .map(|side| (wants(side, Proto::Tcp), wants(side, Proto::Udp)));
        let guest = foreign(&mut self.guest, Side::Namespace, inward, listeners);
        let host = foreign(&mut self.host, Side::Host, outward, listeners);
        for follow in self.follows.iter_mut().filter(|f| f.wanted) {
            let other = match follow.side {
                Side::Host => &guest,
                Side::Namespace => &host,
            };
            match other {
                Ok(sets) => follow.update(sets, listeners, translator, registrar),
                Err(e) => log::debug!("cannot tell which ports are bound: {e}"),
            }
        }
    }
}

/// What others have bound on one side, TCP and UDP; only as far as rules want to know.
fn foreign(
    kernel: &mut Bound,
    side: Side,
    (want_tcp, want_udp): (bool, bool),
    listeners: &Listeners,
) -> io::Result<[PortSet; 2]> {
    let (mut tcp, mut udp) = (PortSet::default(), PortSet::default());
    if want_tcp || want_udp {
        tcp = kernel.ports(Proto::Tcp)?;
        tcp.subtract(&listeners.ports(side, Proto::Tcp));
    }
    if want_udp {
        udp = kernel.ports(Proto::Udp)?;
        udp.subtract(&listeners.ports(side, Proto::Udp));
        udp.add(&tcp);
    }
    Ok([tcp, udp])
}

impl Follow {
    /// Takes note of what is bound on the other side.
    fn update<O: FrameOut>(
        &mut self,
        [tcp, udp]: &[PortSet; 2],
        listeners: &mut Listeners,
        translator: &mut Translator<O, Net>,
        registrar: &Registrar,
    ) {
        let bound = if self.proto == Proto::Tcp { tcp } else { udp };
        if *bound != self.seen || !self.failed.is_empty() {
            self.seen.clone_from(bound);
            self.apply(listeners, translator, registrar);
        }
    }

    fn apply<O: FrameOut>(
        &mut self,
        listeners: &mut Listeners,
        translator: &mut Translator<O, Net>,
        registrar: &Registrar,
    ) {
        let (mut close, mut open) = (Vec::new(), Vec::new());
        for (id, rule, side) in listeners.rules() {
            if side != self.side || rule.proto != self.proto || !rule.auto {
                continue;
            }
            for port in rule.first..=rule.last {
                match (self.seen.contains(rule.to(port)), listeners.is_open(id, port)) {
                    (true, false) => open.push((id, port)),
                    (false, true) => close.push((id, port)),
                    (false, false) => self.failed.remove(port),
                    (true, true) => {}
                }
            }
        }
        let net = &mut translator.net;
        let closed: Vec<_> = close
            .into_iter()
            .filter_map(|(id, port)| listeners.close_port(id, port, net))
            .collect();
        // Before another socket gets the number of one that was closed.
        translator.end_listeners(&closed);
        for (id, port) in open {
            match self.open(id, port, listeners, &mut translator.net, registrar) {
                Ok(()) => self.failed.remove(port),
                Err(e) if self.failed.insert(port) => log::warn!("{e}"),
                Err(_) => {}
            }
        }
    }

    fn open(
        &self,
        id: RuleId,
        port: u16,
        listeners: &mut Listeners,
        net: &mut Net,
        registrar: &Registrar,
    ) -> Result<(), Box<dyn std::error::Error>> {
        listeners.open_port(id, port, net)?;
        let index = Listeners::index(id, port);
        if let Some(listener) = listeners.get(index) {
            registrar.add(listener.as_fd(), Source::Listener(index), false)?;
        }
        log::debug!("{} port {port} follows the other side: open", self.proto);
        Ok(())
    }
}
