//! The grammar of a port specifier [PORT-1].
//!
//! ```text
//! spec   = "none" | [ listen "/" ] chunk { "," chunk }
//! listen = [ address | "*" ] [ "%" ifname ]        IPv6 bracketed or not
//! chunk  = "all" [ ":" address ] | "auto" | "~" range | range [ ":" target ]
//! target = address "/" range | address | range     ranges of the same length
//! range  = port [ "-" port ]
//! ```
//!
//! A first `/` ends a listen part only if what precedes it is one; so in `8080:192.0.2.1/80` it
//! belongs to the target. A [`Spec`] prints as a specifier that parses to the same.

use std::fmt;
use std::net::IpAddr;

use crate::cli::values;

/// Ports, inclusive; the first is not above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl Range {
    /// The ports after the first.
    pub(super) fn extra(self) -> u16 {
        self.last.saturating_sub(self.first)
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    /// `None` is any address.
    pub(super) addr: Option<IpAddr>,
    pub(super) interface: Option<String>,
}

/// A part between commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// All ports but ephemeral ones, perhaps to another address.
    All(Option<IpAddr>),
    /// Only while bound on the other side.
    Auto,
    /// Not these.
    Except(Range),
    /// These, perhaps to another address or to other ports.
    Ports { from: Range, addr: Option<IpAddr>, to: Option<Range> },
}

/// A port specifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    None,
    Ports { listen: Option<Listen>, chunks: Vec<Chunk> },
}

/// Why a text is no specifier.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault<'a> {
    /// This part of it does not follow the grammar.
    Syntax(&'a str),
    /// A word that looks like an interface name is none: the complete message.
    Interface(String),
}

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Self, Fault<'_>> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (listen, list) = match text.split_once('/').map(|(l, rest)| (listen(l), rest)) {
            Some((Some(listen), rest)) => (Some(listen.map_err(Fault::Interface)?), rest),
            _ => (None, text),
        };
        let chunks = list.split(',').map(chunk).collect::<Option<_>>();
        Ok(Self::Ports { listen, chunks: chunks.ok_or(Fault::Syntax(list))? })
    }
}

/// `None` if the text is not meant as a place to listen on.
fn listen(text: &str) -> Option<Result<Listen, String>> {
    let (addr, interface) = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((addr, interface)) => (addr, Some(interface)),
        None => (text, None),
    };
    let addr = match addr {
        "" | "*" => None,
        addr => Some(values::address(addr)?),
    };
    let interface = interface.map(values::ifname).transpose();
    Some(interface.map(|interface| Listen { addr, interface }))
}

pub(super) fn chunk(text: &str) -> Option<Chunk> {
    if let Some(excluded) = text.strip_prefix('~') {
        return range(excluded).map(Chunk::Except);
    }
    let (from, to) = match text.split_once(':') {
        Some((from, to)) => (from, Some(to)),
        None => (text, None),
    };
    match (from, to) {
        ("auto", None) => return Some(Chunk::Auto),
        ("all", None) => return Some(Chunk::All(None)),
        ("all", Some(to)) => return values::address(to).map(|addr| Chunk::All(Some(addr))),
        _ => {}
    }
    let from = range(from)?;
    let (addr, to) = match to {
        None => (None, None),
        Some(to) => target(to)?,
    };
    match to {
        Some(to) if to.extra() != from.extra() => None,
        to => Some(Chunk::Ports { from, addr, to }),
    }
}

fn target(text: &str) -> Option<(Option<IpAddr>, Option<Range>)> {
    if let Some((addr, ports)) = text.split_once('/') {
        return Some((Some(values::address(addr)?), Some(range(ports)?)));
    }
    match values::address(text) {
        Some(addr) => Some((Some(addr), None)),
        None => Some((None, Some(range(text)?))),
    }
}

pub(super) fn range(text: &str) -> Option<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| values::decimal(text).and_then(|n| u16::try_from(n).ok());
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(Range { first, last })
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.extra() {
            0 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "[{addr}]")?,
            None => f.write_str("*")?,
        }
        self.interface.as_ref().map_or(Ok(()), |name| write!(f, "%{name}"))
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(None) => f.write_str("all"),
            Self::All(Some(addr)) => write!(f, "all:[{addr}]"),
            Self::Auto => f.write_str("auto"),
            Self::Except(range) => write!(f, "~{range}"),
            Self::Ports { from, addr: None, to: None } => write!(f, "{from}"),
            Self::Ports { from, addr: None, to: Some(to) } => write!(f, "{from}:{to}"),
            Self::Ports { from, addr: Some(addr), to: None } => write!(f, "{from}:[{addr}]"),
            Self::Ports { from, addr: Some(addr), to: Some(to) } => {
                write!(f, "{from}:[{addr}]/{to}")
            }
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ports { listen, chunks } = self else { return f.write_str("none") };
        if let Some(listen) = listen {
            write!(f, "{listen}/")?;
        }
        for (n, chunk) in chunks.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            write!(f, "{chunk}")?;
        }
        Ok(())
    }
}
