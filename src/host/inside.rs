//! Sockets of the guest's namespace: a stock, and the factory that fills it.
//!
//! A factory is asked for more while there are some left, so that as a rule nobody waits for its
//! answer, which stays in the connection to it until the stock is empty. Only the first socket of
//! each kind, and a burst of connections, cost a round trip.

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::factory::{Factory, Kind, MOST};

/// More are asked for when no more than this are left [SPLICE-14].
const LOW: usize = MOST / 2;

/// Where sockets of the namespace come from.
#[derive(Debug, Default)]
pub struct Inside {
    factory: Option<Factory>,
    /// By [`Kind`].
    stock: [Stock; Kind::ALL.len()],
}

#[derive(Debug, Default)]
struct Stock {
    fds: Vec<OwnedFd>,
    /// More are on their way.
    asked: bool,
}

impl Inside {
    /// An empty stock; without a factory it stays so.
    pub fn new(factory: Option<Factory>) -> Self {
        Self { factory, stock: Default::default() }
    }

    /// A non-blocking socket of the namespace.
    ///
    /// # Errors
    /// Out of descriptors, here or there.
    pub fn take(&mut self, kind: Kind) -> io::Result<OwnedFd> {
        self.refill(kind);
        self.stock[kind as usize]
            .fds
            .pop()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// Asks for more in time, and waits for them if there are none.
    fn refill(&mut self, kind: Kind) {
        let Some(factory) = &self.factory else { return };
        let stock = &mut self.stock[kind as usize];
        let mut works = true;
        if stock.fds.len() <= LOW && !stock.asked {
            works = factory.ask(kind, MOST);
            stock.asked = works;
        }
        let waits = |stock: &Stock| stock.fds.is_empty() && stock.asked;
        while works && waits(&self.stock[kind as usize]) {
            match factory.reply() {
                Some((got, fds)) => {
                    let stock = &mut self.stock[got as usize];
                    stock.asked = false;
                    stock.fds.extend(fds);
                }
                None => works = false,
            }
        }
        if !works {
            log::error!("no more sockets in the namespace: the process that makes them is gone");
            self.factory = None;
        }
    }
}
