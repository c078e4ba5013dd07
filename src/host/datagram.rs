//! Datagram sockets of flows: UDP and ICMP echo.
use super::net::Net;
use crate::flow::FlowId;
use crate::translate::{DatagramSockets, HostError, Received, SockId};
use crate::wire::Endpoint;
impl DatagramSockets for Net {
    fn open_udp(
        &mut self,
        _: FlowId,
        _: Option<Endpoint>,
        _: u16,
        _: Endpoint,
    ) -> Result<SockId, HostError> {
        Err(HostError::Other)
    }
    fn open_ping(&mut self, _: FlowId, _: Endpoint) -> Result<SockId, HostError> {
        Err(HostError::Other)
    }
    fn send_datagram(&mut self, _: SockId, _: &[u8], _: u16) -> Result<(), HostError> {
        Err(HostError::Other)
    }
    fn receive_datagram(&mut self, _: SockId, _: &mut [u8]) -> Received {
        Received::Empty
    }
    fn set_ttl(&mut self, _: SockId, _: bool, _: u8) {}
    fn close_datagram(&mut self, _: SockId) {}
}
