//! Who may import whom.
//!
//! The layers are what makes most of this program testable without a kernel: the code that decides
//! (`wire`, `services`, `flow`, `forward`, `translate`) never sees a descriptor, a system call or a
//! clock, and the two sides it decides between (`link`, `host`) do not know each other. The
//! compiler does not check that within a crate, so this test reads the sources.
//!
//! It tokenises each file (comments and literals do not count), expands `use` trees, resolves
//! `self`, `super` and `crate` against the file's module, and looks at every path, not only at
//! imports. Test code (`#[cfg(test)]` items, files named `tests.rs` or below a `tests` directory)
//! may import what it likes. `unsafe` is looked for everywhere.

use std::fs;
use std::path::{Path, PathBuf};

/// What a module may refer to.
enum May {
    /// These modules of ours, its own aside, and no operating system.
    OnlyPure(&'static [&'static str]),
    /// Everything but these modules of ours.
    AllBut(&'static [&'static str]),
}

/// The rules, by top-level module; a module that is not listed is a violation.
const RULES: &[(&str, May)] = &[
    ("wire", May::OnlyPure(&[])),
    ("services", May::OnlyPure(&["wire", "config"])),
    ("flow", May::OnlyPure(&["wire"])),
    ("forward", May::OnlyPure(&["wire", "config", "flow"])),
    ("translate", May::OnlyPure(&["wire", "config", "flow", "forward", "services"])),
    ("link", May::AllBut(&["host", "daemon", "cli", "control"])),
    ("host", May::AllBut(&["link", "daemon", "cli", "control"])),
    ("event", May::AllBut(UPPER)),
    ("sys", May::AllBut(UPPER)),
    ("config", May::AllBut(UPPER)),
    ("cli", May::AllBut(UPPER)),
    ("control", May::AllBut(&["link", "host", "daemon"])),
    ("migrate", May::AllBut(&["link", "host", "daemon"])),
    ("daemon", May::AllBut(&[])),
    ("lib", May::AllBut(&[])),
    ("bin", May::AllBut(&[])),
];

/// What composes others, or is composed with others by `daemon` alone.
const UPPER: &[&str] = &["link", "host", "translate", "daemon"];

/// Crates and parts of the standard library that pure modules must not name: what does I/O, holds
/// a descriptor, or tells the time.
const OS: &[&[&str]] = &[
    &["libc"],
    &["nix"],
    &["mio"],
    &["caps"],
    &["seccompiler"],
    &["netlink_sys"],
    &["std", "os"],
    &["std", "time"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "env"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "UdpSocket"],
];

/// Where `unsafe` may appear.
const UNSAFE: &[&str] = &["sys", "host", "link", "event"];

// [HAZ-5] Where there is no `unsafe`, bytes become values by being copied: a structure cannot be laid
// over them, aligned or not.
#[test]
fn sources_respect_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 20, "sources not found below {}", root.display());

    let mut violations = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        violations.extend(check(name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Every violation in one file, whose name is relative to `src`.
fn check(name: &str, source: &str) -> Vec<String> {
    let module = module_path(name);
    let top = module.first().map_or("lib", String::as_str);
    let mut found = Vec::new();
    let Some((_, may)) = RULES.iter().find(|(module, _)| *module == top) else {
        return vec![format!("{name}: no rule for module `{top}`")];
    };

    let tokens = tokens(source);
    for token in tokens.iter().filter(|t| t.text == "unsafe" && !UNSAFE.contains(&top)) {
        found.push(format!("{name}:{}: `unsafe` in `{top}`", token.line));
    }
    if name.split('/').any(|part| part == "tests" || part == "tests.rs") {
        return found;
    }
    for (line, path) in paths(&tokens, &module) {
        if let Some(why) = refusal(top, may, &path) {
            found.push(format!("{name}:{line}: `{top}` names `{}`: {why}", path.join("::")));
        }
    }
    found
}

/// Why a module must not name `path`, if so.
fn refusal(top: &str, may: &May, path: &[String]) -> Option<&'static str> {
    let is_os = |os: &&[&str]| path.len() >= os.len() && path.iter().zip(*os).all(|(a, b)| a == b);
    if matches!(may, May::OnlyPure(_)) && OS.iter().any(is_os) {
        return Some("operating system, I/O or clock");
    }
    let [root, target, ..] = path else { return None };
    let is_module = RULES.iter().any(|(module, _)| module == target);
    if root != "crate" || !is_module || target == top {
        return None;
    }
    let allowed = match may {
        May::OnlyPure(list) => list.contains(&target.as_str()),
        May::AllBut(list) => !list.contains(&target.as_str()),
    };
    (!allowed).then_some("layer")
}

/// The module a file defines, without the leading `crate`.
fn module_path(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = name.trim_end_matches(".rs").split('/').map(Into::into).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// An identifier, `::`, or one punctuation character.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_ident(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Splits source into tokens, leaving out comments, literals and lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => i = end_of_comment(&chars, i),
            ('"', _) => i = end_of_string(&chars, i),
            ('\'', '\\') => {
                i += 3; // the escaped character may itself be a quote
                i += chars[i..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            ('\'', _) => i += 1 + chars[i + 1..].iter().take_while(|c| is_word(**c)).count(),
            (':', ':') => {
                out.push(Token { text: "::".into(), line });
                i += 2;
            }
            (c, _) if is_word(c) => {
                let text: String = chars[i..].iter().take_while(|c| is_word(**c)).collect();
                i += text.chars().count();
                let raw = matches!(text.as_str(), "r" | "br" | "cr");
                if raw && at(i) == '#' && is_word(at(i + 1)) {
                    i += 1; // a raw identifier: its name follows
                } else if raw && matches!(at(i), '"' | '#') {
                    i = end_of_raw_string(&chars, i);
                } else if !c.is_numeric() {
                    out.push(Token { text, line });
                }
            }
            (c, _) if c.is_whitespace() => i += 1,
            (c, _) => {
                out.push(Token { text: c.into(), line });
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0usize);
    while i < chars.len() {
        match chars[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// `start` is after the `r`.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let mut i = start + hashes + 1;
    while i < chars.len() {
        let closes = chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        i += 1;
        if closes {
            return i + hashes;
        }
    }
    i
}

/// Every path outside test code, made absolute, with its line.
///
/// Paths of ours start with `crate`; others with the name of a crate (or anything in scope).
fn paths(tokens: &[Token], module: &[String]) -> Vec<(usize, Vec<String>)> {
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    let mut out = Vec::new();
    let mut inline: Vec<(usize, String)> = Vec::new(); // brace depth and name of inline modules
    let (mut i, mut depth) = (0, 0usize);
    while i < tokens.len() {
        let here: Vec<String> =
            module.iter().chain(inline.iter().map(|(_, name)| name)).cloned().collect();
        let mut absolute = |line, path| out.push((line, resolve(path, &here)));
        match text(i) {
            "#" if is_cfg_test(tokens, i) => i = end_of_item(tokens, i),
            "mod" if text(i + 2) == "{" => {
                depth += 1;
                inline.push((depth, text(i + 1).into()));
                i += 3;
            }
            "{" => (depth, i) = (depth + 1, i + 1),
            "}" => {
                if inline.last().is_some_and(|(at, _)| *at == depth) {
                    inline.pop();
                }
                (depth, i) = (depth.saturating_sub(1), i + 1);
            }
            // `use` also marks captures in `impl Trait + use<..>`, which name no module.
            "use" if text(i + 1) != "<" => {
                i = use_tree(tokens, i + 1, &[], &mut absolute);
            }
            "extern" if text(i + 1) == "crate" => {
                absolute(tokens[i].line, vec![text(i + 2).into()]);
                i += 3;
            }
            _ if tokens[i].is_ident() && text(i + 1) == "::" => {
                let (line, mut path) = (tokens[i].line, vec![text(i).to_owned()]);
                while text(i + 1) == "::" && tokens.get(i + 2).is_some_and(Token::is_ident) {
                    i += 2;
                    path.push(text(i).into());
                }
                absolute(line, path);
                i += 1;
            }
            _ => i += 1,
        }
    }
    out
}

/// Expands one use tree starting at token `i`; the index after it.
fn use_tree(
    tokens: &[Token],
    mut i: usize,
    prefix: &[String],
    emit: &mut impl FnMut(usize, Vec<String>),
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "::" => i += 1,
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.text != "}") {
                    i = use_tree(tokens, i, &path, emit);
                    // Past the comma, or whatever a macro put there: always get on.
                    i += usize::from(tokens.get(i).is_some_and(|t| t.text != "}"));
                }
                return i + 1;
            }
            "as" => i += 2,
            "self" if !path.is_empty() => i += 1,
            _ if token.is_ident() => {
                path.push(token.text.clone());
                i += 1;
            }
            "*" => i += 1,
            _ => break,
        }
    }
    emit(tokens.get(i).map_or(0, |t| t.line), path);
    i
}

/// Replaces leading `self` and `super` by the module they mean; `here` lacks the `crate`.
fn resolve(path: Vec<String>, here: &[String]) -> Vec<String> {
    let mut base = here.to_vec();
    let mut rest = path.iter().peekable();
    let mut relative = false;
    while let Some(first) = rest.next_if(|p| *p == "self" || *p == "super") {
        relative = true;
        if first == "super" {
            base.pop();
        }
    }
    if !relative {
        let ours = path.first().is_some_and(|first| first == "passt");
        return if ours { [vec!["crate".into()], path[1..].to_vec()].concat() } else { path };
    }
    ["crate".to_owned()].into_iter().chain(base).chain(rest.cloned()).collect()
}

/// Whether the `#` at `i` starts exactly `#[cfg(test)]`.
fn is_cfg_test(tokens: &[Token], i: usize) -> bool {
    let want = ["#", "[", "cfg", "(", "test", ")", "]"];
    tokens.len() >= i + want.len() && tokens[i..].iter().zip(want).all(|(t, w)| t.text == w)
}

/// The index after the item at `i`: after its braces, or after `;` if that comes first.
fn end_of_item(tokens: &[Token], mut i: usize) -> usize {
    let (mut braces, mut others) = (0usize, 0usize);
    while let Some(token) = tokens.get(i) {
        i += 1;
        match token.text.as_str() {
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return i;
                }
            }
            "(" | "[" => others += 1,
            ")" | "]" => others = others.saturating_sub(1),
            ";" if braces == 0 && others == 0 => return i,
            _ => {}
        }
    }
    i
}

// A checker that finds nothing proves nothing: each rule is shown a violation it must find.
#[test]
fn finds_planted_violations() {
    for (name, source) in [
        ("wire/tcp.rs", "use crate::flow::FlowId;"),
        ("wire/tcp.rs", "use crate::{wire::Mac, flow};"),
        ("wire/tcp.rs", "use super::super::config::Lease;"),
        ("wire/tcp/option.rs", "use super::super::super::link;"),
        ("wire/mod.rs", "mod a { use super::super::link::Tap; }"),
        ("wire/mod.rs", "mod a { mod b {} } fn f() { super::link::x() }"),
        ("wire/tcp.rs", "fn f() -> u8 { crate::host::now() }"),
        ("wire/tcp.rs", "#[cfg(test)] mod tests { use super::*; } use crate::flow;"),
        ("wire/tcp.rs", "#[cfg(test)] mod tests; use crate::flow;"),
        ("wire/tcp.rs", "const A: char = '\"'; use crate::flow; const B: char = '\"';"),
        ("wire/tcp.rs", "const A: char = '\\''; use crate::flow;"),
        ("wire/tcp.rs", "const A: &str = r#\"\"#; use crate::flow; const B: &str = \"\";"),
        ("wire/tcp.rs", "fn f<'a>(x: &'a u8) { crate::flow::g::<'a>(x) }"),
        ("wire/tcp.rs", "pub use passt::flow;"),
        ("wire/tcp.rs", "macro_rules! m { ($x:path) => { use {$x, a::$x, crate::flow}; } }"),
        ("services/arp.rs", "use crate::flow::Table;"),
        ("services/arp.rs", "use crate::translate::tcp;"),
        ("flow/table.rs", "use crate::forward::Rules;"),
        ("forward/rules.rs", "use crate::translate::udp;"),
        ("translate/tcp/mod.rs", "use crate::link::Tap;"),
        ("translate/udp.rs", "use libc::c_int;"),
        ("translate/udp.rs", "use libc;"),
        ("translate/udp.rs", "use libc as c;"),
        ("translate/udp.rs", "fn f() -> ::libc::c_int { 0 }"),
        ("translate/udp.rs", "extern crate nix;"),
        ("translate/udp.rs", "fn f() { let _ = mio::Token(1); }"),
        ("flow/mod.rs", "use std::{net::IpAddr, os::fd::OwnedFd};"),
        ("flow/mod.rs", "use std::time::Instant;"),
        ("flow/mod.rs", "fn f() { std::time::Instant::now(); }"),
        ("forward/mod.rs", "use std::net::{IpAddr, UdpSocket as U};"),
        ("link/tap.rs", "use crate::host::Net;"),
        ("host/mod.rs", "use crate::link::LinkTx;"),
        ("host/mod.rs", "use super::link::LinkTx;"),
        ("host/mod.rs", "use crate::daemon;"),
        ("sys/netlink.rs", "use crate::daemon::main;"),
        ("cli/mod.rs", "use crate::host::Net;"),
        ("config/mod.rs", "fn f() { unsafe { g() } }"),
        ("daemon/mod.rs", "unsafe fn g() {}"),
        ("translate/tcp/tests.rs", "fn f() { unsafe { g() } }"),
        ("lib.rs", "/* unsafe /* */ */ unsafe impl Send for X {}"),
        ("unheard_of/mod.rs", ""),
    ] {
        assert_eq!(check(name, source).len(), 1, "{name}: {source}: {:?}", check(name, source));
    }
}

#[test]
fn accepts_what_is_allowed() {
    for (name, source) in [
        ("wire/tcp.rs", "use super::{Addr, Mac}; use crate::wire::ndp; use self::a::b;"),
        ("wire/tcp.rs", "// use crate::flow;\n/* unsafe */ const A: &str = \"crate::flow\";"),
        ("wire/tcp.rs", "const A: &str = r#\"\"unsafe\" crate::flow\"#; const B: u8 = b'\\'';"),
        ("wire/tcp.rs", "#[cfg(test)] mod tests { use std::time::Instant; use crate::flow; }"),
        ("wire/tcp.rs", "#[cfg(test)] use crate::flow; #[cfg(test)] const A: [u8; 2] = [0; 2];"),
        ("wire/mod.rs", "#![forbid(unsafe_code)] mod a { use super::b; } use std::net::IpAddr;"),
        ("services/arp.rs", "use super::Reply; use crate::config::Lease; use crate::wire::Mac;"),
        ("translate/tcp/mod.rs", "use crate::{flow::Table, forward::{self, Rules}, wire::Seq};"),
        ("translate/tcp/tests.rs", "use crate::host::Net; use std::time::Instant;"),
        ("translate/udp.rs", "fn f(host: u8) { host::x(); Flow::time(); let libc = 1; }"),
        ("link/tap.rs", "use crate::translate::FrameOut; use libc; fn f() { unsafe {} }"),
        ("bin/passt.rs", "fn main() { passt::daemon::main() }"),
        ("lib.rs", "pub mod link; pub mod host; use crate::daemon::main;"),
    ] {
        assert_eq!(check(name, source), Vec::<String>::new(), "{name}: {source}");
    }
}

#[test]
fn names_file_and_line() {
    let found = check("flow/table.rs", "//! Table.\n\nuse crate::wire::Addr;\nuse mio::Token;\n");
    let want = "flow/table.rs:4: `flow` names `mio::Token`: operating system, I/O or clock";
    assert_eq!(found, [want]);
}
