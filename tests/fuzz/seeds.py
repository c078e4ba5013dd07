#!/usr/bin/env python3
"""Writes corpus-seed/: a few sensible inputs, in the order src/driver.rs reads them."""
import os

V4, V6 = 0, 16  # flags of an address byte: the guest to the usual peer
SETUP = bytes([0, 0, 0])


def batch(*frames):
    return bytes([0, len(frames) - 1]) + b"".join(frames)


def ip(family):
    return bytes([0]) + (bytes([0]) if family == V6 else b"") + bytes([0, 0])


def syn(family=V4):
    return bytes([10, family, 0, 0, 0, 0, 0, 0, 0]) + ip(family)


def seg(family=V4, flags=0, data=None, window=0):
    payload = bytes([0]) if data is None else bytes([1, data])
    return bytes([0, 0, flags, 0, 0]) + payload + bytes([200, window]) + ip(family)


def udp(family=V4, length=50, gso=0):
    return bytes([15, family, 0, 0, length, gso, 0]) + ip(family)


def echo(family=V4, length=56):
    return bytes([21, family, 0, 0, 0, length]) + ip(family)


def fragments(family=V4):
    """A datagram in eight of them, the first one last."""
    ttl = ip(family)[:-2]
    first = bytes([20, 0, family, 0, 0, 50, 0, 0]) + ttl + bytes([0, 0, 7, 0, 0, 0])
    later = [bytes([20, 0, at, 0, 0, 0]) for at in range(6, -1, -1)]
    return batch(first, *later[:3]) + batch(*later[3:])


READY = bytes([12, 0, 1, 3])  # connected, readable, writable
FIN, PEER_FIN, TIME, VISITS = 180, bytes([18, 0]), bytes([24, 3]), bytes([29])


def peer_sends(size):
    return bytes([16, 0, size])


def datagrams(*what):
    return bytes([23, 0, len(what) - 1]) + bytes(what)


def tcp_out(family):
    return (batch(syn(family)) + READY + batch(seg(family))
            + batch(seg(family, data=90), seg(family, data=150)) + peer_sends(2)
            + batch(seg(family)) + peer_sends(5) + batch(seg(family)) * 4 + VISITS
            + PEER_FIN + batch(seg(family)) * 40 + batch(seg(family, FIN)) + TIME)


def raw(*frame):
    frame = bytes(12) + bytes(frame)
    return bytes([31, len(frame)]) + frame


IN = {V4: bytes([21, 0, 0, 3, 0, 0]), V6: bytes([21, 1, 0, 3, 0, 0])}
SEEDS = {
    "tcp4-out": tcp_out(V4),
    "tcp6-out": tcp_out(V6),
    "tcp4-in": IN[V4] + batch(seg(V4, 200)) + peer_sends(3) + batch(seg(V4)) + PEER_FIN
    + batch(seg(V4, FIN)) * 2 + TIME,
    "tcp6-in": IN[V6] + batch(seg(V6, 200)) + batch(seg(V6, data=230)) + TIME,
    "tcp-closed-window": batch(syn()) + READY + batch(seg()) + peer_sends(4)
    + batch(seg(window=4)) + TIME * 8 + batch(seg()) * 8,
    "tcp-full-socket": batch(syn()) + READY + batch(seg()) + bytes([20, 0, 0])
    + batch(*[seg(data=231)] * 4) + bytes([20, 0, 5]) + batch(seg(flags=FIN)) + TIME,
    "tcp-trouble": bytes([28, 77]) + batch(syn(), syn(V6)) + READY + batch(seg(), seg(data=99)) * 4,
    "udp4": batch(udp(V4, 50), udp(V4, 231, 200)) + datagrams(4, 5, 255, 1) + TIME * 2,
    "udp6": batch(udp(V6, 50)) + datagrams(4, 5, 254, 1) + batch(udp(V6, 0)) + bytes([24, 5]),
    "fragments4": fragments(V4),
    "fragments6": fragments(V6),
    "udp-in": bytes([22, 0, 0, 3, 0, 60]) * 2 + batch(udp()) + bytes([22, 1, 0, 3, 0, 60]),
    "splice": bytes([0x55, 0, 0, 12, 1, 1, 3, 12, 0, 0, 3]) + peer_sends(2) + bytes([16, 1, 5])
    + bytes([16, 0, 5, 20, 0, 0, 16, 1, 5, 16, 1, 5]) + VISITS + bytes([20, 0, 5]) + VISITS
    + bytes([18, 0, 18, 1]) + VISITS,
    "splice-udp": bytes([0x56, 0, 2, 60, 0x56, 1, 2, 60]) + datagrams(4, 5, 1) + TIME * 2,
    "ping4": batch(echo(V4)) + datagrams(0, 3) + TIME,
    "ping6": batch(echo(V6)) + datagrams(2, 3) + TIME,
    "arp": batch(bytes([24, 0, 0, 1, 0, 0]), bytes([24, 2, 0, 1, 0, 0])),
    "ndp": batch(bytes([26, 0, 0, 1, 1, 1, 0]) + bytes([1, 0, 0, 0]),
                 bytes([26, 1, 0, 6, 0]) + bytes([1, 0, 0, 0])),
    "raw": batch(raw(*range(60)), raw(*([255] * 14))),
}

# The target `segments` reads its segments in another way: src/segments.rs.
NEW, KNOWN = 0, 64


def segment(which=KNOWN, flags=16, seq=0, ack=0, options=b"\0", words=0, urgent=b"", data=b"\0",
            family=V4):
    return (bytes([which, flags, seq, ack, 0]) + options + bytes([words]) + urgent + data
            + ip(family)[:-2])


def new(options=b"\1", which=NEW, isn=0, flags=2):
    return bytes([which, isn, flags, 0, 0, 0]) + options + bytes([0, 0]) + ip(
        V6 if which & 1 else V4)[:-2]


def raw_options(*some):
    return bytes([len(some)]) + bytes(some)


DATA = b"\1\x32"  # 50 bytes
SEGMENTS = {
    "basic": batch(new()) + READY + batch(segment(), segment(data=DATA)) + peer_sends(4)
    + batch(segment()) * 3 + PEER_FIN + batch(segment(flags=17)) + batch(segment()) * 3 + TIME,
    "basic6": batch(new(which=1)) + READY
    + batch(segment(family=V6), segment(data=DATA, family=V6)) + peer_sends(4),
    "wrap": batch(new(isn=0)) + READY + batch(segment()) + batch(*[segment(data=b"\1\xe6")] * 4) * 3,
    "urgent": batch(new()) + READY
    + batch(*[segment(flags=0x30, urgent=u, data=DATA) for u in (b"\0\0", b"\1\0", b"\xff\xff")]),
    "header-length": batch(new()) + READY + batch(segment(), *[segment(words=224 + n) for n in (0, 4, 15)]),
    "options": batch(new(raw_options(2, 0, 0, 0))) + batch(new(raw_options(2, 4, 5), which=2))
    + batch(new(raw_options(*([3, 3, 14, 1] * 10)), which=4)) + batch(new(raw_options(255, 1, 0), 6)),
    "hole": batch(new()) + READY + batch(segment(), segment(seq=200, data=DATA), segment(data=DATA)),
} | {
    f"mss-{n}": batch(new(raw_options(2, 4, 0, n))) + READY + batch(segment()) + peer_sends(2)
    + batch(segment()) * 4 for n in range(4)
} | {
    f"flags-{first:02x}": batch(new()) + READY + batch(segment()) + b"".join(
        batch(segment(flags=f, urgent=b"\0\0" if f & 32 else b"", data=DATA))
        for f in range(first, first + 32) if not f & 4)
    + b"".join(
        batch(segment(flags=f, urgent=b"\0\0" if f & 32 else b"", seq=130)) for f in range(first, first + 32))
    for first in range(0, 256, 32)
}


# The target `stream` takes the size of its pieces, and then what a guest writes: src/stream.rs.
def framed(frame):
    return len(frame).to_bytes(4, "big") + frame


def tcp_frame(family, seq, payload, flags=16):
    tcp = (bytes([0, 7, 0, 80]) + (seq & 0xffffffff).to_bytes(4, "big") + bytes([0, 0, 0, 9, 0x80, flags])
           + bytes([0, 99, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]) + payload)
    if family == V4:
        network = bytes([8, 0, 0x45, 0]) + (20 + len(tcp)).to_bytes(2, "big") + bytes(
            [0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2])
    else:
        network = bytes([0x86, 0xdd, 0x60, 0, 0, 0]) + len(tcp).to_bytes(2, "big") + bytes([6, 64]) + bytes(32)
    return framed(bytes(12) + network + tcp)


def train(family, count=4, size=50):
    return b"".join(tcp_frame(family, 2**32 - 99 + n * size, bytes([n]) * size) for n in range(count))


STREAMS = {
    "frames": b"\0" + framed(bytes(14)) + framed(bytes(60)) + framed(bytes(range(100))),
    "bytewise": b"\1" + framed(bytes(60)) * 3 + framed(bytes(20))[:-1],
    "lengths": b"\7" + framed(bytes(65535)[:300]) + bytes([0, 1, 0, 0]),
    "short": b"\5" + framed(bytes(60)) + bytes([0, 0, 0, 13]) + bytes(13),
    "train4": b"\0" + train(V4), "train6": b"\0" + train(V6),
    "train-fin": b"\0" + train(V4, 2) + tcp_frame(V4, 2**32 + 1, b"end", 25) + train(V4, 1),
    "trains": b"\x80" + train(V4) + train(V6) + train(V4, 8, 2),
}

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus-seed")
for name, steps in SEEDS.items():
    os.makedirs(os.path.join(here, "frames"), exist_ok=True)
    with open(os.path.join(here, "frames", name), "wb") as f:
        f.write(SETUP + steps)
for name, steps in SEGMENTS.items():
    os.makedirs(os.path.join(here, "segments"), exist_ok=True)
    with open(os.path.join(here, "segments", name), "wb") as f:
        f.write(SETUP + steps)
for name, data in STREAMS.items():
    os.makedirs(os.path.join(here, "stream"), exist_ok=True)
    with open(os.path.join(here, "stream", name), "wb") as f:
        f.write(data)
for target, seeds in {
    "cli": {"ports": b"-t\0 8000-8010:80-90,[::1]/22\0-u\0none\0-T\0001-65535", "netns": b"--netns\0x"},
    "netlink": {
        "link": bytes([44, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]) + bytes(16)
        + bytes([12, 0, 3, 0]) + b"eth0\0\0\0\0" + bytes([20, 0, 0, 0, 3, 0]) + bytes(14),
        "neighbour": bytes([48, 0, 0, 0, 28, 0]) + bytes(10) + bytes([2, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 1])
        + bytes([8, 0, 1, 0, 10, 9, 0, 3, 10, 0, 2, 0, 2, 0, 0, 0, 0, 7, 0, 0]),
        "default-route": bytes([28, 0, 0, 0, 24, 0]) + bytes(10) + bytes([2, 0, 0, 0, 254, 3, 0, 1]) + bytes(4),
    },
}.items():
    os.makedirs(os.path.join(here, target), exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(here, target, name), "wb") as f:
            f.write(data)
