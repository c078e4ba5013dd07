//! A hostile guest: segments with any flags and numbers near (and far from) the valid ones, in
//! any order, with sockets, timers and the link doing what they like.
//!
//! The fakes and the watcher check every call and every frame; here only the end is checked.

use super::net::{Behaviour, Outcome};
use super::raw::*;
use super::rng::Rng;
use super::world::World;

struct Fuzz {
    w: World,
    r: Rng,
    guest_next: u32,
    ours_next: u32,
    trace: Vec<String>,
    /// Options of SYNs.
    offer: Vec<u8>,
    clock: u32,
}

impl Fuzz {
    fn near(&mut self, n: u32) -> u32 {
        match self.r.below(12) {
            0..6 => n,
            6 => n.wrapping_sub(1),
            7 => n.wrapping_add(1),
            8 => n.wrapping_add(self.r.below(3000) as u32),
            9 => n.wrapping_sub(self.r.below(3000) as u32),
            10 => n.wrapping_add(self.r.below(200_000) as u32),
            _ => self.r.next() as u32,
        }
    }

    fn segment(&mut self, inbound: bool) -> Seg {
        let flags = match self.r.below(20) {
            0 => SYN,
            1 => SYN | ACK,
            2 if self.r.chance(20) => RST,
            3 if self.r.chance(20) => RST | ACK,
            4 => FIN | ACK,
            5 => FIN,
            6 => 0,
            7 => self.r.next() as u8 & 0x3f & !RST,
            _ => ACK,
        };
        let (g, o) = (self.guest_next, self.ours_next);
        let mut s = seg(flags, self.near(g), self.near(o));
        if inbound {
            s = s.ports(80, 4000);
        }
        s.win = self.r.pick(&[0, 0, 1, 100, 3000, 65535, 65535, 65535]);
        if flags & SYN != 0 && self.r.chance(50) {
            s.opts = self.offer.clone();
        } else if flags & SYN == 0 && self.r.chance(70) {
            self.clock = self.clock.wrapping_add(self.r.below(3) as u32);
            let value = self.near(self.clock);
            s.opts = linux_ts(value, 0);
        }
        if flags & SYN == 0 && self.r.chance(40) {
            let n = 1 + self.r.below(3);
            s.opts.extend([1, 1, 5, 2 + 8 * n as u8]);
            for _ in 0..n {
                let (left, right) = (self.near(o), self.near(o));
                s.opts.extend(left.min(right).to_be_bytes());
                s.opts.extend(left.max(right).to_be_bytes());
            }
        }
        if self.r.chance(50) {
            let n = self.r.pick(&[1, 2, 100, 1460, 20_000, 60_000]);
            s.data = vec![self.r.next() as u8; n];
        }
        s
    }

    fn learn(&mut self) {
        for s in self.w.sent() {
            if s.flags & RST == 0 {
                let len = s.data.len() as u32 + u32::from(s.flags & (SYN | FIN) != 0);
                self.ours_next = s.seq.wrapping_add(len);
                if s.flags & ACK != 0 {
                    self.guest_next = s.ack;
                }
            }
        }
    }

    fn step(&mut self, inbound: bool) {
        let what = self.r.below(30);
        match what {
            0..16 => {
                let n = 1 + self.r.below(4);
                let batch: Vec<_> = (0..n).map(|_| self.segment(inbound)).collect();
                self.trace.push(format!("{batch:.200?}"));
                let frames: Vec<_> = batch.iter().map(|s| s.frame(&self.w)).collect();
                self.w.from_guest(&frames);
            }
            16 | 17 => self.w.link.full = self.r.chance(50),
            18 => self.w.link.lose = self.r.below(3) as u32,
            19 if self.r.chance(10) => {
                if let Some(s) = self.w.net.socks.last_mut()
                    && s.connected
                    && !s.closed
                {
                    s.peer_rst();
                }
            }
            20 => {
                if let Some(s) = self.w.net.socks.last_mut() {
                    s.peer_fin = true;
                }
            }
            21 => {
                if let Some(s) = self.w.net.socks.last_mut() {
                    s.how.peer_read = self.r.pick(&[0, 1000, usize::MAX]);
                }
            }
            22..25 => {
                if let Some(s) = self.w.net.socks.last_mut()
                    && !s.peer_fin
                {
                    let n = self.r.pick(&[1, 1000, 100_000]);
                    s.peer_out.extend(vec![1; n]);
                }
            }
            _ => {
                let us = self.r.pick(&[10, 1000, 100_000, 2_000_000]);
                self.w.run(us);
            }
        }
        self.w.socket_events();
        self.learn();
    }
}

#[test]
fn hostile_guest() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60u64);
    let only: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok());
    for seed in only.map_or(0..seeds, |s| s..s + 1) {
        println!("seed {seed}");
        let mut r = Rng::new(seed);
        let mut w = World::with(1500, r.pick(&[0, 300_000, 64 << 20]), seed);
        w.isn = r.pick(&[US, u32::MAX - 100_000, u32::MAX]);
        w.hostile = true;
        w.net.next = Behaviour {
            outcome: r.pick(&[Outcome::Now, Outcome::Later(1000)]),
            sndbuf: r.pick(&[3000, 200_000]),
            rcvbuf: r.pick(&[5000, 500_000]),
            rtt_us: r.pick(&[0, 20_000]),
            peer_rcvbuf: r.pick(&[2000, 500_000]),
            peer_read: r.pick(&[0, 1000, usize::MAX]),
            short_sends: r.pick(&[0, 3]),
            peek_off: r.chance(80),
            ..Behaviour::default()
        };
        let inbound = r.chance(40);
        let ours_next = w.isn.wrapping_add(1);
        let mut f = Fuzz {
            w,
            r,
            guest_next: G,
            ours_next,
            trace: vec![],
            offer: OPTIONS.to_vec(),
            clock: 100,
        };
        if f.r.chance(60) {
            f.offer = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0, 1, 3, 3, 7];
        }
        if inbound {
            f.w.accept(4000);
            f.learn();
            if f.r.chance(80) {
                let s = inb(SYN | ACK, G, f.ours_next).opts(&f.offer);
                f.w.guest_sends(&[s]);
                f.guest_next = G + 1;
            }
        } else {
            f.w.guest_sends(&[seg(SYN, G, 0).opts(&f.offer)]);
            f.guest_next = G + 1;
            if f.r.chance(80) {
                f.w.run(2000);
                f.w.guest_sends(&[seg(ACK, G + 1, f.ours_next)]);
            }
        }
        for _ in 0..150 {
            f.step(inbound);
        }
        // Whatever happened, the guest falling silent and the peer going away ends it.
        f.w.link.full = false;
        f.w.link.lose = 0;
        f.w.run(100_000_000);
        for s in 0..f.w.net.socks.len() {
            if !f.w.net.socks[s].closed {
                f.w.net.socks[s].peer_rst();
            }
        }
        f.w.socket_events();
        f.w.run(400_000_000);
        f.w.assert_clean();
    }
}
