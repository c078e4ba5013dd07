//! Sockets in namespaces, with time limits.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::lab::{SOON, eventually};
use crate::ns::Ns;

/// A listening socket in `ns`.
#[track_caller]
pub(crate) fn listen(ns: &Ns, at: SocketAddr) -> TcpListener {
    let socket = ns.enter(|| TcpListener::bind(at).unwrap_or_else(|e| panic!("{at}: {e}")));
    socket.set_nonblocking(true).unwrap();
    socket
}

/// A connection from `ns`, with time limits on every operation.
pub(crate) fn try_connect(ns: &Ns, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = ns.enter(|| TcpStream::connect_timeout(&to, SOON))?;
    limits(&stream);
    Ok(stream)
}

/// A connection from `ns` that has to succeed.
#[track_caller]
pub(crate) fn connect(ns: &Ns, to: SocketAddr) -> TcpStream {
    try_connect(ns, to).unwrap_or_else(|e| panic!("connect to {to}: {e}"))
}

/// The next connection.
#[track_caller]
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let mut next = None;
    eventually("a connection arrives", SOON, || match listener.accept() {
        Ok((stream, _)) => next.replace(stream).is_none(),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            false
        }
    });
    let stream = next.unwrap();
    stream.set_nonblocking(false).unwrap();
    limits(&stream);
    stream
}

/// Connects, and exchanges a word in each direction. Both ends.
#[track_caller]
pub(crate) fn roundtrip(ns: &Ns, to: SocketAddr, server: &TcpListener) -> (TcpStream, TcpStream) {
    let mut near = connect(ns, to);
    let mut far = accept(server);
    pass(&mut near, &mut far, b"ping");
    pass(&mut far, &mut near, b"pong");
    (near, far)
}

/// One message from one end to the other.
#[track_caller]
pub(crate) fn pass(from: &mut TcpStream, to: &mut TcpStream, message: &[u8]) {
    from.write_all(message).unwrap();
    let mut got = vec![0; message.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, message);
}

/// A datagram socket in `ns`, with a time limit.
#[track_caller]
pub(crate) fn udp(ns: &Ns, at: SocketAddr) -> UdpSocket {
    let socket = ns.enter(|| UdpSocket::bind(at).unwrap_or_else(|e| panic!("{at}: {e}")));
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Bytes whose order can be checked at any offset.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_u32;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}

fn limits(stream: &TcpStream) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON + Duration::from_secs(20))).unwrap();
}
