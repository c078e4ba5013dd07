//! The command lines of the programs that call pasta, word for word, and what they rely on.
//!
//! Their calls are repeated here exactly, in the lab of the `netns` tests. Some callers are also run
//! themselves, by the scripts of this directory: see `trixie`. Tags like `[COMPAT-28]` name
//! requirements.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
#[path = "../netns/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "../netns/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../netns/net.rs"]
mod net;
#[allow(dead_code)]
#[path = "../netns/ns.rs"]
mod ns;
#[allow(dead_code)]
#[path = "../netns/pasta.rs"]
mod pasta;

mod calls;
mod machines;
mod probes;
