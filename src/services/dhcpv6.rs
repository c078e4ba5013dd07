//! DHCPv6 (RFC 8415): the guest gets the address that the lease assigns to it, for ever.
//!
//! # Theory of operation
//!
//! As with DHCP there is one address, and nothing is remembered. Its first association (IA_NA) gets
//! the address; there are no others for further ones, no temporary addresses and no prefixes, which
//! is said with a status. A client that asks for another address is told that it is not on this
//! link, and starts anew.
//!
//! Who we are to the client, our DUID, is made of our link-layer address and nothing else, so it
//! outlives a restart, and a client that renews its lease afterwards finds us again [DHCP6-9].
//!
//! `answer.rs` writes what is answered.

mod answer;

use std::net::Ipv6Addr;

use super::udp::{self, Route};
use super::{Outcome, Reason, Reply};
use crate::config::Lease;
use crate::wire::dhcpv6::{self, Message, Options, kind, option};
use crate::wire::{Addr, Mac};
use answer::Answer;

/// A datagram to the server port, with what is needed of the headers before it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IPv6 source.
    pub src: Ipv6Addr,
    /// IPv6 destination.
    pub dst: Ipv6Addr,
    /// What the datagram carries.
    pub payload: &'a [u8],
}

/// Longest client identifier: a type and 128 bytes (RFC 8415, 11.1).
const MAX_CLIENT: usize = 130;
/// Associations of one message that are answered.
const MAX_ASSOCIATIONS: usize = 16;

/// Answers a datagram to the server port.
pub fn respond(lease: &Lease, request: &Request<'_>, reply: &mut Reply) -> Outcome {
    reply.clear();
    let Some(address) = lease.addr6.filter(|_| lease.v6) else {
        return Outcome::Consumed; // [DHCP6-1]
    };
    let sane = Addr::from(request.src).is_unicast() && !request.eth_src.is_multicast();
    // Clients send to groups unless a server allows them not to, and none does (RFC 8415, 16).
    if !sane || !request.dst.is_multicast() {
        return Outcome::Dropped(Reason::Malformed);
    }
    let Some(message) = Message::parse(request.payload) else {
        return Outcome::Dropped(Reason::Malformed);
    };
    let duid = duid(lease.our_mac);
    if !is_valid(&message, &duid) {
        return Outcome::Dropped(Reason::Malformed);
    }
    let Some(answer) = decide(&message, address) else { return Outcome::Consumed };

    let route = Route {
        mac: (lease.our_mac, request.eth_src),
        addr: (lease.our_ll, request.src),
        port: (dhcpv6::SERVER_PORT, dhcpv6::CLIENT_PORT),
    };
    // The label of all packets of one exchange [DHCP6-6].
    let [a, b, c] = message.transaction;
    udp::begin6(&route, [c, b, a], reply);
    answer::put(lease, address, &duid, &message, answer, reply);
    udp::finish6(&route, reply)
}

/// Whether the answer to this gives the guest its address: it can be reached there from now on.
pub fn assigns(payload: &[u8]) -> bool {
    Message::parse(payload).is_some_and(|message| match message.kind {
        kind::SOLICIT => message.has(option::RAPID_COMMIT),
        kind::REQUEST | kind::RENEW | kind::REBIND => true,
        _ => false,
    })
}

/// Our identifier: DUID-LL, Ethernet (RFC 8415, 11.4).
fn duid(mac: Mac) -> [u8; 10] {
    let [a, b, c, d, e, f] = mac.0;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

/// What RFC 8415, 16, has a server discard is not valid [DHCP6-2, DHCP6-3].
fn is_valid(message: &Message<'_>, duid: &[u8]) -> bool {
    let client = message.option(option::CLIENT);
    let client_fits = client.is_none_or(|c| (1..=MAX_CLIENT).contains(&c.len()));
    let server = message.option(option::SERVER);
    let for_us = server == Some(duid);
    let whole = associations(message).all(|a| a.is_some());
    let fits_kind = match message.kind {
        kind::SOLICIT | kind::CONFIRM | kind::REBIND => client.is_some() && server.is_none(),
        kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => client.is_some() && for_us,
        kind::INFORMATION_REQUEST => {
            (server.is_none() || for_us) && associations(message).next().is_none()
        }
        _ => true, // not for a server, and nothing is answered
    };
    client_fits && whole && fits_kind
}

/// What to answer, if anything.
fn decide(message: &Message<'_>, address: Ipv6Addr) -> Option<Answer> {
    Some(match message.kind {
        kind::SOLICIT if message.has(option::RAPID_COMMIT) => Answer::RapidReply,
        kind::SOLICIT => Answer::Advertise,
        kind::REQUEST => Answer::Assign,
        kind::RENEW | kind::REBIND => Answer::Extend,
        kind::INFORMATION_REQUEST => Answer::Inform,
        kind::RELEASE | kind::DECLINE => Answer::Done,
        kind::CONFIRM => {
            // Without an address there is nothing to confirm (RFC 8415, 18.3.3).
            associations(message).flatten().flat_map(|a| a.addresses()).next()?;
            let asked = || associations(message).flatten().flat_map(|a| a.addresses());
            if asked().all(|a| a == address) { Answer::OnLink } else { Answer::NotOnLink }
        }
        _ => return None,
    })
}

/// An association of the client: what it wants, or has, addresses or prefixes for.
#[derive(Clone, Copy, Debug)]
struct Association<'a> {
    code: u16,
    /// Its number; for addresses that are not temporary the two times follow.
    head: &'a [u8],
    options: &'a [u8],
}

impl<'a> Association<'a> {
    /// The addresses in it.
    fn addresses(self) -> impl Iterator<Item = Ipv6Addr> + use<'a> {
        Options::new(self.options)
            .flatten()
            .filter(|(code, _)| *code == option::IA_ADDRESS)
            .filter_map(|(_, value)| value.first_chunk::<16>())
            .map(|octets| Ipv6Addr::from(*octets))
    }
}

/// Associations in the order of the message; `None` for one that is malformed.
fn associations<'a>(
    message: &Message<'a>,
) -> impl Iterator<Item = Option<Association<'a>>> + use<'a> {
    let of = |(code, value): (u16, &'a [u8])| {
        let head_len = match code {
            option::IA_NA | option::IA_PD => 12,
            option::IA_TA => 4,
            _ => return None,
        };
        Some(value.split_at_checked(head_len).and_then(|(head, options)| {
            let whole = Options::new(options).all(|o| {
                o.is_some_and(|(code, value)| code != option::IA_ADDRESS || value.len() >= 24)
            });
            whole.then_some(Association { code, head, options })
        }))
    };
    message.options().filter_map(of).take(MAX_ASSOCIATIONS)
}

#[cfg(test)]
mod tests;
