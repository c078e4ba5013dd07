//! Forwarded ports at start: which of them are opened, and what is said about the others.
//!
//! # Theory of operation
//!
//! Ports that were named must all open, or we do not start. Where *all* ports were asked for, we
//! take what we can get [FWD-15]: some may be in use or reserved for root, and the limit of open
//! files may be lower than the number of ports. A quarter of that limit is kept for flows, and
//! what is left is shared between the options that want it, lowest ports first. What is missing
//! is told in one line, with the remedy. Only an option of which nothing at all could be opened is
//! an error. Ports that follow the other side (`auto.rs`) are opened later.

use std::io;

use thiserror::Error;

use crate::config::{Config, ForwardSpec};
use crate::host::{ListenError, Listeners, Patience, Side};
use crate::sys::fds;

/// Part of the descriptors that is kept for flows.
const FLOW_SHARE: usize = 4;

/// Descriptors for everything else.
const OTHERS: usize = 64;

/// The forwarding options.
fn options(config: &Config) -> [&ForwardSpec; 4] {
    [&config.tcp_in, &config.udp_in, &config.tcp_out, &config.udp_out]
}

/// How many sockets the best-effort rules of each option may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// In the order of [`options`].
    of: [usize; 4],
    limit: usize,
}

impl Shares {
    /// Divides what the limit of open files leaves.
    pub(super) fn new(config: &Config) -> Self {
        let limit = fds::nofile()
            .map_or(usize::MAX, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
        Self { of: divide(limit, options(config)), limit }
    }

    /// The share of an option, and the limit it follows from.
    pub(super) fn option(&self, n: usize) -> (usize, usize) {
        (self.of.get(n).copied().unwrap_or(0), self.limit)
    }
}

fn divide(limit: usize, options: [&ForwardSpec; 4]) -> [usize; 4] {
    let ports = |spec: &ForwardSpec, weak: bool| -> usize {
        spec.rules.iter().filter(|r| !r.auto && r.weak == weak).map(|r| r.count()).sum()
    };
    let named: usize = options.iter().map(|spec| ports(spec, false)).sum();
    let mut room = limit.saturating_sub(limit / FLOW_SHARE).saturating_sub(named + OTHERS);
    let mut wants: Vec<_> = options.iter().map(|spec| ports(spec, true)).enumerate().collect();
    wants.retain(|(_, want)| *want > 0);
    // Who wants least is served first, so that nothing is left over while another lacks it.
    wants.sort_by_key(|(_, want)| *want);
    let mut of = [0; 4];
    let mut others = wants.len();
    for (option, want) in wants {
        of[option] = want.min(room / others);
        room -= of[option];
        others -= 1;
    }
    of
}

/// A port that was asked for and cannot be had. Callers look for the first words, and show the
/// rest to their users [COMPAT-21].
#[derive(Debug, Error)]
#[error(
    "Failed to bind port {} ({}) for option '{option}': {} {}{}",
    .source.port, reason(&.source.source), .source.proto, .source.place(), .source.remedy()
)]
pub(super) struct BindError {
    /// The option as written.
    option: String,
    source: ListenError,
}

/// The kernel's reason without its number.
fn reason(error: &io::Error) -> String {
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned())
}

/// What became of all best-effort rules of an option.
#[derive(Default)]
struct Total {
    opened: usize,
    /// The first failure, and the rule's place.
    failed: Option<(usize, ListenError)>,
}

/// Adds the rules of one option to the table and opens their ports, in the current network
/// namespace.
pub(super) fn open(
    table: &mut Listeners,
    spec: &ForwardSpec,
    side: Side,
    families: (bool, bool),
    (share, limit): (usize, usize),
    patience: Patience,
) -> Result<(), BindError> {
    let error = |n, source| {
        let option = spec.option(n).unwrap_or_default().to_owned();
        BindError { option, source }
    };
    let mut room = share;
    let mut wanted = 0;
    let mut total = Total::default();
    for (n, rule) in spec.rules.iter().enumerate() {
        let Ok(id) = table.insert(rule.clone(), side, families) else { break };
        if rule.auto {
            continue;
        }
        if !rule.weak {
            table.open_all(id, patience).map_err(|e| error(n, e))?;
            continue;
        }
        wanted += rule.count();
        let done = table.open_some(id, room);
        room -= done.opened;
        total.opened += done.opened;
        total.failed = total.failed.or_else(|| done.failed.map(|e| (n, e)));
    }
    let Some(rule) = spec.rules.iter().find(|r| r.weak && !r.auto) else { return Ok(()) };
    let (proto, opened) = (rule.proto, total.opened);
    if share < wanted && room == 0 {
        log::warn!(
            "{proto}: {opened} of {wanted} ports are forwarded: the limit of open files is \
             {limit}, raise it for more (ulimit -n, LimitNOFILE=)"
        );
    } else if let Some((n, e)) = total.failed {
        if opened == 0 {
            return Err(error(n, e));
        }
        log::warn!("{proto}: {opened} of {wanted} ports are forwarded, the first that is not: {e}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortRule, Proto};

    fn spec(rules: &[(u16, u16, bool)]) -> ForwardSpec {
        let rules = rules.iter().map(|&(first, last, weak)| PortRule {
            proto: Proto::Tcp,
            listen: None,
            interface: None,
            first,
            last,
            target: None,
            to_first: first,
            weak,
            auto: false,
        });
        ForwardSpec { rules: rules.collect(), ..ForwardSpec::default() }
    }

    // [FWD-15] Flows keep a quarter, named ports are served before, the rest is shared.
    #[test]
    fn descriptors_are_shared() {
        let (none, all) = (spec(&[]), spec(&[(1, 32767, true), (61000, 65535, true)]));
        let (few, named) = (spec(&[(1, 1000, true)]), spec(&[(1, 936, false)]));
        assert_eq!(divide(20_000, [&all, &none, &none, &none]), [14_936, 0, 0, 0]);
        assert_eq!(divide(20_000, [&all, &all, &none, &none]), [7_468, 7_468, 0, 0]);
        assert_eq!(divide(20_000, [&all, &few, &named, &none]), [13_000, 1_000, 0, 0]);
        assert_eq!(divide(1 << 20, [&all, &all, &few, &none]), [37_303, 37_303, 1_000, 0]);
        assert_eq!(divide(64, [&all, &none, &none, &none]), [0; 4]);
    }
}
