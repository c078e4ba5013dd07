//! Segmentation and checksums in software, for what a link does not offload.

use crate::wire::checksum::Checksum;
use crate::wire::{Gso, Head, TcpFlags, Vnet};

/// Longest headers of a frame: Ethernet, IPv6, TCP with options.
pub(super) const HEADERS: usize = 14 + 40 + 60;

/// Where a TCP header keeps its sequence number and flags.
const SEQ: usize = 4;
const FLAGS: usize = 13;

/// Where a UDP header keeps its length.
const UDP_LENGTH: usize = 4;

/// Calls `send` with headers and payload of every packet that `head` and `payload` stand for,
/// checksums complete. False as soon as one is lost: what follows would only make a hole.
pub(super) fn each(
    head: &Head,
    payload: &[u8],
    mut send: impl FnMut(&[u8], &[u8]) -> bool,
) -> bool {
    let size = match head.vnet().gso {
        Gso::None => payload.len(),
        Gso::Tcp4(n) | Gso::Tcp6(n) | Gso::Udp(n) => usize::from(n),
    };
    let mut offset = 0usize;
    loop {
        let rest = payload.get(offset..).unwrap_or_default();
        let (now, later) = rest.split_at(rest.len().min(size.max(1)));
        let mut room = [0u8; HEADERS];
        let Some(headers) = cut(head, &mut room, offset, now, later.is_empty()) else {
            return false;
        };
        if !send(headers, now) {
            return false;
        }
        offset = offset.saturating_add(now.len());
        if later.is_empty() {
            return true;
        }
    }
}

/// Headers of the packet that carries `payload`, `offset` bytes into the train.
pub(super) fn cut<'a>(
    head: &Head,
    room: &'a mut [u8; HEADERS],
    offset: usize,
    payload: &[u8],
    last: bool,
) -> Option<&'a [u8]> {
    let template = head.frame();
    let out = room.get_mut(..template.len())?;
    out.copy_from_slice(template);
    let vnet = head.vnet();
    let transport = usize::from(vnet.csum_start);
    let length = template.len().checked_add(payload.len())?;
    if vnet.gso != Gso::None {
        let whole = length.checked_sub(transport)?;
        let ip = length.checked_sub(14)?;
        if out.get(14)? >> 4 == 4 {
            put(out, 16, &u16::try_from(ip).ok()?.to_be_bytes())?;
            put(out, 24, &[0, 0])?;
            let mut sum = Checksum::new();
            sum.add(out.get(14..34)?);
            put(out, 24, &sum.finish().to_be_bytes())?;
        } else {
            put(out, 18, &u16::try_from(ip.checked_sub(40)?).ok()?.to_be_bytes())?;
        }
        if let Gso::Udp(_) = vnet.gso {
            let at = transport.checked_add(UDP_LENGTH)?;
            put(out, at, &u16::try_from(whole).ok()?.to_be_bytes())?;
        } else {
            let at = transport.checked_add(SEQ)?;
            let seq = u32::from_be_bytes(*out.get(at..)?.first_chunk()?);
            put(out, at, &seq.wrapping_add(u32::try_from(offset).ok()?).to_be_bytes())?;
            if !last {
                let flags = out.get_mut(transport.checked_add(FLAGS)?)?;
                *flags &= !(TcpFlags::FIN.0 | TcpFlags::PSH.0);
            }
        }
    }
    if vnet.needs_csum {
        let at = transport.checked_add(usize::from(vnet.csum_offset))?;
        let whole = template.len().checked_sub(transport)?.checked_add(payload.len())?;
        let pseudo = pseudo_header(out, vnet.csum_offset, whole)?;
        put(out, at, &[0, 0])?;
        let mut sum = pseudo;
        sum.add(out.get(transport..)?);
        super::sum::add(&mut sum, payload);
        // A UDP checksum of 0 would mean "none" (RFC 768); for TCP both forms are equal.
        put(out, at, &sum.finish_udp().to_be_bytes())?;
    }
    room.get(..template.len())
}

/// Completes the transport checksum of a frame that leaves it to others, as if the frame were one
/// packet.
pub(super) fn complete(frame: &mut [u8], vnet: &Vnet) -> Option<()> {
    let transport = usize::from(vnet.csum_start);
    let at = transport.checked_add(usize::from(vnet.csum_offset))?;
    let mut sum = pseudo_header(frame, vnet.csum_offset, frame.len().checked_sub(transport)?)?;
    put(frame, at, &[0, 0])?;
    sum.add(frame.get(transport..)?);
    put(frame, at, &sum.finish_udp().to_be_bytes())
}

fn pseudo_header(frame: &[u8], csum_offset: u16, length: usize) -> Option<Checksum> {
    let protocol = if csum_offset == 16 { 6 } else { 17 };
    let address = |at: usize, n: usize| frame.get(at..at.checked_add(n)?);
    Some(if frame.get(14)? >> 4 == 4 {
        let (s, d) = (address(26, 4)?.first_chunk::<4>()?, address(30, 4)?.first_chunk::<4>()?);
        Checksum::pseudo_v4((*s).into(), (*d).into(), protocol, u16::try_from(length).ok()?)
    } else {
        let (s, d) = (address(22, 16)?.first_chunk::<16>()?, address(38, 16)?.first_chunk::<16>()?);
        Checksum::pseudo_v6((*s).into(), (*d).into(), protocol, u32::try_from(length).ok()?)
    })
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    out.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[allow(clippy::cast_possible_truncation)]
pub(super) mod tests {
    use super::*;
    use crate::wire::{Addr, Endpoint, Mac, Path, Seq, TcpHead, Timestamps};
    use smoltcp::wire as smol;

    /// From us to the guest.
    pub(in crate::link) fn path(v6: bool) -> Path {
        let a = |s: &str| Addr::from(s.parse::<std::net::IpAddr>().unwrap());
        let (src, dst) =
            if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
        Path {
            src_mac: Mac::DEFAULT_OURS,
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            src: Endpoint::new(a(src), 80),
            dst: Endpoint::new(a(dst), 4000),
            flow_label: 5,
            tos: 0,
            ttl: crate::wire::TTL,
        }
    }

    // [TCP-62] [TCP-88] Segments of the size asked for, PSH on the last, all checksums right, the
    // options on every one.
    #[test]
    fn tcp_trains_are_cut() {
        let stamps = Timestamps { value: 77, echo: 88 }.encode();
        for (v6, options) in [(false, &[][..]), (true, &[]), (false, &stamps), (true, &stamps)] {
            let p = path(v6);
            let tcp = TcpHead {
                seq: Seq(u32::MAX - 1000),
                ack: Seq(7),
                flags: TcpFlags::ACK.with(TcpFlags::PSH),
                window: 9,
                options,
                mss: 1400,
            };
            let payload: Vec<u8> = (0..5001u32).map(|n| n as u8).collect();
            let head = Head::tcp(&p, &tcp, payload.len()).unwrap();
            let mut got = Vec::new();
            assert!(each(&head, &payload, |h, b| {
                let frame: Vec<u8> = h.iter().chain(b).copied().collect();
                let at = if v6 {
                    smol::Ipv6Packet::new_checked(&frame[14..]).unwrap();
                    54
                } else {
                    let ip = smol::Ipv4Packet::new_checked(&frame[14..]).unwrap();
                    assert!(ip.verify_checksum());
                    assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
                    34
                };
                let t = smol::TcpPacket::new_checked(&frame[at..]).unwrap();
                let (s, d) = (p.src.addr.to_ip(), p.dst.addr.to_ip());
                assert!(t.verify_checksum(&s.into(), &d.into()));
                assert_eq!(t.options(), options);
                got.push((t.seq_number().0.cast_unsigned(), t.payload().to_vec(), t.psh()));
                true
            }));
            let sizes: Vec<_> = got.iter().map(|g| g.1.len()).collect();
            assert_eq!(sizes, [1400, 1400, 1400, 801]);
            assert_eq!(got.iter().map(|g| g.2).collect::<Vec<_>>(), [false, false, false, true]);
            assert_eq!(got[1].0, (u32::MAX - 1000).wrapping_add(1400));
            assert_eq!(got.iter().flat_map(|g| g.1.clone()).collect::<Vec<_>>(), payload);
        }
    }

    // [UDP-7] Datagrams of the size asked for, the last one shorter, lengths and checksums right.
    #[test]
    fn udp_trains_are_cut() {
        for v6 in [false, true] {
            let p = path(v6);
            let payload: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
            let head = Head::udp(&p, payload.len(), 1000).unwrap();
            let mut got = Vec::new();
            assert!(each(&head, &payload, |h, b| {
                let frame: Vec<u8> = h.iter().chain(b).copied().collect();
                let at = if v6 {
                    let ip = smol::Ipv6Packet::new_checked(&frame[14..]).unwrap();
                    assert_eq!(usize::from(ip.payload_len()), frame.len() - 54);
                    54
                } else {
                    let ip = smol::Ipv4Packet::new_checked(&frame[14..]).unwrap();
                    assert!(ip.verify_checksum());
                    assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
                    34
                };
                let udp = smol::UdpPacket::new_checked(&frame[at..]).unwrap();
                assert_eq!(usize::from(udp.len()), frame.len() - at);
                let (s, d) = (p.src.addr.to_ip(), p.dst.addr.to_ip());
                assert!(udp.verify_checksum(&s.into(), &d.into()));
                got.push(udp.payload().to_vec());
                true
            }));
            assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
            assert_eq!(got.concat(), payload);
        }
    }

    #[test]
    fn empty_payload_is_one_packet() {
        let head = Head::udp(&path(true), 0, 0).unwrap();
        let mut n = 0;
        assert!(each(&head, &[], |h, b| {
            let frame: Vec<u8> = h.iter().chain(b).copied().collect();
            let u = smol::UdpPacket::new_checked(&frame[54..]).unwrap();
            let p = path(true);
            assert!(u.verify_checksum(&p.src.addr.to_ip().into(), &p.dst.addr.to_ip().into()));
            n += 1;
            true
        }));
        assert_eq!(n, 1);
    }

    #[test]
    fn stops_at_the_first_loss() {
        let tcp = TcpHead {
            seq: Seq(0),
            ack: Seq(0),
            flags: TcpFlags::ACK,
            window: 0,
            options: &[],
            mss: 100,
        };
        let head = Head::tcp(&path(false), &tcp, 1000).unwrap();
        let mut n = 0;
        assert!(!each(&head, &[0; 1000], |_, _| {
            n += 1;
            n < 3
        }));
        assert_eq!(n, 3);
    }
}
