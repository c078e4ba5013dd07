#![allow(clippy::unwrap_used)]
use super::*;

const DEFAULT: RouteHeader = RouteHeader {
    family: 2,
    dst_len: 0,
    src_len: 0,
    tos: 0,
    table: TABLE_MAIN,
    protocol: PROTOCOL_BOOT,
    scope: 0,
    kind: UNICAST,
    flags: 0,
};

fn message(header: RouteHeader, attrs: &[(u16, &[u8])]) -> Message {
    let mut buf = AttrBuf::default();
    for (kind, value) in attrs {
        buf.push(*kind, value);
    }
    Message { kind: NEWROUTE, flags: 0, body: header.body(&buf) }
}

fn route(dst: Option<([u8; 4], u8)>, oif: u32, gateway: Option<u8>) -> Route {
    let header = RouteHeader { dst_len: dst.map_or(0, |d| d.1), ..DEFAULT };
    let mut attrs = AttrBuf::default();
    if let Some((net, _)) = dst {
        attrs.push(RTA_DST, &net);
    }
    if oif != 0 {
        attrs.push_u32(RTA_OIF, oif);
    }
    if let Some(g) = gateway {
        attrs.push(RTA_GATEWAY, &[192, 0, 2, g]);
    }
    Route::parse(&Message { kind: NEWROUTE, flags: 0, body: header.body(&attrs) }).unwrap()
}

fn nexthop(index: u32, hops: u8, flags: u8, gateway: u8) -> Vec<u8> {
    let mut attrs = AttrBuf::default();
    attrs.push(RTA_GATEWAY, &[192, 0, 2, gateway]);
    let mut out = 16u16.to_ne_bytes().to_vec();
    out.extend([flags, hops]);
    out.extend(index.to_ne_bytes());
    out.extend(attrs.0);
    out
}

fn multipath(hops: &[(u32, u8, u8)]) -> Route {
    let bytes: Vec<u8> = hops.iter().flat_map(|(i, w, g)| nexthop(*i, *w, 0, *g)).collect();
    Route::parse(&message(DEFAULT, &[(RTA_MULTIPATH, &bytes)])).unwrap()
}

fn not_lo(index: u32) -> bool {
    index != 7 // loopback need not be interface 1 [W-39]
}

// [NL-2] [ADDR-1] The first default route in kernel order wins.
#[test]
fn default_routes() {
    let routes = [route(Some(([10, 0, 0, 0], 8)), 2, None), route(None, 3, Some(1))];
    let t = template(&routes, not_lo).unwrap();
    assert_eq!(t, Template { index: 3, default: true, others: 0 });
    let routes = [route(None, 4, Some(1)), route(None, 3, Some(2))];
    let t = template(&routes, not_lo).unwrap();
    assert_eq!(t, Template { index: 4, default: true, others: 1 });
    assert_eq!(gateway(&routes, 4), Some(IpAddr::from([192, 0, 2, 1])));
    assert_eq!(gateway(&routes, 3), Some(IpAddr::from([192, 0, 2, 2])));
    assert_eq!(gateway(&routes, 5), None);
}

// [NL-2] Loopback, link-local destinations and routes without an interface do not count.
#[test]
fn unsuitable_routes() {
    let routes = [
        route(Some(([192, 168, 1, 0], 24)), 7, None),
        route(Some(([169, 254, 0, 0], 16)), 3, None),
        route(Some(([10, 0, 0, 0], 8)), 0, None),
    ];
    assert_eq!(template(&routes, not_lo), None);
    let routes =
        [route(Some(([10, 0, 0, 0], 8)), 5, None), route(Some(([10, 0, 1, 0], 24)), 6, None)];
    assert_eq!(template(&routes, not_lo), Some(Template { index: 5, default: false, others: 1 }));
    // 169.0.0.0/8 contains the link-local block, but is not within it.
    assert!(template(&[route(Some(([169, 254, 0, 0], 8)), 3, None)], not_lo).is_some());
    assert_eq!(template(&[], not_lo), None);
}

// [NL-3] [W-29] Greatest weight, first of equals; the interface of the first next hop.
#[test]
fn multipath_gateway() {
    let routes = [multipath(&[(3, 0, 1), (3, 4, 2), (3, 4, 3)])];
    assert_eq!(template(&routes, not_lo).unwrap().index, 3);
    assert_eq!(gateway(&routes, 3), Some(IpAddr::from([192, 0, 2, 2])));
    let routes = [multipath(&[(3, 1, 1), (3, 1, 2)])];
    assert_eq!(gateway(&routes, 3), Some(IpAddr::from([192, 0, 2, 1])));
    // A next hop through another interface is no gateway of ours.
    let routes = [multipath(&[(3, 0, 1), (4, 9, 2)])];
    assert_eq!(gateway(&routes, 3), Some(IpAddr::from([192, 0, 2, 1])));
}

#[test]
fn only_ordinary_routes() {
    assert!(route(None, 3, None).is_ordinary(2));
    assert!(!route(None, 3, None).is_ordinary(10));
    let parsed = |header, attrs: &[(u16, &[u8])]| Route::parse(&message(header, attrs)).unwrap();
    assert!(!parsed(RouteHeader { kind: 2, ..DEFAULT }, &[]).is_ordinary(2));
    assert!(!parsed(RouteHeader { flags: RTM_F_CLONED, ..DEFAULT }, &[]).is_ordinary(2));
    assert!(!parsed(DEFAULT, &[(RTA_TABLE, &1000u32.to_ne_bytes())]).is_ordinary(2));
}

// [NS-13] State, source, nexthop id go; the rest is copied, unknown attributes included.
#[test]
fn copies() {
    let header = RouteHeader { flags: 0x4000_0000 | 0x10 | 0x04 | 0x01, tos: 8, ..DEFAULT };
    let m = message(
        header,
        &[
            (RTA_OIF, &3u32.to_ne_bytes()),
            (RTA_PREFSRC, &[192, 0, 2, 9]),
            (RTA_NH_ID, &[1, 0, 0, 0]),
            (6, &600u32.to_ne_bytes()),
            (0x8fff, b"unknown"),
        ],
    );
    let c = copy(&m, 2, 3, 8).unwrap();
    assert_eq!(RouteHeader::parse(&c.body), Some(RouteHeader { flags: RTNH_F_ONLINK, ..header }));
    assert_eq!(c.flags, F_CREATE | F_APPEND);
    let attrs = parse(&c.body[RouteHeader::LEN..]).unwrap();
    assert_eq!(attrs.len(), 3);
    assert_eq!((attrs[0].kind(), attrs[0].u32()), (RTA_OIF, Some(8)));
    assert_eq!((attrs[1].kind(), attrs[1].u32()), (6, Some(600)));
    assert_eq!((attrs[2].kind(), attrs[2].value), (0x0fff, &b"unknown"[..]));
    assert!(!has_gateway(&c));
}

// [NS-13] Routes by another interface, by none, or partly by another one are not copied.
#[test]
fn refuses() {
    assert_eq!(copy(&message(DEFAULT, &[(RTA_OIF, &4u32.to_ne_bytes())]), 2, 3, 8), None);
    assert_eq!(copy(&message(DEFAULT, &[]), 2, 3, 8), None);
    let hops = [nexthop(3, 1, 0, 1), nexthop(4, 1, 0, 2)].concat();
    assert_eq!(copy(&message(DEFAULT, &[(RTA_MULTIPATH, &hops)]), 2, 3, 8), None);
}

// [NS-13] Weights and gateways of next hops are kept, their state is not.
#[test]
fn copies_multipath() {
    let hops = [nexthop(3, 5, 0x15, 1), nexthop(3, 1, 0, 2)].concat();
    let c = copy(&message(DEFAULT, &[(RTA_MULTIPATH, &hops)]), 2, 3, 8).unwrap();
    let attrs = parse(&c.body[RouteHeader::LEN..]).unwrap();
    let expected = [nexthop(8, 5, 0x04, 1), nexthop(8, 1, 0, 2)].concat();
    assert_eq!(attrs[0].value, expected);
    assert!(has_gateway(&c));
}

// [W-42] The kernel's own routes are added only where the guest's kernel has not made them.
#[test]
fn kernel_routes_are_exclusive() {
    let header = RouteHeader { protocol: PROTOCOL_KERNEL, dst_len: 24, scope: 253, ..DEFAULT };
    let attrs: &[(u16, &[u8])] = &[(RTA_DST, &[192, 0, 2, 0]), (RTA_OIF, &3u32.to_ne_bytes())];
    assert_eq!(copy(&message(header, attrs), 2, 3, 8).unwrap().flags, F_CREATE | F_EXCL);
}

#[test]
fn nexthop_lengths_are_checked() {
    let mut hops = nexthop(3, 1, 0, 1);
    hops[0..2].copy_from_slice(&7u16.to_ne_bytes());
    assert!(nexthops(&hops).is_none());
    hops[0..2].copy_from_slice(&17u16.to_ne_bytes());
    assert!(nexthops(&hops).is_none());
    assert!(Route::parse(&message(DEFAULT, &[(RTA_MULTIPATH, &hops)])).is_none());
}
