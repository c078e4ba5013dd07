//! Network interfaces: reading them and changing them.

use std::io;

use super::Socket;
use super::attrs::{AttrBuf, parse};
use super::message::{GETLINK, LinkHeader, Message, NEWLINK};
use crate::wire::Mac;

/// `IFLA_ADDRESS`: hardware address.
const IFLA_ADDRESS: u16 = 1;
/// `IFLA_IFNAME`.
const IFLA_IFNAME: u16 = 3;
/// `IFLA_MTU`.
const IFLA_MTU: u16 = 4;
/// `IFLA_QDISC`: its queueing discipline.
const IFLA_QDISC: u16 = 6;
/// `IFLA_TXQLEN`.
const IFLA_TXQLEN: u16 = 13;

/// `IFF_UP`.
pub(super) const IFF_UP: u32 = 0x1;
/// `IFF_LOOPBACK`.
const IFF_LOOPBACK: u32 = 0x8;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its index.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Its hardware address, if it is an Ethernet one.
    pub(super) mac: Option<Mac>,
    flags: u32,
    /// Its queueing discipline is `noop`: nobody chose one, and it was never up.
    pub(super) qdisc_noop: bool,
}

impl Link {
    fn parse(message: &Message) -> Option<Self> {
        let header = LinkHeader::parse(&message.body)?;
        let attrs = parse(message.body.get(LinkHeader::LEN..)?)?;
        let value = |kind| attrs.iter().find(|a| a.kind() == kind);
        Some(Self {
            index: header.index,
            name: value(IFLA_IFNAME)?.string(),
            mac: value(IFLA_ADDRESS).and_then(|a| a.value.try_into().ok()).map(Mac),
            flags: header.flags,
            qdisc_noop: value(IFLA_QDISC).is_some_and(|a| a.string() == "noop"),
        })
    }

    /// It is switched on.
    pub(super) fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// By flag: loopback need not be interface 1 [W-39].
    pub(super) fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }
}

/// All interfaces of the namespace.
pub(super) fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let messages = socket.dump(GETLINK, NEWLINK, &[0; LinkHeader::LEN])?;
    Ok(understood(&messages, Link::parse, "interface"))
}

/// The interface of this name; fails with `ENODEV` if there is none.
pub(super) fn by_name(socket: &mut Socket, name: &str) -> io::Result<Link> {
    let mut attrs = AttrBuf::default();
    attrs.push_str(IFLA_IFNAME, name);
    let body = LinkHeader::default().body(&attrs);
    let replies = socket.request(&Message { kind: GETLINK, flags: 0, body })?;
    let link = replies.iter().filter(|m| m.kind == NEWLINK).find_map(Link::parse);
    link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Sets the `IFF_*` bits in `mask` to those in `flags`.
pub(super) fn set_flags(socket: &mut Socket, index: u32, flags: u32, mask: u32) -> io::Result<()> {
    let header = LinkHeader { index, flags, change: mask };
    change(socket, header, &AttrBuf::default())
}

/// Sets the MTU, bytes.
pub(super) fn set_mtu(socket: &mut Socket, index: u32, mtu: u16) -> io::Result<()> {
    let mut attrs = AttrBuf::default();
    attrs.push_u32(IFLA_MTU, u32::from(mtu));
    change(socket, LinkHeader { index, ..LinkHeader::default() }, &attrs)
}

/// Sets how many frames may wait for the device.
pub(super) fn set_queue_length(socket: &mut Socket, index: u32, frames: u32) -> io::Result<()> {
    let mut attrs = AttrBuf::default();
    attrs.push_u32(IFLA_TXQLEN, frames);
    change(socket, LinkHeader { index, ..LinkHeader::default() }, &attrs)
}

/// Sets the hardware address.
pub(super) fn set_mac(socket: &mut Socket, index: u32, mac: Mac) -> io::Result<()> {
    let mut attrs = AttrBuf::default();
    attrs.push(IFLA_ADDRESS, &mac.0);
    change(socket, LinkHeader { index, ..LinkHeader::default() }, &attrs)
}

/// What `parse` makes of each message, without those it makes nothing of: they are warned about.
pub(super) fn understood<'a, T>(
    messages: &'a [Message],
    parse: impl Fn(&'a Message) -> Option<T>,
    what: &str,
) -> Vec<T> {
    let out: Vec<T> = messages.iter().filter_map(parse).collect();
    match messages.len().saturating_sub(out.len()) {
        0 => {}
        n => log::warn!("netlink: {n} {what} message(s) not understood, ignored"),
    }
    out
}

fn change(socket: &mut Socket, header: LinkHeader, attrs: &AttrBuf) -> io::Result<()> {
    socket.request(&Message { kind: NEWLINK, flags: 0, body: header.body(attrs) }).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // [W-39] Loopback is told by its flag.
    #[test]
    fn parses() {
        let header = LinkHeader { index: 9, flags: IFF_UP | IFF_LOOPBACK, change: 0 };
        let mut attrs = AttrBuf::default();
        attrs.push_str(IFLA_IFNAME, "lo").push(IFLA_ADDRESS, &[0; 6]);
        let message = Message { kind: NEWLINK, flags: 0, body: header.body(&attrs) };
        let link = Link::parse(&message).unwrap();
        assert!(link.is_loopback());
        assert_eq!((link.index, link.name.as_str()), (9, "lo"));
        let nameless = Message { body: header.body(&AttrBuf::default()), ..message.clone() };
        assert_eq!(understood(&[nameless, message], Link::parse, "interface"), [link]);
    }
}
