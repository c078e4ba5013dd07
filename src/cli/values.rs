//! Arguments of single options: numbers, addresses, names, paths.
//!
//! Errors are sentences that name the value and the rule; the caller names the option where the
//! sentence does not.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::config::Offload;
use crate::wire::{Mac, name};

/// Largest MTU: 65535 less the Ethernet header.
pub(super) const MTU_MAX: u16 = 65_521;

/// What `--buffer-memory` can be set to. With less not even one connection would get a window worth
/// having from it; more than this the kernel's own limits would not let connections use.
const BUFFER_MEMORY_RANGE: RangeInclusive<usize> = 1 << 20..=1 << 30;

/// Smallest `--log-size`: five messages of the greatest length [LOG-6].
pub(super) const LOG_SIZE_MIN: u64 = 5 * 8192;

/// Longest path the kernel takes, without the terminating NUL (`PATH_MAX` - 1).
const PATH_MAX: usize = 4095;

/// Longest path of a socket (`sun_path`, less the terminating NUL).
const SOCKET_PATH_MAX: usize = 107;

/// Longest interface name the kernel takes (`IFNAMSIZ` - 1).
const IFNAME_MAX: usize = 15;

/// Longest host name (RFC 1035, 2.3.4, less length bytes and root).
const HOSTNAME_MAX: usize = 253;

/// Text of an argument that cannot be anything but text.
pub(super) fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("invalid argument {value:?}: not valid UTF-8"))
}

/// A decimal number as `strtoul(3)` reads it: blanks and `+` may precede it.
pub(super) fn decimal(text: &str) -> Option<u64> {
    digits(unsigned(text), 10)
}

/// A number in C notation: `0x` is hexadecimal, a leading `0` octal.
pub(super) fn any_base(text: &str) -> Option<u64> {
    let text = unsigned(text);
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => digits(hex, 16),
        None if text.starts_with('0') => digits(text, 8),
        None => digits(text, 10),
    }
}

/// An address, bracketed or not; IPv4-mapped IPv6 is IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    literal(text).map(|addr| addr.to_canonical())
}

/// An address as it is written, bracketed or not.
fn literal(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    inner.parse().ok()
}

/// `-a`: an address that a guest can have, and the prefix length if there is one.
pub(super) fn guest_address(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let invalid = |rule: &str| format!("invalid address '{text}': {rule}");
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let addr = address(addr).ok_or_else(|| invalid("must be an IPv4 or IPv6 address"))?;
    if addr.is_unspecified() || is_group(addr) || addr.is_loopback() {
        return Err(invalid("must not be unspecified, multicast or loopback"));
    }
    let max = if addr.is_ipv4() { 32 } else { 128 };
    let len = len
        .map(|len| {
            bits(len, max).ok_or_else(|| invalid(&format!("prefix length must be 0 to {max}")))
        })
        .transpose()?;
    Ok((addr, len))
}

/// `-s`: a path that fits a socket address.
pub(super) fn socket_path(value: &OsStr) -> Result<PathBuf, String> {
    match value.as_bytes() {
        path if (1..=SOCKET_PATH_MAX).contains(&path.len()) => Ok(value.into()),
        _ => Err(format!("invalid socket path {value:?}: must have 1 to {SOCKET_PATH_MAX} bytes")),
    }
}

/// `-F`: a descriptor.
pub(super) fn descriptor(text: &str) -> Result<i32, String> {
    any_base(text)
        .and_then(|n| i32::try_from(n).ok())
        .ok_or_else(|| format!("invalid descriptor '{text}': must be 0 to {}", i32::MAX))
}

/// `-n`: an IPv4 netmask, dotted or as a number of bits; the number of bits.
pub(super) fn netmask(text: &str) -> Result<u8, String> {
    let invalid = || format!("invalid netmask '{text}': must be 0 to 32 or a contiguous mask");
    if let Some(bits) = bits(text, 32) {
        return Ok(bits);
    }
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().map_err(|_| invalid())?);
    let ones = mask.leading_ones();
    if ones + mask.trailing_zeros() != 32 {
        return Err(invalid());
    }
    u8::try_from(ones).map_err(|_| invalid())
}

/// `-g`: an address that can be a gateway.
pub(super) fn gateway(text: &str) -> Result<IpAddr, String> {
    unicast("gateway", text, is_broadcast, "unspecified, loopback or broadcast")
}

/// `-o`: an address to send from. What a socket for one family cannot have is refused [FWD-3].
pub(super) fn outbound(text: &str) -> Result<IpAddr, String> {
    let invalid = |rule: &str| format!("invalid --outbound address '{text}': {rule}");
    let addr = literal(text).ok_or_else(|| invalid("must be an IPv4 or IPv6 address"))?;
    match addr {
        IpAddr::V4(_) if addr.is_unspecified() || is_group(addr) => {
            Err(invalid("must not be unspecified, broadcast or multicast"))
        }
        IpAddr::V6(_) if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() => {
            Err(invalid("must not be unspecified, loopback or multicast"))
        }
        // Mapped, or "compatible" (RFC 4291, 2.5.5).
        IpAddr::V6(a) if a.to_ipv4().is_some() => {
            Err(invalid("must not be an IPv4 address in the form of IPv6"))
        }
        _ => Ok(addr),
    }
}

/// `--dns-forward`: an address whose queries can be intercepted.
pub(super) fn dns_forward(text: &str) -> Result<IpAddr, String> {
    unicast("--dns-forward", text, is_broadcast, "unspecified, loopback or broadcast")
}

/// `--dns-host`: an address that queries can be sent to; the host's loopback may well be.
pub(super) fn dns_host(text: &str) -> Result<IpAddr, String> {
    let invalid = |rule: &str| format!("invalid --dns-host address '{text}': {rule}");
    let addr = address(text).ok_or_else(|| invalid("must be an IPv4 or IPv6 address"))?;
    if addr.is_unspecified() || is_broadcast(addr) {
        return Err(invalid("must not be unspecified or broadcast"));
    }
    Ok(addr)
}

/// `-H`: a name for a host.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > HOSTNAME_MAX {
        return Err(format!("invalid host name '{text}': must be 1 to {HOSTNAME_MAX} bytes"));
    }
    Ok(text.to_string())
}

/// `--fqdn`: a name that DNS can express.
pub(super) fn fqdn(text: &str) -> Result<String, String> {
    if !name::is_valid(text) {
        return Err(format!("invalid --fqdn '{text}': must be a domain name"));
    }
    Ok(text.to_string())
}

/// `-S`: search domains that DNS can express, one or more with blanks between them [W-10].
pub(super) fn search(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = text.split_ascii_whitespace().map(str::to_string).collect();
    if names.is_empty() || names.iter().any(|n| !name::is_valid(n)) {
        return Err(format!("invalid search domain '{text}': must be domain names, or none"));
    }
    Ok(names)
}

/// `--map-host-loopback`, `--map-guest-addr`: an address that can stand for the host.
pub(super) fn mapped(option: &str, text: &str) -> Result<IpAddr, String> {
    unicast(option, text, is_group, "unspecified, loopback or multicast")
}

/// `-D`: any address.
pub(super) fn resolver(text: &str) -> Result<IpAddr, String> {
    address(text).ok_or_else(|| {
        format!("invalid DNS address '{text}': must be an IPv4 or IPv6 address, or none")
    })
}

/// `-m`: 0 to [`MTU_MAX`].
pub(super) fn mtu(text: &str) -> Result<u16, String> {
    any_base(text)
        .and_then(|mtu| u16::try_from(mtu).ok())
        .filter(|mtu| *mtu <= MTU_MAX)
        .ok_or_else(|| format!("invalid MTU '{text}': must be 0 to {MTU_MAX}"))
}

/// `--offload`.
pub(super) fn offload(text: &str) -> Result<Offload, String> {
    match text {
        "udp" => Ok(Offload::Udp),
        "tcp" => Ok(Offload::Tcp),
        "none" => Ok(Offload::None),
        _ => Err(format!("invalid --offload '{text}': must be udp, tcp or none")),
    }
}

/// `--buffer-memory`: bytes, or with a suffix k, M or G multiples of 1024.
pub(super) fn buffer_memory(text: &str) -> Result<usize, String> {
    size(text)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| BUFFER_MEMORY_RANGE.contains(bytes))
        .ok_or_else(|| format!("invalid --buffer-memory '{text}': must be 1M to 1G"))
}

/// `--log-size`: bytes.
pub(super) fn log_size(text: &str) -> Result<u64, String> {
    any_base(text)
        .filter(|bytes| *bytes >= LOG_SIZE_MIN)
        .ok_or_else(|| format!("invalid --log-size '{text}': must be {LOG_SIZE_MIN} or more"))
}

/// `--stats`: seconds.
pub(super) fn delay(text: &str) -> Result<u32, String> {
    decimal(text)
        .filter(|_| !text.is_empty())
        .and_then(|seconds| u32::try_from(seconds).ok())
        .ok_or_else(|| format!("invalid --stats '{text}': must be 0 to {} seconds", u32::MAX))
}

/// `-M`, `--ns-mac-addr`.
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    text.parse().map_err(|()| {
        format!("invalid MAC address '{text}': must be six pairs of hexadecimal digits, xx:xx:...")
    })
}

/// A possible interface name, existing or not.
pub(super) fn ifname(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > IFNAME_MAX {
        return Err(format!("invalid interface name '{text}': must be 1 to {IFNAME_MAX} bytes"));
    }
    if matches!(text, "." | "..") || text.contains(|c: char| c == '/' || c.is_ascii_whitespace()) {
        return Err(format!("invalid interface name '{text}': not a name an interface can have"));
    }
    Ok(text.to_string())
}

/// A path of a length the kernel takes.
pub(super) fn path(option: &str, value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() || value.len() > PATH_MAX {
        return Err(format!("invalid {option} path {value:?}: must be 1 to {PATH_MAX} bytes"));
    }
    Ok(PathBuf::from(value))
}

/// `--netns`: a path, or the name of a file in `/run/netns`.
pub(super) fn netns(value: &OsStr) -> Result<PathBuf, String> {
    let path = path("--netns", value)?;
    let is_name = !value.as_bytes().contains(&b'/');
    Ok(if is_name { PathBuf::from("/run/netns").join(path) } else { path })
}

/// A number of bytes: decimal, with k, M or G (in either case) for powers of 1024.
fn size(text: &str) -> Option<u64> {
    let units = [(['k', 'K'], 1 << 10), (['m', 'M'], 1 << 20), (['g', 'G'], 1 << 30)];
    let unit = units
        .into_iter()
        .find_map(|(letters, unit)| text.strip_suffix(letters).map(|number| (number, unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    // An empty number would be 0.
    decimal(number).filter(|_| !number.is_empty())?.checked_mul(unit)
}

fn unsigned(text: &str) -> &str {
    let text = text.trim_ascii_start();
    text.strip_prefix('+').unwrap_or(text)
}

/// Digits only: the standard library's parser would take another sign.
fn digits(text: &str, radix: u32) -> Option<u64> {
    let all_digits = text.chars().all(|c| c.is_digit(radix));
    if all_digits { u64::from_str_radix(text, radix).ok() } else { None }
}

fn bits(text: &str, max: u8) -> Option<u8> {
    digits(text, 10).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= max)
}

fn is_broadcast(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(a) if a.is_broadcast())
}

fn is_group(addr: IpAddr) -> bool {
    addr.is_multicast() || is_broadcast(addr)
}

fn unicast(
    what: &str,
    text: &str,
    excluded: impl Fn(IpAddr) -> bool,
    rule: &str,
) -> Result<IpAddr, String> {
    let addr = address(text).ok_or_else(|| {
        format!("invalid {what} address '{text}': must be an IPv4 or IPv6 address")
    })?;
    if addr.is_unspecified() || addr.is_loopback() || excluded(addr) {
        return Err(format!("invalid {what} address '{text}': must not be {rule}"));
    }
    Ok(addr)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("0x5dc", Some(1500)),
            ("0X5DC", Some(1500)),
            ("02734", Some(1500)),
            (" +7", Some(7)),
            ("08", None),
            ("0x", None),
            ("", None),
            ("-1", None),
            ("+-1", None),
            ("++1", None),
            ("1 ", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(any_base(text), value, "{text:?}");
        }
        assert_eq!(decimal("010"), Some(10));
        for (text, bytes) in [
            ("8388608", Some(8 << 20)),
            ("512k", Some(512 << 10)),
            ("512K", Some(512 << 10)),
            ("8m", Some(8 << 20)),
            ("1G", Some(1 << 30)),
            ("M", None),
            ("1.5M", None),
            ("1MB", None),
            ("1 M", None),
            ("-1M", None),
            ("18446744073709551615k", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
        assert_eq!(decimal("0x10"), None);
    }

    #[test]
    fn netmasks() {
        for (text, bits) in
            [("24", 24), ("0", 0), ("32", 32), ("255.255.255.0", 24), ("0.0.0.0", 0)]
        {
            assert_eq!(netmask(text), Ok(bits), "{text}");
        }
        assert_eq!(netmask("255.255.255.255"), Ok(32));
        for text in ["33", "255.0.255.0", "0.0.0.1", "", "x", "-1", "+1", "255.255.255"] {
            assert!(netmask(text).is_err(), "{text}");
        }
    }
}
