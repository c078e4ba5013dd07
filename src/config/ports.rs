//! Forwarding rules, as the command line asks for them and as the program lists them.

use std::fmt;
use std::net::IpAddr;

/// A transport protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One contiguous range of forwarded ports [FWD-10].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Protocol.
    pub proto: Proto,
    /// Address to listen on; `None` is every address of every enabled family.
    pub listen: Option<IpAddr>,
    /// Name of the only interface to listen on.
    pub interface: Option<String>,
    /// First and last port to listen on, inclusive; never 0.
    pub first: u16,
    /// See `first`.
    pub last: u16,
    /// Address to forward to, of the family of `listen`; `None` is the usual one.
    pub target: Option<IpAddr>,
    /// Port that `first` is forwarded to; the rest follow in order and never pass 65535.
    pub to_first: u16,
    /// Ports that cannot be opened are left out; otherwise the first one is an error.
    pub weak: bool,
    /// Each port is listened on only while the port it leads to is bound on the other side; one
    /// that cannot be opened is left out [FWD-19].
    pub auto: bool,
}

impl PortRule {
    /// The port that `port`, one of this rule's, is forwarded to.
    pub fn to(&self, port: u16) -> u16 {
        self.to_first.wrapping_add(port.wrapping_sub(self.first))
    }

    /// Number of ports.
    pub fn count(&self) -> usize {
        usize::from(self.last.saturating_sub(self.first)).saturating_add(1)
    }

    /// True if both would listen on the same port of the same address [FWD-12]. Sockets bound to
    /// different interfaces never do.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.proto == other.proto
            && self.first <= other.last
            && other.first <= self.last
            && match (self.listen, other.listen) {
                (None, _) | (_, None) => true,
                (Some(a), Some(b)) => {
                    let wild = a.is_unspecified() || b.is_unspecified();
                    a == b || wild && a.is_ipv4() == b.is_ipv4()
                }
            }
            && match (&self.interface, &other.interface) {
                (None, _) | (_, None) => true,
                (Some(a), Some(b)) => a == b,
            }
    }
}

/// As in the list of rules at start [CLI-16] [FWD-13], with the blank that ends every rule there.
impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, first, last, to_first, .. } = self;
        match self.listen {
            Some(addr) => write!(f, "{proto} [{addr}]")?,
            None => write!(f, "{proto} [*]")?,
        }
        if let Some(name) = &self.interface {
            write!(f, "%{name}")?;
        }
        let range = last > first;
        write!(f, ":{first}")?;
        if range {
            write!(f, "-{last}")?;
        }
        f.write_str("  =>  ")?;
        match self.target {
            Some(IpAddr::V6(addr)) => write!(f, "[{addr}]:")?,
            Some(addr) => write!(f, "{addr}:")?,
            None => {}
        }
        write!(f, "{to_first}")?;
        if range {
            write!(f, "-{}", self.to(*last))?;
        }
        f.write_str(" ")?;
        if self.weak {
            f.write_str(" (best effort)")?;
        }
        if self.auto {
            f.write_str(" (auto-scan)")?;
        }
        Ok(())
    }
}

/// What one of `-t`, `-u`, `-T`, `-U` said in total.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ForwardSpec {
    /// Rules in command line order; empty means `none`.
    pub rules: Vec<PortRule>,
    /// For each rule the option that asked for it, as written (`-t 8080:80`). May be shorter:
    /// rules that nobody asked for in words have none.
    pub options: Vec<String>,
}

impl ForwardSpec {
    /// The option that asked for a rule, by the rule's place.
    pub fn option(&self, rule: usize) -> Option<&str> {
        self.options.get(rule).map(String::as_str)
    }

    /// True if ports come and go with those of the other side.
    pub fn is_auto(&self) -> bool {
        self.rules.iter().any(|rule| rule.auto)
    }
}
