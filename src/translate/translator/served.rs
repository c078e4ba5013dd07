//! Requests of the guest that we answer ourselves, and what we say unasked.
//!
//! A router advertises itself again and again, at random intervals (RFC 4861, 6.2.4): Linux does
//! not ask for a route that has expired [NDP-8]. It does so, too, when a guest begins to configure
//! itself: that saves the guest the time it would wait before it asks, a second or more.

use std::cell::Cell;

use super::Translator;
use crate::flow::{DropReason, Tuple};
use crate::forward::Neighbours;
use crate::services::{Outcome, arp, dhcp, dhcpv6, ndp};
use crate::translate::{DatagramSockets, FrameOut, SpliceSockets, TcpSockets};
use crate::wire::{self, Addr, Datagram, Endpoint, Frame, Mac, Packet, proto};

/// Shortest time between unsolicited Router Advertisements.
const ADVERTISE_MIN_MS: u64 = 200_000;

/// The longest time is almost this much more.
const ADVERTISE_SPREAD_MS: u64 = 400_000;

/// Shortest time between two of them if the guest gives a reason (`MIN_DELAY_BETWEEN_RAS`, RFC 4861,
/// 6.2.6 and 10).
const ADVERTISE_DELAY_MS: u64 = 3000;

/// Whether it was logged, once for each guest, that it got its addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logged {
    v4: bool,
    v6: bool,
}

/// Resolves addresses, and notes which one was asked for.
fn resolver(neighbours: &Neighbours, about: &Cell<Option<Addr>>) -> impl Fn(Addr) -> Mac {
    |addr| {
        about.set(Some(addr));
        neighbours.mac_of(addr)
    }
}

impl<O: FrameOut, N: TcpSockets + DatagramSockets + SpliceSockets> Translator<O, N> {
    pub(super) fn on_arp(&mut self, data: &[u8]) {
        let about = Cell::new(None);
        let resolve = resolver(&self.neighbours, &about);
        let is_known = |a| self.neighbours.is_known(a);
        let outcome = arp::respond(&self.lease, data, resolve, is_known, &mut self.reply);
        self.on_question(outcome, about.get());
    }

    pub(super) fn on_ndp(&mut self, frame: &Frame<'_>, packet: &Packet<'_>) {
        let Some(src) = packet.src.v6() else { return };
        let request =
            ndp::Request { eth_src: frame.src, src, hop_limit: packet.ttl, icmp: packet.transport };
        if let Some(address) = ndp::tentative(&request) {
            self.guest.expect(&self.lease, address);
            if address.is_unicast_link_local() && self.now.ms() >= self.advertise_early_at {
                self.advertise_at = self.now.ms();
                self.advertise();
            }
        }
        let about = Cell::new(None);
        let resolve = resolver(&self.neighbours, &about);
        let outcome = ndp::respond(&self.lease, self.offered, &request, resolve, &mut self.reply);
        self.on_question(outcome, about.get());
    }

    /// Answers a question about an address, if that is not one of a flood: the router, and
    /// whoever the host knows, are found whatever else the guest asks for.
    fn on_question(&mut self, outcome: Outcome, about: Option<Addr>) {
        let known =
            about.is_some_and(|a| self.neighbours.is_router(a) || self.neighbours.is_known(a));
        let allowance = if known { &mut self.known_answers } else { &mut self.answers };
        if outcome == Outcome::Replied && !allowance.spend(self.now) {
            return self.drops.count(DropReason::AnswerLimit);
        }
        self.on_service(outcome);
    }

    /// Requests to a DHCP server are for us, whatever their address: they must not reach the
    /// network of the host [L2-9]. False if this is none.
    pub(super) fn on_dhcp(
        &mut self,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
    ) -> bool {
        let payload = datagram.payload;
        let offered = match (packet.src.v4(), packet.src.v6(), packet.dst.v6()) {
            (Some(src), ..) if datagram.dst_port == wire::dhcp::SERVER_PORT => {
                if self.offered.dhcp && self.may_answer() {
                    let request = dhcp::Request { eth_src: frame.src, src, payload };
                    let outcome = dhcp::respond(&self.lease, &request, &mut self.reply);
                    log::debug!("DHCP request of {}: {outcome:?}", frame.src);
                    let given = outcome == Outcome::Replied && dhcp::assigns(&self.lease, payload);
                    if given && !std::mem::replace(&mut self.logged.v4, true) {
                        log::info!("DHCP: {} for {}", self.lease.addr4, frame.src); // [DHCP-8]
                    }
                    self.on_service(outcome);
                }
                self.offered.dhcp
            }
            (None, Some(src), Some(dst)) if datagram.dst_port == wire::dhcpv6::SERVER_PORT => {
                if self.offered.dhcpv6 && self.may_answer() {
                    let request = dhcpv6::Request { eth_src: frame.src, src, dst, payload };
                    let outcome = dhcpv6::respond(&self.lease, &request, &mut self.reply);
                    log::debug!("DHCPv6 request of {}: {outcome:?}", frame.src);
                    let address = self.lease.addr6.filter(|_| outcome == Outcome::Replied);
                    if let Some(address) = address.filter(|_| dhcpv6::assigns(payload)) {
                        self.guest.learn(address.into()); // [DHCP6-6]
                        if !std::mem::replace(&mut self.logged.v6, true) {
                            log::info!("DHCPv6: {address} for {}", frame.src);
                        }
                    }
                    self.on_service(outcome);
                }
                self.offered.dhcpv6
            }
            _ => return false,
        };
        if !offered {
            self.drops.count(DropReason::NoService);
        }
        true
    }

    /// False, and counted, if the guest has had more answers of ours than anybody needs.
    fn may_answer(&mut self) -> bool {
        let may = self.answers.spend(self.now);
        if !may {
            self.drops.count(DropReason::AnswerLimit);
        }
        may
    }

    /// Makes the guest speak, so that its Ethernet address is known [ADDR-10].
    pub fn solicit_guest(&mut self) {
        self.logged = Logged::default(); // it may be another one
        let outcome = arp::solicit_guest(&self.lease, &mut self.reply);
        self.on_service(outcome);
        let (lease, offered) = (&self.lease, self.offered);
        let outcome = ndp::solicit_guest(lease, offered, self.guest_mac, &mut self.reply);
        self.on_service(outcome);
    }

    /// When the next unsolicited Router Advertisement is due, milliseconds of the clock.
    pub(super) fn next_advertisement(&self) -> Option<u64> {
        let sent = self.lease.v6 && self.offered.ndp && self.offered.ra;
        sent.then_some(self.advertise_at)
    }

    /// Advertises the router, if it is time to.
    pub(super) fn advertise(&mut self) {
        if self.next_advertisement().is_none_or(|at| self.now.ms() < at) {
            return;
        }
        self.schedule_advertisement();
        self.advertise_early_at = self.now.ms().saturating_add(ADVERTISE_DELAY_MS);
        let (lease, offered) = (&self.lease, self.offered);
        let router = self.neighbours.mac_of(lease.our_ll.into());
        let outcome = ndp::advertise(lease, offered, self.guest_mac, router, &mut self.reply);
        self.on_service(outcome);
    }

    /// Decides when the next one is due. The keyed hash serves as a source of random numbers.
    pub(super) fn schedule_advertisement(&mut self) {
        let now = self.now.ms();
        let [.., high, low] = now.to_be_bytes();
        let any = Endpoint::new(Addr::from(self.lease.our_ll), u16::from_be_bytes([high, low]));
        let random = self.index.hash(&Tuple { protocol: proto::ICMPV6, ours: any, guest: any });
        let spread = random.checked_rem(ADVERTISE_SPREAD_MS).unwrap_or(0);
        self.advertise_at = now.saturating_add(ADVERTISE_MIN_MS).saturating_add(spread);
    }

    pub(super) fn on_service(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Replied => {
                if !self.out.control(self.reply.frame()) {
                    self.drops.count(DropReason::LinkFull);
                }
            }
            Outcome::Consumed => {}
            Outcome::Dropped(_) => self.drops.count(DropReason::BadService),
        }
    }
}
