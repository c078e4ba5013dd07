//! DHCP (RFC 2131): the guest gets the address that the lease assigns to it, for ever.
//!
//! # Theory of operation
//!
//! There is one address and one guest, so nothing is remembered: what a request deserves follows
//! from the request and the lease alone. Any client is offered the address, also one that speaks
//! BOOTP only. A client that asks to keep, or to take, another address is refused with NAK, so that
//! it starts anew [DHCP-3]. One that has an address of its own may ask for the rest (INFORM).
//!
//! The lease never ends, but clients may ask again when they like. To what they give back or
//! decline there is no answer.
//!
//! `options.rs` has what is told and how it is put into a message.

mod options;

use std::net::Ipv4Addr;

use super::udp::{self, Route};
use super::{Outcome, Reason, Reply};
use crate::config::Lease;
use crate::wire::dhcp::{self, Message, kind, option};
use crate::wire::{Addr, Mac};

/// A datagram to the server port, with what is needed of the headers before it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IPv4 source.
    pub src: Ipv4Addr,
    /// What the datagram carries.
    pub payload: &'a [u8],
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Offer,
    /// At once, without an offer before it (RFC 4039).
    RapidAck,
    Ack,
    /// Everything but an address.
    Inform,
    Nak,
}

/// Answers a datagram to the server port.
pub fn respond(lease: &Lease, request: &Request<'_>, reply: &mut Reply) -> Outcome {
    reply.clear();
    if !lease.v4 || lease.gateway4.is_unspecified() {
        return Outcome::Consumed; // [DHCP-1]
    }
    let message = Message::parse(request.payload).filter(|m| m.op() == dhcp::BOOTREQUEST);
    let Some(message) = message.filter(|_| !request.eth_src.is_multicast()) else {
        return Outcome::Dropped(Reason::Malformed);
    };
    let Some(answer) = decide(lease, &message) else { return Outcome::Consumed };
    let Some((to, port)) = destination(lease, request, &message, answer) else {
        return Outcome::Dropped(Reason::Malformed);
    };
    let route = Route {
        mac: (lease.our_mac, request.eth_src),
        addr: (lease.gateway4, to),
        port: (dhcp::SERVER_PORT, port),
    };
    udp::begin4(&route, reply);
    reply.put(&fixed(lease, &message, answer));
    options::put(lease, &message, answer, reply);
    udp::finish4(reply)
}

/// Whether the answer to this gives the guest its address.
pub fn assigns(lease: &Lease, payload: &[u8]) -> bool {
    let answer = Message::parse(payload).and_then(|message| decide(lease, &message));
    matches!(answer, Some(Answer::Ack | Answer::RapidAck))
}

/// What to answer, if anything.
fn decide(lease: &Lease, message: &Message<'_>) -> Option<Answer> {
    match message.kind {
        kind::DISCOVER if message.has(option::RAPID_COMMIT) => Some(Answer::RapidAck),
        kind::DISCOVER => Some(Answer::Offer),
        kind::REQUEST => decide_request(lease, message),
        kind::INFORM => Some(Answer::Inform),
        0 => Some(Answer::Ack), // BOOTP
        _ => None,
    }
}

/// A client takes an offer, or asks to keep the address that it had or has (RFC 2131, 4.3.2).
fn decide_request(lease: &Lease, message: &Message<'_>) -> Option<Answer> {
    if message.address(option::SERVER).is_some_and(|server| server != lease.gateway4) {
        return None; // it took the offer of another server
    }
    let own = Some(message.ciaddr()).filter(|a| !a.is_unspecified());
    let asked = message.address(option::REQUESTED_ADDRESS).or(own);
    // One that does not say what it wants can be given the only thing there is.
    Some(if asked.is_none_or(|a| a == lease.addr4) { Answer::Ack } else { Answer::Nak })
}

/// Address and port that the answer goes to (RFC 2131, 4.1); `None` if there is none [DHCP-7].
fn destination(
    lease: &Lease,
    request: &Request<'_>,
    message: &Message<'_>,
    answer: Answer,
) -> Option<(Ipv4Addr, u16)> {
    let given = |a: Ipv4Addr| (!a.is_unspecified()).then_some(a);
    let (relay, own) = (given(message.giaddr()), given(message.ciaddr()));
    let (to, port) = match (answer, relay) {
        (Answer::Inform, _) => (own.unwrap_or(request.src), dhcp::CLIENT_PORT),
        (_, Some(relay)) => (relay, dhcp::SERVER_PORT),
        (Answer::Nak, None) => return Some((Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT)),
        (..) if own.is_some() => (own?, dhcp::CLIENT_PORT),
        (..) if message.broadcast() => return Some((Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT)),
        (..) => (lease.addr4, dhcp::CLIENT_PORT),
    };
    let sane = Addr::from(to).is_unicast() && !to.is_loopback();
    sane.then_some((to, port))
}

/// The part before the options [DHCP-4] (RFC 2131, table 3).
fn fixed(lease: &Lease, message: &Message<'_>, answer: Answer) -> [u8; dhcp::FIXED_LEN] {
    let mut out = *message.fixed();
    let mut set = |at: usize, bytes: &[u8]| {
        for (to, from) in out.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    let (has, gets) = match answer {
        Answer::Nak => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
        Answer::Inform => (message.ciaddr(), Ipv4Addr::UNSPECIFIED),
        _ => (message.ciaddr(), lease.addr4),
    };
    set(0, &[dhcp::BOOTREPLY]);
    set(3, &[0]); // hops; then the transaction id, which stays
    set(8, &[0; 2]); // seconds
    if answer == Answer::Nak {
        set(10, &[0x80]); // the relay is to broadcast it
    }
    set(12, &has.octets());
    set(16, &gets.octets());
    set(20, &[0; 4]); // no next server; then the relay and the client's link-layer address
    set(dhcp::SNAME_AT, &[0; dhcp::SNAME_LEN + dhcp::FILE_LEN]);
    out
}

#[cfg(test)]
mod tests;
