//! pasta between real network namespaces.
//!
//! Every test runs in a [`lab`] of its own: throw-away namespaces with a `host`, where pasta runs,
//! and a `remote`, which is the rest of the world. Tags like `[CLI-12]` name requirements.
//!
//! * [`status`], [`attach`], [`config`], [`refuse`]: command line, life cycle, namespace set-up;
//! * [`tcp`], [`udp`], [`names`]: single connections and datagrams in every direction;
//! * [`sources`], [`outbound`]: the addresses that either side sees; [`restart`]: ports that are free again;
//! * [`dhcp_clients`], [`network_manager`]: guests that configure themselves;
//! * [`dscp`]: code points of packets; [`fragments`]: datagrams longer than the MTU; [`hops`]: what routers say;
//! * [`splice`]: loopback to loopback;
//! * [`bulk`]: throughput, loss, slow readers; these take seconds each;
//! * [`far`]: long and lossy paths, over a [`relay`]; [`guest_link`]: a guest behind one;
//! * [`stream`], [`qemu`]: passt, and a [`machine`] behind its socket; [`unplugged`]: nobody there;
//! * [`many`], [`many_udp`]: thousands of connections ([`crowd`]) and of flows of datagrams, and what happens where there
//!   can be no more;
//! * [`life`], [`logging`], [`capture`]: start and end in odd surroundings; what is told, and where;
//! * [`uplink`], [`neighbours`]: changes of the host's network while running;
//! * [`device`]: the tap device, down, gone, or with more than a turn takes;
//! * [`offload`]: every level of offloads; [`memory`]: nothing is allocated while running;
//! * [`walls`]: the running process seen from outside; [`attacks`]: a guest that wants all we have;
//! * [`rootless`]: an ordinary user in the machine's own network namespace.
#![allow(clippy::unwrap_used, missing_docs)]

mod attach;
mod attacks;
mod auto;
mod bulk;
mod capture;
mod config;
mod crowd;
mod device;
mod dhcp_clients;
mod dscp;
mod far;
mod fragments;
mod guest_link;
mod hops;
mod json;
mod lab;
mod life;
mod logging;
mod machine;
mod many;
mod many_udp;
mod memory;
mod names;
mod neighbours;
mod net;
mod network_manager;
mod ns;
mod offload;
mod outbound;
mod pasta;
mod qemu;
mod refuse;
mod relay;
mod restart;
mod rootless;
mod sources;
mod splice;
mod splice_in;
mod status;
mod stream;
mod tap;
mod tcp;
mod udp;
mod unable;
mod unplugged;
mod uplink;
mod walls;
mod web;
