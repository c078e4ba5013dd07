//! Settings of the kernel, as `/proc/sys` shows them.

use std::fs;

/// The number that a setting holds, by its path below `/proc/sys`; `None` if the kernel does not
/// have it, or it is none.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_there_is() {
        assert!(number("net/ipv4/tcp_syn_retries").is_some_and(|n| n < 128));
        assert_eq!(number("net/ipv4/no_such_setting"), None);
        assert_eq!(number("kernel/ostype"), None);
    }
}
