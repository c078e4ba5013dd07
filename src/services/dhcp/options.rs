//! The options of an answer: which, in which order, and where they find room.
//!
//! Order [DHCP-6]: as the client asked for them, then all others by code; the message type comes
//! first if the client has a list without it, because some clients look there only. What a relay
//! wants back comes last (RFC 3046, 2.2).
//!
//! Room: the options field takes as much as keeps the packet within 576 bytes, or within what the
//! client says it takes. If that is not enough, what a client can do without goes to the fields for
//! boot file and server name (RFC 2131, 4.1), and of the search list what fits is told. A value of
//! more than 255 bytes is cut into several options of one code (RFC 3396).

use super::Answer;
use crate::config::Lease;
use crate::services::Reply;
use crate::services::udp::HEADERS4;
use crate::wire::dhcp::{self, Message, kind, option};
use crate::wire::{ETH_LEN, name};

/// Packet that every client takes (RFC 2131, 2).
const MIN_PACKET: u16 = 576;
/// Longest packet that we send.
const MAX_PACKET: u16 = 1500;
/// Least length of the options field: BOOTP messages have 300 bytes [DHCP-6].
const MIN_OPTIONS: usize = 60;
/// "For ever" (RFC 2131, 3.3).
const INFINITE: [u8; 4] = [0xff; 4];
/// Length of the option that says where else there are options.
const OVERLOAD_LEN: usize = 3;
/// Longest value of one option.
const MAX_VALUE: usize = 255;
/// Most of a search list that is written.
const MAX_SEARCH: usize = 1024;
/// More options than there are.
const MAX_OPTIONS: usize = 20;

/// The FQDN option's name is in the wire format of DNS (RFC 4702, 2.1).
const FQDN_E: u8 = 0x04;
/// The client's wish, which is not fulfilled, is that the server updates its A record.
const FQDN_O: u8 = 0x02;
/// In a request: that wish.
const FQDN_S: u8 = 0x01;

/// A part of a message that holds options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Area {
    Options,
    File,
    ServerName,
}

/// An option with its value in [`Set::values`].
#[derive(Clone, Copy, Debug)]
struct Entry {
    code: u8,
    at: usize,
    len: usize,
    area: Option<Area>,
}

impl Entry {
    /// Length with all its headers.
    fn size(&self) -> usize {
        let headers = self.len.div_ceil(MAX_VALUE).max(1).saturating_mul(2);
        self.len.saturating_add(headers)
    }

    /// A client that gets neither of these, or in another place, works.
    fn movable(&self) -> bool {
        matches!(self.code, option::HOST_NAME | option::FQDN)
    }
}

/// Options in order of importance.
struct Set {
    entries: [Entry; MAX_OPTIONS],
    count: usize,
    values: [u8; 2048],
    used: usize,
}

impl Set {
    fn new() -> Self {
        let none = Entry { code: 0, at: 0, len: 0, area: None };
        Self { entries: [none; MAX_OPTIONS], count: 0, values: [0; 2048], used: 0 }
    }

    /// Adds an option whose value `write` writes and says the length of; not if it says `None`.
    fn add(&mut self, code: u8, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let room = self.values.get_mut(self.used..).unwrap_or_default();
        let Some(len) = write(room) else { return };
        if let Some(entry) = self.entries.get_mut(self.count) {
            *entry = Entry { code, at: self.used, len, area: None };
            self.count = self.count.saturating_add(1);
            self.used = self.used.saturating_add(len);
        }
    }

    fn add_bytes(&mut self, code: u8, value: &[u8]) {
        self.add(code, |room| {
            room.get_mut(..value.len())?.copy_from_slice(value);
            Some(value.len())
        });
    }

    fn all(&self) -> &[Entry] {
        self.entries.get(..self.count).unwrap_or_default()
    }

    fn all_mut(&mut self) -> &mut [Entry] {
        self.entries.get_mut(..self.count).unwrap_or_default()
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        self.values.get(entry.at..).and_then(|v| v.get(..entry.len)).unwrap_or_default()
    }
}

/// Appends all options, and what makes the message as long as it has to be.
pub(super) fn put(lease: &Lease, message: &Message<'_>, answer: Answer, reply: &mut Reply) {
    let mut set = if answer == Answer::Nak {
        refusal(lease, message)
    } else {
        configuration(lease, message, answer)
    };
    let room = room(lease, message);
    // A client of BOOTP only does not look for options elsewhere.
    let overload = message.kind != 0;
    place(&mut set, room, overload, lease);
    let order = Order::new(message, &set);

    let begin = reply.frame().len();
    put_area(&set, &order, Area::Options, reply);
    let mut flags = 0;
    for (area, at, flag) in [(Area::File, dhcp::FILE_AT, 1), (Area::ServerName, dhcp::SNAME_AT, 2)]
    {
        if set.all().iter().any(|e| e.area == Some(area)) {
            flags |= flag;
            let mut field = Reply::new();
            put_area(&set, &order, area, &mut field);
            field.put(&[option::END]);
            reply.patch(HEADERS4.saturating_add(at), field.frame());
        }
    }
    if flags != 0 {
        reply.put(&[option::OVERLOAD, 1, flags]);
    }
    reply.put(&[option::END]);
    let len = reply.frame().len().saturating_sub(begin);
    reply.put_zeros(MIN_OPTIONS.saturating_sub(len));
}

/// Bytes for options, without the one that ends them.
fn room(lease: &Lease, message: &Message<'_>) -> usize {
    let link = if lease.mtu == 0 { MAX_PACKET } else { lease.mtu.clamp(MIN_PACKET, MAX_PACKET) };
    let client = message.number(option::MAX_SIZE).unwrap_or(MIN_PACKET);
    let packet = client.clamp(MIN_PACKET, link);
    usize::from(packet).saturating_sub(HEADERS4 - ETH_LEN + dhcp::FIXED_LEN + 1)
}

/// What a refusal says (RFC 2131, table 3).
fn refusal(lease: &Lease, message: &Message<'_>) -> Set {
    let mut set = Set::new();
    set.add_bytes(option::TYPE, &[kind::NAK]);
    set.add_bytes(option::SERVER, &lease.gateway4.octets());
    set.add_bytes(option::MESSAGE, b"address not available");
    echo(message, option::CLIENT, &mut set);
    echo(message, option::RELAY, &mut set);
    set
}

/// What the guest is told [DHCP-5].
fn configuration(lease: &Lease, message: &Message<'_>, answer: Answer) -> Set {
    let mut set = Set::new();
    let kind = if answer == Answer::Offer { kind::OFFER } else { kind::ACK };
    set.add_bytes(option::TYPE, &[kind]);
    set.add_bytes(option::SERVER, &lease.gateway4.octets());
    if answer != Answer::Inform {
        set.add_bytes(option::LEASE_TIME, &INFINITE);
    }
    if answer == Answer::RapidAck {
        set.add_bytes(option::RAPID_COMMIT, &[]);
    }
    set.add_bytes(option::NETMASK, &netmask(lease.prefix4).to_be_bytes());
    set.add_bytes(option::ROUTERS, &lease.gateway4.octets());
    if !on_link(lease) {
        // To the gateway directly, and to everything else through it (RFC 3442).
        let [a, b, c, d] = lease.gateway4.octets();
        set.add_bytes(option::ROUTES, &[32, a, b, c, d, 0, 0, 0, 0, 0, a, b, c, d]);
    }
    if lease.mtu != 0 {
        set.add_bytes(option::MTU, &lease.mtu.to_be_bytes());
    }
    if !lease.dns4.is_empty() {
        set.add(option::DNS, |room| {
            for (slot, server) in room.as_chunks_mut::<4>().0.iter_mut().zip(&lease.dns4) {
                *slot = server.octets();
            }
            Some(lease.dns4.len().saturating_mul(4))
        });
    }
    echo(message, option::RELAY, &mut set);
    echo(message, option::CLIENT, &mut set);
    if let Some(name) = &lease.hostname {
        set.add_bytes(option::HOST_NAME, name.as_bytes());
    }
    if let Some(name) = &lease.fqdn {
        set.add(option::FQDN, |room| fqdn(message, name, room));
    }
    set.add(option::SEARCH, |room| search(lease, MAX_SEARCH, room));
    set
}

/// A length of 0 is all addresses [DHCP-10].
fn netmask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// Whether the guest can send to the gateway by the netmask alone.
fn on_link(lease: &Lease) -> bool {
    let network = |a: std::net::Ipv4Addr| u32::from(a) & netmask(lease.prefix4);
    network(lease.addr4) == network(lease.gateway4)
}

/// Flags, two codes without a meaning, and the name (RFC 4702, 2); not if that is too long.
fn fqdn(message: &Message<'_>, name: &str, room: &mut [u8]) -> Option<usize> {
    let mut sent = [0; MAX_VALUE];
    let sent = message.option(option::FQDN, &mut sent).and_then(|v| v.first());
    // Names are not ours to update: whoever asks for it learns that it is not done.
    let overridden = if sent.is_some_and(|flags| flags & FQDN_S != 0) { FQDN_O } else { 0 };
    let (head, rest) = room.get_mut(..MAX_VALUE)?.split_first_chunk_mut::<3>()?;
    *head = [FQDN_E | overridden, 0xff, 0xff];
    name::write(name, rest)?.checked_add(3)
}

/// At most `room` bytes of the search list.
fn search(lease: &Lease, most: usize, room: &mut [u8]) -> Option<usize> {
    let most = most.min(room.len());
    let len = name::compress(&lease.search, room.get_mut(..most)?);
    (len != 0).then_some(len)
}

/// Gives an option back as it came (RFC 6842, 3; RFC 3046, 2.2).
fn echo(message: &Message<'_>, code: u8, set: &mut Set) {
    let mut value = [0; MAX_VALUE];
    if let Some(value) = message.option(code, &mut value) {
        set.add_bytes(code, value);
    }
}

/// Finds room for options, from the most important on.
fn place(set: &mut Set, room: usize, overload: bool, lease: &Lease) {
    let total = set.all().iter().fold(0usize, |sum, e| sum.saturating_add(e.size()));
    if total <= room {
        set.all_mut().iter_mut().for_each(|e| e.area = Some(Area::Options));
        return;
    }
    // One byte of each field ends its options.
    let elsewhere = |len: usize| if overload { len.saturating_sub(1) } else { 0 };
    let mut rooms = [
        (Area::Options, room.saturating_sub(if overload { OVERLOAD_LEN } else { 0 })),
        (Area::File, elsewhere(dhcp::FILE_LEN)),
        (Area::ServerName, elsewhere(dhcp::SNAME_LEN)),
    ];
    let values = &mut set.values;
    let entries = set.entries.get_mut(..set.count).unwrap_or_default();
    for entry in entries {
        if entry.code == option::SEARCH {
            // It comes last, so the rest is its own; parts of it are of use, too.
            let field = values.get_mut(entry.at..).unwrap_or_default();
            let most = rooms.iter().map(|(_, left)| value_room(*left)).max().unwrap_or(0);
            entry.len = search(lease, most.min(MAX_SEARCH), field).unwrap_or(0);
            if entry.len == 0 {
                continue;
            }
        }
        let size = entry.size();
        let fits = |slot: &&mut (Area, usize)| size <= slot.1;
        // What can go elsewhere makes room for what cannot.
        let found = if entry.movable() {
            rooms.iter_mut().rev().find(fits)
        } else {
            rooms.iter_mut().find(fits)
        };
        if let Some((area, left)) = found {
            entry.area = Some(*area);
            *left = left.saturating_sub(size);
        }
    }
}

/// Longest value of an option, cut or not, for which there is room in `left` bytes.
fn value_room(left: usize) -> usize {
    let whole = left / (MAX_VALUE + 2);
    let rest = left % (MAX_VALUE + 2);
    whole.saturating_mul(MAX_VALUE).saturating_add(rest.saturating_sub(2))
}

/// Codes in the order of the message.
struct Order {
    codes: [u8; MAX_OPTIONS],
    len: usize,
}

impl Order {
    fn new(message: &Message<'_>, set: &Set) -> Self {
        let mut order = Self { codes: [0; MAX_OPTIONS], len: 0 };
        let mut list = [0; MAX_VALUE];
        let list = message.option(option::PARAMETERS, &mut list).unwrap_or_default();
        if !list.is_empty() && !list.contains(&option::TYPE) {
            order.add(option::TYPE, set);
        }
        for code in list.iter().filter(|c| **c != option::RELAY) {
            order.add(*code, set);
        }
        for code in (0..=u8::MAX).filter(|c| *c != option::RELAY) {
            order.add(code, set);
        }
        order.add(option::RELAY, set);
        order
    }

    /// Once, and only what there is: a second instance would be taken for a second part.
    fn add(&mut self, code: u8, set: &Set) {
        let known = self.codes.get(..self.len).unwrap_or_default().contains(&code);
        if known || !set.all().iter().any(|e| e.code == code) {
            return;
        }
        if let Some(slot) = self.codes.get_mut(self.len) {
            *slot = code;
            self.len = self.len.saturating_add(1);
        }
    }
}

/// Appends the options that have their place in `area`.
fn put_area(set: &Set, order: &Order, area: Area, reply: &mut Reply) {
    for code in order.codes.get(..order.len).unwrap_or_default() {
        let here = set.all().iter().find(|e| e.code == *code && e.area == Some(area));
        let Some(entry) = here else { continue };
        let value = set.value(entry);
        if value.is_empty() {
            reply.put(&[entry.code, 0]);
        }
        for part in value.chunks(MAX_VALUE) {
            reply.put(&[entry.code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            reply.put(part);
        }
    }
}
