//! The `--runas` argument and the lookups it needs.

use std::fs;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Group, User};

use super::values;
use crate::config::RunAs;

/// Where the kernel tells which ports it hands out (ip_local_port_range, ip-sysctl).
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// What parsing needs to know about the host; a value, so that tests can supply their own.
#[derive(Clone, Copy, Debug)]
pub struct CliEnv {
    /// User id and primary group id of a login name.
    pub user: fn(&str) -> Option<RunAs>,
    /// Group id of a group name.
    pub group: fn(&str) -> Option<u32>,
    /// IPv6 sockets can be created; if not, `-4` is implied and `-6` is an error [CLI-5].
    pub ipv6: bool,
    /// The local ports that the kernel itself hands out, inclusive.
    pub ephemeral: Option<(u16, u16)>,
}

impl CliEnv {
    /// The real ones: the user and group databases, and a probe for IPv6.
    pub fn host() -> Self {
        let probe = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        Self {
            user: |name| {
                let user = User::from_name(name).ok().flatten()?;
                Some(RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            },
            group: |name| Some(Group::from_name(name).ok().flatten()?.gid.as_raw()),
            ipv6: probe.is_ok(),
            ephemeral: fs::read_to_string(PORT_RANGE).ok().as_deref().and_then(port_range),
        }
    }
}

/// Two numbers and white space.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
    let range = (words.next()??, words.next()??);
    (range.0 <= range.1).then_some(range)
}

/// `UID[:GID]`, `LOGIN[:GROUP]` or a mix; a lone UID is also the GID, a lone login brings its
/// primary group. Root must be asked for by number: a login name that turns out to be one more
/// name for root is more likely a mistake.
pub(super) fn runas(text: &str, env: &CliEnv) -> Result<RunAs, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let ids = match id(user) {
        Some(uid) => RunAs { uid, gid: uid },
        None => {
            let found = (env.user)(user)
                .ok_or_else(|| format!("invalid --runas '{text}': no user '{user}'"))?;
            if found.uid == 0 {
                return Err(format!("invalid --runas '{text}': user '{user}' is root"));
            }
            found
        }
    };
    let Some(group) = group else { return Ok(ids) };
    let gid = id(group)
        .or_else(|| (env.group)(group))
        .ok_or_else(|| format!("invalid --runas '{text}': no group '{group}'"))?;
    Ok(RunAs { gid, ..ids })
}

/// A numeric id; the largest value means "unchanged" to setuid(2) and is none.
fn id(text: &str) -> Option<u32> {
    values::any_base(text).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}
