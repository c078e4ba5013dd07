//! The resolver configuration file, resolv.conf(5).
//!
//! Read once, as the unprivileged user. Accepted is what the C library accepts: a keyword at the
//! beginning of a line, blanks or tabs after it, comments; `search` and `domain` name the search
//! list, the last of them wins. Options are of no interest to the guest.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

/// Names that are kept of the search list (`MAXDNSRCH` of the C library).
const SEARCH_MAX: usize = 6;

/// Bytes of the file that are looked at.
const FILE_MAX: u64 = 1 << 20;

/// What we use of resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses of name servers, in order, scope suffix removed.
    pub nameservers: Vec<IpAddr>,
    /// The search list, at most six names.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads a file. One that cannot be read is as good as an empty one; that is logged.
    pub fn read(path: &Path) -> Self {
        let mut text = Vec::new();
        match File::open(path).and_then(|f| f.take(FILE_MAX).read_to_end(&mut text)) {
            Ok(_) => Self::parse(&text),
            Err(e) => {
                log::info!("Cannot read {}: {e}", path.display());
                Self::default()
            }
        }
    }

    /// Parses the contents of a file. Lines that make no sense are ignored [NL-11, W-11].
    pub fn parse(text: &[u8]) -> Self {
        let mut out = Self::default();
        for line in text.split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            let line = line.split(['#', ';']).next().unwrap_or_default();
            if line.starts_with(char::is_whitespace) {
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => out.nameservers.extend(address(server)),
                (Some("search"), Some(first)) => {
                    let names = std::iter::once(first).chain(words);
                    out.search = names.take(SEARCH_MAX).map(str::to_owned).collect();
                }
                (Some("domain"), Some(name)) => out.search = vec![name.to_owned()],
                _ => {}
            }
        }
        // A lone dot is the root: the documented way to have no search list.
        out.search.retain(|name| name != ".");
        out
    }
}

/// An address without its scope: the guest has other interfaces than the host.
fn address(server: &str) -> Option<IpAddr> {
    server.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        ResolvConf::parse(text.as_bytes()).nameservers.iter().map(ToString::to_string).collect()
    }

    fn search(text: &str) -> Vec<String> {
        ResolvConf::parse(text.as_bytes()).search
    }

    // [NL-11] [W-11] Tabs, comments, several blanks, scopes, carriage returns.
    #[test]
    fn nameservers() {
        let text = "# comment\n; comment\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\n\
                    nameserver   192.0.2.3   # comment\nnameserver 192.0.2.4;comment\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::1\r\nnameserver 192.0.2.5";
        let expected = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
            "fe80::1",
            "2001:db8::1",
            "192.0.2.5",
        ];
        assert_eq!(servers(text), expected);
    }

    #[test]
    fn nonsense_is_ignored() {
        assert!(
            servers("nameserver\nnameserver x\nnameserver 1.2.3\n#nameserver 1.2.3.4").is_empty()
        );
        assert!(servers(" nameserver 1.2.3.4\nnameservers 1.2.3.4\nnameserver1.2.3.4").is_empty());
        assert_eq!(servers("nameserver 1.2.3.4\n\u{0}\u{1}\nnameserver ::1"), ["1.2.3.4", "::1"]);
        assert_eq!(ResolvConf::parse(b"\xff\xfe\nnameserver 1.1.1.1\n").nameservers.len(), 1);
    }

    // [W-11] A long line does not end parsing.
    #[test]
    fn long_lines() {
        let text = format!("search {}\nnameserver 192.0.2.1", "x".repeat(100_000));
        assert_eq!(servers(&text), ["192.0.2.1"]);
    }

    // [NL-11] Blanks and tabs separate names; no more than six; the last line wins.
    #[test]
    fn search_lists() {
        assert_eq!(
            search("search a.example\tb.example  c.example"),
            ["a.example", "b.example", "c.example"]
        );
        assert_eq!(search("search 1 2 3 4 5 6 7 8"), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(search("search a\nsearch b c\noptions ndots:5"), ["b", "c"]);
        assert_eq!(search("search a b\ndomain c"), ["c"]);
        assert!(search("search .").is_empty());
    }

    // [NL-11] A missing file is no error.
    #[test]
    fn missing_file() {
        let none = ResolvConf::read(Path::new("/nonexistent/resolv.conf"));
        assert_eq!(none, ResolvConf::default());
    }
}
