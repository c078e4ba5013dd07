//! A link with delay, a rate and losses, for kernels that have no netem.
//!
//! # Theory of operation
//!
//! A [`Relay`] is a thread that carries frames between two tap devices. To the kernel at either
//! end its tap is a network card, and the relay is the cable. What the cable does to a frame is
//! decided by a [`Wire`] for each direction, from a seed; the thread reads what the kernels send,
//! and writes what is due.
//!
//! With [`Frames::Trains`] a frame is what TCP handed to its network card, up to 64 KiB uncut. It
//! is charged for the packets it stands for, but is lost, late or doubled as a whole. That makes
//! 1 Gbit/s cheap enough to run beside what is measured. With [`Frames::Wire`] each packet has its
//! own fate.
//!
//! Loss that nobody asked for is counted ([`Counts::failed`]): a test that says "nothing is lost"
//! looks whether it was so.

mod wire;

use std::any::type_name;
use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::lab::{Lab, SOON, output_within};
use crate::ns::Ns;
use crate::tap::{Frames, Tap};
use wire::Wire;
pub(crate) use wire::{Counts, Shape};

/// Frames taken from one end before the other gets its turn.
const BATCH: usize = 64;

/// Packets that the kernel keeps for the relay if it is not there at once.
pub(crate) const TX_QUEUE: u32 = 20_000;

/// A link and what it does, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// Largest packet; trains may be longer.
    pub(crate) mtu: u32,
    pub(crate) frames: Frames,
    /// From the first end to the second.
    pub(crate) forth: Shape,
    /// From the second end to the first.
    pub(crate) back: Shape,
    pub(crate) seed: u64,
}

impl Profile {
    /// The same both ways.
    pub(crate) fn both(shape: Shape) -> Profile {
        Profile { mtu: 1500, frames: Frames::Trains, forth: shape, back: shape, seed: 1 }
    }

    /// A path of a round-trip time and a rate, whose queue holds as much as the path, and ten
    /// milliseconds' worth at the least.
    pub(crate) fn path(rtt: Duration, mbit: u64) -> Profile {
        let rate = mbit * 1_000_000;
        let micros = u64::try_from(rtt.as_micros()).unwrap().max(10_000);
        let queue = rate / 8_000_000 * micros;
        Profile::both(Shape { delay: rtt / 2, rate, queue, ..Shape::PLAIN })
    }

    /// The same with a fate for each packet.
    pub(crate) fn by_packet(self) -> Profile {
        Profile { frames: Frames::Wire, ..self }
    }
}

/// A running link; ends with this value.
pub(crate) struct Relay {
    counts: Arc<Mutex<[Counts; 2]>>,
    thread: Option<JoinHandle<()>>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
}

impl Relay {
    /// Connects two interfaces.
    pub(crate) fn start(a: Tap, b: Tap, profile: &Profile) -> Relay {
        assert!(a.frames == profile.frames && b.frames == profile.frames);
        let (stopped, stop) = nix::unistd::pipe().unwrap();
        let counts = Arc::new(Mutex::new([Counts::default(); 2]));
        let shown = Arc::clone(&counts);
        let profile = *profile;
        let thread = thread::spawn(move || {
            // The cable does not wait for a processor, where the user may say so.
            // SAFETY: no pointers are passed.
            unsafe {
                let this = libc::id_t::try_from(libc::gettid()).unwrap();
                libc::setpriority(libc::PRIO_PROCESS, this, -10);
                libc::prctl(libc::PR_SET_TIMERSLACK, 1);
            }
            carry(&[a, b], &profile, &stopped, &shown);
        });
        Relay { counts, thread: Some(thread), stop: Some(stop) }
    }

    /// What the link did so far: forth and back.
    pub(crate) fn counts(&self) -> [Counts; 2] {
        *self.counts.lock().unwrap()
    }

    /// Fails the test if the relay itself lost anything.
    #[track_caller]
    pub(crate) fn kept_up(&self) {
        let counts = self.counts();
        assert!(counts.iter().all(|c| c.failed == 0), "the relay did not keep up: {counts:?}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- relay: {:#?}", self.counts());
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Lab {
    /// Runs `body` in a lab with a link of this profile between `host` and `remote`. Both get the
    /// buffers that long paths need.
    pub(crate) fn run_far<F: FnOnce(&Lab, &Relay)>(profile: &Profile, body: F) {
        let relay = OnceCell::new();
        let link = |remote: &Ns| {
            let made = far_link(profile, ("up0", &Ns::current()), ("rem0", remote));
            assert!(relay.set(made).is_ok());
        };
        Lab::run_over(link, type_name::<F>(), |lab| body(lab, relay.get().unwrap()));
    }
}

/// A link between two new interfaces that behaves as told.
pub(crate) fn far_link(profile: &Profile, near: (&str, &Ns), far: (&str, &Ns)) -> Relay {
    let [near, far] = [near, far].map(|(name, ns)| {
        long_paths(ns);
        let tap = Tap::open(ns, name, profile.frames);
        let set = format!("link set {name} mtu {} txqueuelen {TX_QUEUE}", profile.mtu);
        output_within(ns.command("ip").args(set.split(' ')), SOON).ok();
        tap
    });
    Relay::start(near, far, profile)
}

/// TCP of a namespace as long paths need it, the same on every machine: the congestion control of
/// most systems, buffers for a second at a gigabit, and no memory of earlier connections.
pub(crate) fn long_paths(ns: &Ns) {
    ns.sysctl("net/ipv4/tcp_congestion_control", "cubic");
    ns.sysctl("net/ipv4/tcp_rmem", "4096 131072 268435456");
    ns.sysctl("net/ipv4/tcp_wmem", "4096 16384 268435456");
    ns.sysctl("net/ipv4/tcp_no_metrics_save", "1");
}

fn carry(ends: &[Tap; 2], profile: &Profile, stop: &OwnedFd, shown: &Mutex<[Counts; 2]>) {
    let start = Instant::now();
    let clock = || u64::try_from(start.elapsed().as_nanos()).unwrap();
    let mut wires = [
        Wire::new(profile.forth, profile.frames, profile.seed),
        Wire::new(profile.back, profile.frames, profile.seed ^ 0x5555),
    ];
    loop {
        let mut more = false;
        for (n, wire) in wires.iter_mut().enumerate() {
            let (from, to) = (&ends[n].file, &ends[1 - n].file);
            let before = wire.counts;
            for _ in 0..BATCH {
                let now = clock();
                while wire.take(now, |frame| deliver(to, frame)) {}
                match wire.room() {
                    Some(room) => match (&*from).read(room) {
                        Ok(len) => wire.accept(clock(), len),
                        Err(e) if idle(&e) => break,
                        Err(_) => return,
                    },
                    None => match (&*from).read(&mut [0; 100]) {
                        Ok(_) => wire.refuse(),
                        Err(e) if idle(&e) => break,
                        Err(_) => return,
                    },
                }
            }
            more |= wire.counts.frames != before.frames;
            if wire.counts != before {
                shown.lock().unwrap()[n] = wire.counts;
            }
        }
        let wait = match (more, wires.iter().filter_map(Wire::next_due).min()) {
            (true, _) => Some(Duration::ZERO),
            (false, Some(at)) => Some(Duration::from_nanos(at.saturating_sub(clock()))),
            (false, None) => None,
        };
        let mut watched = [ends[0].file.as_fd(), ends[1].file.as_fd(), stop.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match ppoll(&mut watched, wait.map(TimeSpec::from), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => panic!("ppoll: {e}"),
        }
        if watched[2].any() == Some(true) {
            return;
        }
    }
}

/// Writes a frame, unless the interface can take nothing.
fn deliver(mut to: &std::fs::File, frame: &[u8]) -> bool {
    match to.write(frame) {
        Ok(n) => n == frame.len(),
        // An interface that is down has no cable: not a fault of ours.
        Err(e) => e.raw_os_error() == Some(libc::EIO),
    }
}

/// Nothing to read now: there is nothing, or the interface is down.
fn idle(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::EIO)
}

#[cfg(test)]
mod tests;
