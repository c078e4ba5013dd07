//! Datagram sockets of the host that exists only in memory: they take what is sent.

use passt::flow::FlowId;
use passt::forward::Destination;
use passt::translate::{
    Bind, DatagramSockets, Expect, Gathered, HostError, MtuDiscovery, Received, Report, SockId,
    SpliceSockets, Train,
};
use passt::wire::Endpoint;

use super::net::FakeNet;

/// The first name of a socket; connections have those below.
const FIRST: i32 = 1 << 20;

/// All datagram sockets there ever were.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// How many there may be.
    pub most: usize,
    /// In the order in which they were opened.
    pub socks: Vec<DatagramSock>,
}

#[derive(Debug)]
pub struct DatagramSock {
    pub to: Endpoint,
    pub sent: Vec<Vec<u8>>,
    pub closed: bool,
}

impl Datagrams {
    /// Peers of the sockets that are open.
    pub fn peers(&self) -> Vec<Endpoint> {
        self.socks.iter().filter(|s| !s.closed).map(|s| s.to).collect()
    }

    fn live(&mut self, s: SockId) -> &mut DatagramSock {
        let sock = &mut self.socks[(s.0 - FIRST) as usize];
        assert!(!sock.closed, "socket used after it was closed");
        sock
    }
}

impl DatagramSockets for FakeNet {
    fn open_udp(&mut self, _: FlowId, _: Bind, to: Endpoint) -> Result<SockId, HostError> {
        let socks = &mut self.datagrams.socks;
        if socks.len() >= self.datagrams.most {
            return Err(HostError::Exhausted);
        }
        socks.push(DatagramSock { to, sent: vec![], closed: false });
        Ok(SockId(FIRST + socks.len() as i32 - 1))
    }
    fn open_ping(&mut self, _: FlowId, _: Destination) -> Result<SockId, HostError> {
        Err(HostError::Exhausted)
    }
    fn send_datagram(&mut self, s: SockId, data: &[u8], segment: u16) -> Result<(), HostError> {
        let sent = &mut self.datagrams.live(s).sent;
        match segment {
            0 => sent.push(data.to_vec()),
            _ => sent.extend(data.chunks(segment.into()).map(<[u8]>::to_vec)),
        }
        Ok(())
    }
    fn receive_datagram(&mut self, _: SockId, _: &mut [u8]) -> Received {
        Received::Empty
    }
    fn receive_trains(&mut self, _: SockId, _: &mut Expect) -> Gathered {
        Gathered::Empty
    }
    fn train(&self, _: usize) -> Option<Train<'_>> {
        None
    }
    fn take_report(&mut self, _: SockId, _: &mut [u8]) -> Option<Report> {
        None
    }
    fn set_mark(&mut self, _: SockId, _: bool, _: u8) {}
    fn set_ttl(&mut self, _: SockId, _: bool, _: u8) {}
    fn set_mtu_discovery(&mut self, _: SockId, _: bool, _: MtuDiscovery) {}
    fn path_mtu(&mut self, _: SockId, _: bool) -> Option<u32> {
        None
    }
    fn close_datagram(&mut self, s: SockId) {
        self.datagrams.live(s).closed = true;
    }
}

impl SpliceSockets for FakeNet {}
