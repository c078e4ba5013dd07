//! What is answered: identifiers, associations, and the configuration [DHCP6-4].

use std::net::Ipv6Addr;

use super::{Association, associations};
use crate::config::Lease;
use crate::services::Reply;
use crate::wire::dhcpv6::{Message, kind, option, status};
use crate::wire::{ETH_LEN, name};

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the client would get.
    Advertise,
    /// The same at once, as the client allowed (RFC 8415, 18.3.1).
    RapidReply,
    /// What was advertised.
    Assign,
    /// More time for what the client has.
    Extend,
    /// Everything but addresses.
    Inform,
    /// The client's addresses are right.
    OnLink,
    /// They are not.
    NotOnLink,
    /// The client needs no more.
    Done,
}

/// "For ever" (RFC 8415, 7.7).
const INFINITE: [u8; 4] = [0xff; 4];
/// Ethernet header and smallest IPv6 link MTU (RFC 8200, 5): what an answer fits in.
const MAX_FRAME: usize = ETH_LEN + 1280;
/// An option's code and length.
const HEADER_LEN: usize = 4;
/// Wrong addresses of an association that are taken back.
const MAX_WRONG: usize = 4;
/// What goes with the status.
const NOT_ON_LINK: &[u8; 32] = b"This address is not on this link";
/// In a request: the client wants the server to update its AAAA record (RFC 4704, 4.1).
const FQDN_S: u8 = 0x01;
/// In an answer: that wish is not fulfilled.
const FQDN_O: u8 = 0x02;

/// Appends the whole message.
pub(super) fn put(
    lease: &Lease,
    address: Ipv6Addr,
    duid: &[u8],
    message: &Message<'_>,
    answer: Answer,
    reply: &mut Reply,
) {
    let kind = if answer == Answer::Advertise { kind::ADVERTISE } else { kind::REPLY };
    reply.put(&[kind]);
    reply.put(&message.transaction);
    put_option(option::SERVER, duid, reply);
    let refused = match answer {
        Answer::Advertise | Answer::RapidReply | Answer::Assign | Answer::Extend => {
            put_associations(address, message, answer, reply)
        }
        Answer::Inform | Answer::OnLink | Answer::NotOnLink | Answer::Done => false,
    };
    if let Some(client) = message.option(option::CLIENT) {
        put_option(option::CLIENT, client, reply);
    }
    if answer == Answer::RapidReply {
        put_option(option::RAPID_COMMIT, &[], reply);
    }
    match answer {
        Answer::OnLink | Answer::Done => put_status(status::SUCCESS, b"", reply),
        Answer::NotOnLink => put_status(status::NOT_ON_LINK, NOT_ON_LINK, reply),
        _ if refused => {}
        _ => put_configuration(lease, message, reply),
    }
}

/// Answers every association; true if one asked for another address, and is all that is
/// answered [DHCP6-5].
fn put_associations(
    address: Ipv6Addr,
    message: &Message<'_>,
    answer: Answer,
    reply: &mut Reply,
) -> bool {
    if answer == Answer::Assign {
        let wrong = |a: &Association<'_>| a.addresses().any(|wanted| wanted != address);
        let mut refused = false;
        for association in associations(message).flatten().filter(wrong) {
            refused = true;
            let status = |reply: &mut Reply| put_status(status::NOT_ON_LINK, NOT_ON_LINK, reply);
            put_association(&association, association.head, reply, status);
        }
        if refused {
            return true;
        }
    }
    let mut given = false;
    for association in associations(message).flatten() {
        let times = times(&association);
        put_association(&association, &times, reply, |reply| match association.code {
            option::IA_NA if !given => {
                given = true;
                put_address(address, INFINITE, reply);
                if answer == Answer::Extend {
                    // What else the client has, it is not to use any more (RFC 8415, 18.3.4).
                    let wrong = association.addresses().filter(|a| *a != address);
                    wrong.take(MAX_WRONG).for_each(|a| put_address(a, [0; 4], reply));
                }
            }
            option::IA_PD => put_status(status::NO_PREFIX, b"", reply),
            _ => put_status(status::NO_ADDRESSES, b"", reply),
        });
    }
    false
}

/// An association's number and, where it has such, the times after which it is to be extended:
/// never.
fn times(association: &Association<'_>) -> [u8; 12] {
    let mut head = [0xff; 12];
    for (to, from) in head.iter_mut().zip(association.head.iter().take(4)) {
        *to = *from;
    }
    head
}

/// Appends an association with what `body` writes.
fn put_association(
    association: &Association<'_>,
    head: &[u8],
    reply: &mut Reply,
    body: impl FnOnce(&mut Reply),
) {
    let begin = reply.frame().len();
    put_option(association.code, head.get(..association.head.len()).unwrap_or_default(), reply);
    body(reply);
    let len = reply.frame().len().saturating_sub(begin).saturating_sub(HEADER_LEN);
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    reply.patch(begin.saturating_add(2), &len.to_be_bytes());
}

fn put_address(address: Ipv6Addr, lifetime: [u8; 4], reply: &mut Reply) {
    put_header(option::IA_ADDRESS, 24, reply);
    reply.put(&address.octets());
    reply.put(&lifetime);
    reply.put(&lifetime);
}

fn put_status(code: u16, text: &[u8], reply: &mut Reply) {
    put_header(option::STATUS, text.len().saturating_add(2), reply);
    reply.put(&code.to_be_bytes());
    reply.put(text);
}

/// Resolvers, search list and name; what does not fit any more is left out.
fn put_configuration(lease: &Lease, message: &Message<'_>, reply: &mut Reply) {
    if !lease.dns6.is_empty() {
        put_header(option::DNS, lease.dns6.len().saturating_mul(16), reply);
        for server in &lease.dns6 {
            reply.put(&server.octets());
        }
    }
    // The name is one, the list may be long: so the name comes second, but has its room first.
    let mut fqdn = [0; 1 + name::MAX_NAME];
    let fqdn_len = lease.fqdn.as_ref().and_then(|name| {
        let (flags, rest) = fqdn.split_first_mut()?;
        let sent = message.option(option::FQDN).and_then(|v| v.first());
        *flags = if sent.is_some_and(|f| f & FQDN_S != 0) { FQDN_O } else { 0 };
        name::write(name, rest)?.checked_add(1)
    });
    let fqdn = fqdn_len.and_then(|len| fqdn.get(..len)).unwrap_or_default();
    let left = MAX_FRAME.saturating_sub(reply.frame().len());
    let own = fqdn.len().saturating_add(HEADER_LEN);
    let most = left.saturating_sub(own).saturating_sub(HEADER_LEN);
    let mut list = [0; MAX_FRAME];
    let len = name::write_all(&lease.search, list.get_mut(..most).unwrap_or_default());
    if len != 0 {
        put_option(option::SEARCH, list.get(..len).unwrap_or_default(), reply);
    }
    if !fqdn.is_empty() && own <= left {
        put_option(option::FQDN, fqdn, reply);
    }
}

fn put_option(code: u16, value: &[u8], reply: &mut Reply) {
    put_header(code, value.len(), reply);
    reply.put(value);
}

fn put_header(code: u16, len: usize, reply: &mut Reply) {
    reply.put(&code.to_be_bytes());
    // A frame is far shorter than what 16 bits count.
    reply.put(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}
