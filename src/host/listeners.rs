//! The table of forwarding rules and their listening sockets.
//!
//! # Theory of operation
//!
//! A rule stands for a range of ports, each with a socket of its own. Apart from the rule, all
//! that is kept per port is a descriptor: what an event needs to know follows from its index,
//! which is the rule's place in the table and the port. So tens of thousands of ports cost four
//! bytes each.
//!
//! Rules can come and go. A place that has become free is used again; an event that was for the
//! former owner then finds nothing to do there.
//!
//! A rule that names its ports must get all of them. The others are best effort: they take what
//! they can, and it is for the caller to decide whether that is enough.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::listener::{Listener, Side, open, wildcard};
use super::net::{Net, socket};
use crate::config::{PortRule, PortSet, Proto};
use crate::sys::factory::Kind;
use crate::translate::SockId;

/// How long a port may still be in use: by the instance before us, whose namespace has just gone
/// [COMPAT-22].
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// A port could not be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {proto} {} port {port}: {source}{}", self.place(), self.remedy())]
pub struct ListenError {
    /// Protocol.
    pub proto: Proto,
    /// Address, as asked for.
    pub addr: IpAddr,
    /// Interface, as asked for.
    pub interface: Option<String>,
    /// Port.
    pub port: u16,
    /// The kernel's reason.
    pub source: io::Error,
}

impl ListenError {
    /// Address and interface, as they are written in options.
    pub fn place(&self) -> String {
        match &self.interface {
            Some(name) => format!("{}%{name}", self.addr),
            None => self.addr.to_string(),
        }
    }

    /// What to do about it, in brackets, where the kernel's reason does not say it all.
    pub fn remedy(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::EACCES) => {
                " (low ports need CAP_NET_BIND_SERVICE or sysctl \
                 net.ipv4.ip_unprivileged_port_start)"
            }
            Some(libc::EADDRNOTAVAIL) => " (the address must be the host's, or see --freebind)",
            // Before Linux 5.7.
            Some(libc::EPERM) => " (binding to an interface needs Linux 5.7)",
            _ => "",
        }
    }

    fn new(rule: &PortRule, v6: bool, port: u16, source: io::Error) -> Self {
        let (proto, addr) = (rule.proto, wildcard(rule, v6));
        Self { proto, addr, interface: rule.interface.clone(), port, source }
    }
}

/// A rule's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u16);

#[derive(Debug)]
struct Entry {
    rule: PortRule,
    side: Side,
    /// IPv4 and IPv6 are enabled.
    families: (bool, bool),
    /// The address need not be ours.
    freebind: bool,
    /// The sockets, by port from the first one of the rule.
    fds: Box<[Option<OwnedFd>]>,
}

/// The rules of the process, with their sockets.
#[derive(Debug, Default)]
pub struct Listeners {
    entries: Vec<Option<Entry>>,
    /// Addresses need not be ours (yet) [FWD-16].
    freebind: bool,
}

/// What became of a rule whose ports need not all open.
#[derive(Debug, Default)]
pub struct Partial {
    /// Ports that were opened.
    pub opened: usize,
    /// The first that was not, although there was room.
    pub failed: Option<ListenError>,
}

/// Two rules would listen on the same port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("forwarding rule '{0}' conflicts with '{1}'")]
pub struct Conflict(pub Box<PortRule>, pub Box<PortRule>);

/// What became of a table that was replaced.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Rules that are new: their sockets have to be registered.
    pub added: Vec<RuleId>,
    /// Sockets that were closed: flows that answer through them have to end.
    pub closed: Vec<SockId>,
    /// Ports that could not be opened. The others of the same rule are open.
    pub failed: Vec<ListenError>,
}

impl Listeners {
    /// An empty table, whose rules may name addresses that are not ours (yet) if `freebind` is
    /// set [FWD-16].
    #[must_use]
    pub fn new(freebind: bool) -> Self {
        Self { entries: Vec::new(), freebind }
    }

    /// Puts `rules` in the place of all rules of one side, while running [FWD-18]. A rule that was
    /// there before keeps its sockets, so no connection is refused meanwhile. Sockets come from
    /// `net`; rules that follow the other side open nothing here.
    ///
    /// # Errors
    /// Two of the rules conflict, and nothing was changed.
    pub fn replace(
        &mut self,
        side: Side,
        rules: &[PortRule],
        families: (bool, bool),
        net: &mut Net,
    ) -> Result<Replaced, Conflict> {
        for (n, rule) in rules.iter().enumerate() {
            if let Some(other) = rules.iter().take(n).find(|other| other.conflicts(rule)) {
                return Err(Conflict(rule.clone().into(), other.clone().into()));
            }
        }
        let mut done = Replaced::default();
        let mut kept = Vec::new();
        for place in &mut self.entries {
            match place {
                Some(entry) if entry.side == side => {
                    if rules.contains(&entry.rule) {
                        kept.push(entry.rule.clone());
                    } else {
                        let ports = entry.rule.first..=entry.rule.last;
                        done.closed.extend(ports.filter_map(|port| entry.close(port, net)));
                        *place = None;
                    }
                }
                _ => {}
            }
        }
        for rule in rules.iter().filter(|rule| !kept.contains(rule)) {
            let Ok(id) = self.insert(rule.clone(), side, families) else { break };
            done.added.push(id);
            let ports = if rule.auto { None } else { Some(rule.first..=rule.last) };
            for port in ports.into_iter().flatten() {
                done.failed.extend(self.open_port(id, port, net).err());
            }
        }
        Ok(done)
    }

    /// Adds a rule without opening anything.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert(
        &mut self,
        rule: PortRule,
        side: Side,
        families: (bool, bool),
    ) -> io::Result<RuleId> {
        let fds = std::iter::repeat_with(|| None).take(rule.count()).collect();
        let entry = Some(Entry { rule, side, families, freebind: self.freebind, fds });
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        let id = u16::try_from(free).map_err(|_| io::ErrorKind::OutOfMemory)?;
        match self.entries.get_mut(free) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        Ok(RuleId(id))
    }

    /// Takes a rule out and closes its ports. Flows that came through them go on.
    pub fn remove(&mut self, id: RuleId) -> Option<PortRule> {
        self.entries.get_mut(usize::from(id.0))?.take().map(|entry| entry.rule)
    }

    /// Opens every port of a rule, in the current network namespace. That a port is in use is an
    /// error only if it stays so until `patience` ends.
    ///
    /// # Errors
    /// The first port that could not be opened; those before it are open.
    pub fn open_all(&mut self, id: RuleId, patience: Patience) -> Result<(), ListenError> {
        let Some(entry) = self.entry(id) else { return Ok(()) };
        for port in entry.rule.first..=entry.rule.last {
            loop {
                match entry.open(port, here) {
                    Ok(()) => break,
                    Err(e) if e.source.kind() == io::ErrorKind::AddrInUse && patience.left() => {
                        std::thread::sleep(PAUSE);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Opens as many ports of a rule as can be opened, at most `room`, from the first one on.
    pub fn open_some(&mut self, id: RuleId, room: usize) -> Partial {
        let mut done = Partial::default();
        let Some(entry) = self.entry(id) else { return done };
        for port in entry.rule.first..=entry.rule.last {
            if done.opened >= room {
                break;
            }
            match entry.open(port, here) {
                Ok(()) => done.opened = done.opened.saturating_add(1),
                Err(e) if done.failed.is_none() => done.failed = Some(e),
                Err(_) => {}
            }
        }
        done
    }

    /// Opens one port of a rule while running, with a socket from `net`.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn open_port(&mut self, id: RuleId, port: u16, net: &mut Net) -> Result<(), ListenError> {
        let Some(entry) = self.entry(id) else { return Ok(()) };
        match entry.side {
            Side::Host => entry.open(port, here),
            Side::Namespace => entry.open(port, |family, kind| {
                net.inside.take(match (family, kind) {
                    (libc::AF_INET, libc::SOCK_STREAM) => Kind::Tcp4,
                    (_, libc::SOCK_STREAM) => Kind::Tcp6,
                    (libc::AF_INET, _) => Kind::Udp4,
                    _ => Kind::Udp6,
                })
            }),
        }?;
        if let Some(listener) = self.get(Self::index(id, port)) {
            net.listens(&listener);
        }
        Ok(())
    }

    /// Closes one port of a rule while running; its socket, for what refers to it.
    pub fn close_port(&mut self, id: RuleId, port: u16, net: &mut Net) -> Option<SockId> {
        self.entry(id)?.close(port, net)
    }

    /// True if this port of a rule is open.
    pub fn is_open(&self, id: RuleId, port: u16) -> bool {
        self.get(Self::index(id, port)).is_some()
    }

    /// The ports that are open on one side.
    pub fn ports(&self, side: Side, proto: Proto) -> PortSet {
        let rules = self.rules().filter(|(_, rule, at)| *at == side && rule.proto == proto);
        rules.flat_map(|(id, ..)| self.open(id).map(|(_, listener)| listener.port)).collect()
    }

    /// The socket that an event with this index is about, if it is still open.
    pub fn get(&self, index: u32) -> Option<Listener<'_>> {
        let entry = self.entries.get(usize::try_from(index >> 16).ok()?)?.as_ref()?;
        entry.listener(u16::try_from(index & 0xffff).ok()?)
    }

    /// The index of a port in events.
    pub const fn index(id: RuleId, port: u16) -> u32 {
        (id.0 as u32) << 16 | port as u32
    }

    /// Every rule, in no particular order.
    pub fn rules(&self) -> impl Iterator<Item = (RuleId, &PortRule, Side)> {
        (0..).zip(&self.entries).filter_map(|(n, entry)| {
            let entry = entry.as_ref()?;
            Some((RuleId(n), &entry.rule, entry.side))
        })
    }

    /// The open sockets of a rule, with the indices of their events.
    pub fn open(&self, id: RuleId) -> impl Iterator<Item = (u32, Listener<'_>)> {
        let entry = self.entries.get(usize::from(id.0)).and_then(Option::as_ref);
        entry.into_iter().flat_map(move |entry| {
            (entry.rule.first..=entry.rule.last)
                .filter_map(move |port| Some((Self::index(id, port), entry.listener(port)?)))
        })
    }

    /// Every open socket, with the index of its events.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Listener<'_>)> {
        self.rules().flat_map(|(id, ..)| self.open(id))
    }

    /// Closes everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Moves the rules of another table here.
    pub fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    fn entry(&mut self, id: RuleId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(id.0))?.as_mut()
    }
}

/// A socket of the current network namespace.
fn here(family: i32, kind: i32) -> io::Result<OwnedFd> {
    socket(family, kind, 0)
}

impl Entry {
    fn place(&mut self, port: u16) -> Option<&mut Option<OwnedFd>> {
        self.fds.get_mut(usize::from(port.checked_sub(self.rule.first)?))
    }

    fn open(
        &mut self,
        port: u16,
        make: impl FnOnce(i32, i32) -> io::Result<OwnedFd>,
    ) -> Result<(), ListenError> {
        let fd = open(&self.rule, port, self.side, self.families, self.freebind, make)
            .map_err(|source| ListenError::new(&self.rule, self.families.1, port, source))?;
        if let Some(place) = self.place(port) {
            *place = Some(fd);
        }
        Ok(())
    }

    fn close(&mut self, port: u16, net: &mut Net) -> Option<SockId> {
        net.listens_no_more(&self.listener(port)?);
        let fd = self.place(port)?.take()?;
        Some(SockId(fd.as_raw_fd()))
    }

    fn listener(&self, port: u16) -> Option<Listener<'_>> {
        let place = usize::from(port.checked_sub(self.rule.first)?);
        let fd = self.fds.get(place)?.as_ref()?;
        Some(Listener::new(fd.as_fd(), &self.rule, self.side, port, self.families.1))
    }
}

/// For how long a port may still be in use.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Option<Instant>);

impl Patience {
    /// At start: for [`PATIENCE`] from now, over all ports together.
    pub fn at_start() -> Self {
        Self(Instant::now().checked_add(PATIENCE))
    }

    /// Later: other work is waiting.
    pub const fn none() -> Self {
        Self(None)
    }

    fn left(self) -> bool {
        self.0.is_some_and(|end| Instant::now() < end)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::config::Outbound;
    use crate::host::Inside;

    fn rule(proto: Proto, listen: Option<&str>, first: u16, last: u16) -> PortRule {
        PortRule {
            proto,
            listen: listen.map(|a| a.parse().unwrap()),
            interface: None,
            first,
            last,
            target: None,
            to_first: 80,
            weak: false,
            auto: false,
        }
    }

    fn table(rule: PortRule) -> (Listeners, RuleId) {
        let mut table = Listeners::default();
        let id = table.insert(rule, Side::Host, (true, true)).unwrap();
        (table, id)
    }

    fn opened(rule: PortRule) -> Listeners {
        let (mut table, id) = table(rule);
        table.open_all(id, Patience::none()).unwrap();
        table
    }

    // [FWD-14] One dual-stack socket serves both families.
    #[test]
    fn dual_stack() {
        let table = opened(rule(Proto::Tcp, None, 39801, 39802));
        let ports: Vec<_> = table.iter().map(|(_, l)| (l.port, l.to_port())).collect();
        assert_eq!(ports, [(39801, 80), (39802, 81)]);
        let (_, first) = table.iter().next().unwrap();
        let _a = TcpStream::connect("127.0.0.1:39801").unwrap();
        let got = first.accept().unwrap().unwrap();
        assert_eq!(got.peer.addr.to_string(), "127.0.0.1");
        let _b = TcpStream::connect("[::1]:39801").unwrap();
        assert_eq!(first.accept().unwrap().unwrap().peer.addr.to_string(), "::1");
        assert!(first.accept().unwrap().is_none());
    }

    // [FWD-15] A port that is taken is named.
    #[test]
    fn taken_port_is_named() {
        let _taken = TcpListener::bind("127.0.0.1:39804").unwrap();
        let (mut table, id) = table(rule(Proto::Tcp, Some("127.0.0.1"), 39803, 39804));
        let e = table.open_all(id, Patience::none()).unwrap_err();
        assert_eq!(
            e.to_string(),
            "cannot listen on TCP 127.0.0.1 port 39804: Address already in use (os error 98)"
        );
        table.remove(id);
        TcpListener::bind("127.0.0.1:39803").unwrap();
    }

    // [FWD-14] [PORT-3] Never on any other interface instead.
    #[test]
    fn interface_that_does_not_exist_is_named() {
        let mut rule = rule(Proto::Tcp, None, 39806, 39806);
        rule.interface = Some("nosuch0".to_string());
        let (mut table, id) = table(rule);
        let e = table.open_all(id, Patience::none()).unwrap_err();
        assert_eq!(
            e.to_string(),
            "cannot listen on TCP ::%nosuch0 port 39806: No such device (os error 19)"
        );
    }

    // [FWD-15] Best effort takes what it can, up to its share.
    #[test]
    fn some_of_a_range() {
        let _taken = TcpListener::bind("127.0.0.1:39811").unwrap();
        let (mut table, id) = table(rule(Proto::Tcp, Some("127.0.0.1"), 39810, 39819));
        let done = table.open_some(id, 3);
        assert_eq!((done.opened, done.failed.unwrap().port), (3, 39811));
        let ports: Vec<_> = table.iter().map(|(_, l)| l.port).collect();
        assert_eq!(ports, [39810, 39812, 39813]);
    }

    // [FWD-18] Rules come and go; an event for what has gone finds nothing.
    #[test]
    fn rules_come_and_go() {
        let (mut table, id) = table(rule(Proto::Tcp, Some("127.0.0.1"), 39820, 39821));
        table.open_all(id, Patience::none()).unwrap();
        let index = Listeners::index(id, 39821);
        assert_eq!(table.get(index).map(|l| (l.port, l.to_port())), Some((39821, 81)));
        assert!(table.get(Listeners::index(id, 39822)).is_none());
        assert_eq!(table.remove(id).map(|rule| rule.first), Some(39820));
        assert!(table.get(index).is_none());
        assert_eq!((table.rules().count(), table.iter().count()), (0, 0));
        TcpListener::bind("127.0.0.1:39821").unwrap();
        let other = rule(Proto::Udp, None, 39823, 39823);
        assert_eq!(table.insert(other, Side::Host, (true, true)).unwrap(), id);
    }

    // [FWD-18] What is in both tables stays open all the time, what fails takes nothing along, and
    // a table that contradicts itself changes nothing.
    #[test]
    fn tables_are_replaced() {
        let reactor = crate::event::Reactor::new(1).unwrap();
        let mut net = Net::new(
            reactor.registrar().unwrap(),
            0,
            Inside::default(),
            Outbound::default(),
            false,
        );
        let on = |first, last| rule(Proto::Tcp, Some("127.0.0.1"), first, last);
        let (mut table, _) = table(on(39830, 39830));
        let [old, kept] = [on(39830, 39830), on(39831, 39831)];
        let done =
            table.replace(Side::Host, std::slice::from_ref(&kept), (true, true), &mut net).unwrap();
        assert_eq!((done.added.len(), done.closed.len(), done.failed.len()), (1, 0, 0));
        let waiting = TcpStream::connect("127.0.0.1:39831").unwrap();

        let _taken = TcpListener::bind("127.0.0.1:39833").unwrap();
        let rules = [kept.clone(), old, on(39832, 39834)];
        let done = table.replace(Side::Host, &rules, (true, true), &mut net).unwrap();
        assert_eq!((done.added.len(), done.closed.len()), (2, 0));
        assert_eq!(done.failed.iter().map(|e| e.port).collect::<Vec<_>>(), [39833]);
        let ports = |table: &Listeners| table.ports(Side::Host, Proto::Tcp);
        let all = [39830, 39831, 39832, 39834].into_iter().collect();
        assert_eq!(ports(&table), all);
        let (_, listener) = table.iter().find(|(_, l)| l.port == 39831).unwrap();
        let accepted = listener.accept().unwrap().unwrap();
        assert_eq!(accepted.peer.port, waiting.local_addr().unwrap().port());

        let twice = [kept, on(39831, 39840)];
        let e = table.replace(Side::Host, &twice, (true, true), &mut net).unwrap_err();
        assert!(e.to_string().contains("conflicts with"), "{e}");
        assert_eq!(ports(&table), all);

        let done = table.replace(Side::Host, &[], (true, true), &mut net).unwrap();
        assert_eq!((done.added.len(), done.closed.len()), (0, 4));
        assert!(ports(&table).is_empty());
        TcpListener::bind("127.0.0.1:39831").unwrap();
    }

    // [UDP-4] The address a datagram was sent to is known, on a dual-stack socket too.
    #[test]
    fn datagrams_know_their_destination() {
        let table = opened(rule(Proto::Udp, None, 39805, 39805));
        let (_, listener) = table.iter().next().unwrap();
        for (from, to) in [("127.0.0.1:0", "127.0.0.5"), ("[::1]:0", "::1")] {
            let c = UdpSocket::bind(from).unwrap();
            c.send_to(b"hi", (to, 39805)).unwrap();
            let mut buf = [0; 10];
            let got = listener.receive(&mut buf).unwrap();
            assert_eq!(got.len, 2);
            assert_eq!(got.local.addr.to_string(), to);
            assert_eq!(got.local.port, 39805);
            assert_eq!(got.peer.port, c.local_addr().unwrap().port());
        }
        assert!(listener.receive(&mut [0; 10]).is_none());
    }
}
