//! Which ports are bound in a network namespace: sock_diag(7).
//!
//! The kernel filters by state, so that what is read are listeners, not connections: the cost does
//! not depend on traffic. The socket stays in the namespace it was opened in.

use std::io;

use super::socket::Socket;
use super::{INET, INET6};
use crate::config::{PortSet, Proto};

/// `TCPDIAG_GETSOCK` of linux/inet_diag.h, request and reply: the older call, which knows TCP only,
/// but shows both families at once.
const GET_TCP: u16 = 18;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h, request and reply.
const BY_FAMILY: u16 = 20;

/// States by their numbers of net/tcp_states.h: a TCP listener, and an unconnected UDP socket.
const LISTEN: u32 = 10;
const CLOSE: u32 = 7;

/// Length of `struct inet_diag_req`, and where its states are.
const TCP_REQUEST: usize = 60;
const TCP_STATES: usize = 52;

/// Length of `struct inet_diag_req_v2`, and where its states are.
const REQUEST: usize = 56;
const STATES: usize = 4;

/// Looks up bound ports.
pub struct Bound(Socket);

impl Bound {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn open() -> io::Result<Self> {
        Socket::open_diag().map(Self)
    }

    /// Ports that are listened on (TCP), or bound and open to everybody (UDP), on whatever
    /// address, in either family.
    ///
    /// # Errors
    /// The kernel's error, or a socket error.
    pub fn ports(&mut self, proto: Proto) -> io::Result<PortSet> {
        let mut set = PortSet::default();
        match proto {
            Proto::Tcp => {
                let mut body = [0; TCP_REQUEST];
                body[TCP_STATES..TCP_STATES + 4].copy_from_slice(&(1u32 << LISTEN).to_ne_bytes());
                self.add(GET_TCP, &body, LISTEN, &mut set)?;
            }
            Proto::Udp => {
                for family in [INET, INET6] {
                    let mut body = [0; REQUEST];
                    body[0] = family;
                    body[1] = u8::try_from(libc::IPPROTO_UDP).unwrap_or(0);
                    body[STATES..STATES + 4].copy_from_slice(&(1u32 << CLOSE).to_ne_bytes());
                    self.add(BY_FAMILY, &body, CLOSE, &mut set)?;
                }
            }
        }
        Ok(set)
    }

    fn add(&mut self, kind: u16, body: &[u8], state: u32, set: &mut PortSet) -> io::Result<()> {
        for message in self.0.dump_as_is(kind, kind, body)? {
            // `struct inet_diag_msg`: family, state, timer, retrans, then the source port.
            if let Some(&[_, got, _, _, high, low]) = message.body.first_chunk()
                && u32::from(got) == state
            {
                set.insert(u16::from_be_bytes([high, low]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    // [FWD-19] [FWD-25] Listeners and unconnected sockets of both families, nothing else.
    #[test]
    fn what_counts_as_bound() {
        let mut bound = Bound::open().unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let tcp = TcpListener::bind((ip, 0)).unwrap();
            let port = tcp.local_addr().unwrap().port();
            let client = TcpStream::connect((ip, port)).unwrap();
            let open = bound.ports(Proto::Tcp).unwrap();
            assert!(open.contains(port), "{ip}");
            assert!(!open.contains(client.local_addr().unwrap().port()), "{ip}");
            drop((tcp, client));
            assert!(!bound.ports(Proto::Tcp).unwrap().contains(port), "{ip}");

            let (udp, other) =
                (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap());
            other.connect(udp.local_addr().unwrap()).unwrap();
            let open = bound.ports(Proto::Udp).unwrap();
            assert!(open.contains(udp.local_addr().unwrap().port()), "{ip}");
            assert!(!open.contains(other.local_addr().unwrap().port()), "{ip}");
        }
    }
}
