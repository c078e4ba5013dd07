//! The validated command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::ForwardSpec;
use crate::wire::Mac;

/// Which program we are [CLI-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A virtual machine on a UNIX stream socket.
    Passt,
    /// A network namespace with a tap device.
    Pasta,
}

impl Mode {
    /// The program's name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passt => "passt",
            Self::Pasta => "pasta",
        }
    }
}

/// What is connected: for pasta a namespace [CLI-10], for passt a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A virtual machine.
    Machine(GuestSocket),
    /// A new namespace with this command (program, arguments) as its first process.
    Command(Vec<OsString>),
    /// A new namespace with an interactive login shell.
    Shell,
    /// The network and user namespaces of a process.
    Pid(i32),
    /// A network namespace by path; a bare name has already been turned into `/run/netns/NAME`.
    Netns(PathBuf),
}

/// Where a virtual machine is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestSocket {
    /// It connects to the first free path of a series.
    Probe,
    /// It connects to this path (`--socket`).
    Path(PathBuf),
    /// Our caller has connected it, and left us the descriptor (`--fd`).
    Inherited,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// The default: informational messages too.
    Info,
    /// Debug messages.
    Debug,
    /// Debug messages and a line per event or packet.
    Trace,
}

/// A guest-visible address that stands for something on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAddr<A> {
    /// The default for the option (for the host loopback mapping: the guest's gateway).
    Default,
    /// No mapping.
    None,
    /// This address.
    Addr(A),
}

/// Where resolver addresses for the guest come from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DnsServers {
    /// `-D none` was given (and no address after it): nothing is advertised.
    pub none: bool,
    /// Addresses from `-D`, at most three per family, in order.
    pub servers: Vec<IpAddr>,
}

/// The transport protocols that are forwarded (`--no-tcp`, `--no-udp`, `--no-icmp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
    /// ICMP and ICMPv6: echo, and neighbour discovery with it.
    pub icmp: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { tcp: true, udp: true, icmp: true }
    }
}

/// User and group ids to run as (`--runas`), already looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What clients on the host's loopback interface get to see of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inward {
    /// What others see: they come in through the link (`--no-splice`).
    Link,
    /// The namespace's own address: what listens on its loopback interface alone is not for us.
    #[default]
    Address,
    /// Its loopback interface, at the address that was used on the host (`--host-lo-to-ns-lo`).
    Loopback,
}

/// What is left to the guest's kernel, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Nothing: every frame is one packet with complete checksums.
    None,
    /// Checksums and TCP segmentation.
    Tcp,
    /// UDP segmentation too (Linux 6.2).
    Udp,
}

/// Frames of the guest that may wait in a queue of its tap device. A full one drops what comes on
/// top, and with the kernel's 1000 a guest with ten thousand connections that all have something to
/// say waits for retransmissions. Longer queues could hold too much memory: a frame has up to
/// 64 KiB, which makes 256 MiB for each of up to four queues.
pub const GUEST_QUEUE: u32 = 4096;

/// Where flows of the guest leave the host [FWD-3].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// `-o` for IPv4: the source address.
    pub addr4: Option<Ipv4Addr>,
    /// `-o` for IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// `--outbound-if4`: the interface for IPv4.
    pub if4: Option<String>,
    /// `--outbound-if6`: the interface for IPv6.
    pub if6: Option<String>,
}

impl Outbound {
    /// The source address for destinations of a family.
    #[must_use]
    pub fn addr(&self, v4: bool) -> Option<IpAddr> {
        if v4 { self.addr4.map(IpAddr::from) } else { self.addr6.map(IpAddr::from) }
    }

    /// The interface for destinations of a family.
    #[must_use]
    pub fn interface(&self, v4: bool) -> Option<&str> {
        if v4 { self.if4.as_deref() } else { self.if6.as_deref() }
    }
}

/// Default of `--buffer-memory`.
const BUFFER_MEMORY: usize = 64 << 20;

/// Default of `--log-size`.
const LOG_SIZE: u64 = 1 << 20;

/// The validated command line. Immutable once built.
#[derive(Clone, Debug)]
pub struct Config {
    /// Program mode.
    pub mode: Mode,
    /// What is connected.
    pub target: Target,
    /// `-1`: the end of the first guest is our end (passt).
    pub one_off: bool,
    /// `--userns`: user namespace to join.
    pub userns: Option<PathBuf>,
    /// `--netns-only`: join no user namespace, though one be needed.
    pub netns_only: bool,
    /// `-f`: stay in the foreground.
    pub foreground: bool,
    /// Log level.
    pub verbosity: Verbosity,
    /// `--config-net`: configure addresses and routes in the namespace.
    pub config_net: bool,
    /// `--no-copy-routes` was not given: `--config-net` copies the host's routes.
    pub copy_routes: bool,
    /// `--no-copy-addrs` was not given: `--config-net` copies the host's addresses.
    pub copy_addrs: bool,
    /// `--no-netns-quit` was not given: the end of a namespace that was joined is our end.
    pub netns_quit: bool,
    /// `-H`: host name that a command of ours sees, and that the guest is given by DHCP.
    pub hostname: Option<String>,
    /// `--fqdn`: fully qualified name that the guest is given by DHCP and DHCPv6.
    pub fqdn: Option<String>,
    /// `-I`: name of the interface in the namespace.
    pub ifname: Option<String>,
    /// IPv4 wanted (`-6` turns it off).
    pub v4: bool,
    /// IPv6 wanted (`-4` turns it off).
    pub v6: bool,
    /// `-a` for IPv4.
    pub addr4: Option<Ipv4Addr>,
    /// Prefix length for `addr4`, from `-a ADDR/LEN` or `-n`; without `-a` it overrides the host's.
    pub prefix4: Option<u8>,
    /// `-a` for IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// `-g` for IPv4.
    pub gateway4: Option<Ipv4Addr>,
    /// `-g` for IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// `-m`: MTU of the guest's interface; 0 means "do not assign".
    pub mtu: u16,
    /// `-M`: the MAC address we present.
    pub our_mac: Mac,
    /// `--ns-mac-addr`: the MAC address of the guest's interface.
    pub ns_mac: Option<Mac>,
    /// `-i`: template interface.
    pub template: Option<String>,
    /// `-o`, `--outbound-if4`, `--outbound-if6`.
    pub outbound: Outbound,
    /// `--freebind`: sockets may have addresses that are not ours (yet).
    pub freebind: bool,
    /// `--no-map-gw` was not given.
    pub map_gw: bool,
    /// `--map-host-loopback` for IPv4.
    pub map_host_loopback4: MapAddr<Ipv4Addr>,
    /// `--map-host-loopback` for IPv6.
    pub map_host_loopback6: MapAddr<Ipv6Addr>,
    /// `--map-guest-addr` for IPv4.
    pub map_guest4: Option<Ipv4Addr>,
    /// `--map-guest-addr` for IPv6.
    pub map_guest6: Option<Ipv6Addr>,
    /// `-D`.
    pub dns: DnsServers,
    /// `-S`: search list instead of the host's; empty after `-S none`.
    pub search: Option<Vec<String>>,
    /// `--dhcp-dns`: the guest is told of resolvers.
    pub advertise_dns: bool,
    /// `--dhcp-search`: the guest is told of the search list.
    pub advertise_search: bool,
    /// `--dns-forward` for IPv4.
    pub dns_forward4: Option<Ipv4Addr>,
    /// `--dns-forward` for IPv6.
    pub dns_forward6: Option<Ipv6Addr>,
    /// `--dns-host` for IPv4.
    pub dns_host4: Option<Ipv4Addr>,
    /// `--dns-host` for IPv6.
    pub dns_host6: Option<Ipv6Addr>,
    /// What is forwarded at all.
    pub protocols: Protocols,
    /// `--no-dhcp` was not given: DHCP is served.
    pub dhcp: bool,
    /// `--no-dhcpv6` was not given: DHCPv6 is served.
    pub dhcpv6: bool,
    /// Neighbour discovery is answered (`--no-ndp` and `--no-icmp` turn it off).
    pub ndp: bool,
    /// `--no-ra` was not given: router advertisements are sent where they make sense.
    pub ra: bool,
    /// `-t`: host to guest, TCP.
    pub tcp_in: ForwardSpec,
    /// `-u`: host to guest, UDP.
    pub udp_in: ForwardSpec,
    /// `-T`: namespace to host, TCP, spliced.
    pub tcp_out: ForwardSpec,
    /// `-U`: namespace to host, UDP, spliced.
    pub udp_out: ForwardSpec,
    /// `--no-splice`, `--host-lo-to-ns-lo`.
    pub inward: Inward,
    /// `--splice-only`: no tap device.
    pub splice_only: bool,
    /// `--offload`: the most that is asked for.
    pub offload: Offload,
    /// `--buffer-memory`: bytes for data of the guest that sockets do not take at once.
    pub buffer_memory: usize,
    /// `--runas`.
    pub runas: Option<RunAs>,
    /// `-P`, `--pid`.
    pub pid_file: Option<PathBuf>,
    /// `-l`: the file that messages go to instead of the system log.
    pub log_file: Option<PathBuf>,
    /// `--log-size`: bytes that it may have.
    pub log_size: u64,
    /// `--stats`: counters are printed, at most every so many seconds.
    pub stats: Option<u32>,
    /// `-p`: the file that frames are captured in.
    pub pcap: Option<PathBuf>,
    /// `--chroot-fallback`: where the root cannot be pivoted it is changed.
    pub chroot_fallback: bool,
    /// `--landlock-fallback`: where there can be no namespaces to isolate in, Landlock will do.
    pub landlock_fallback: bool,
}

/// What a command line without options asks for, on a host that has both address families.
impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Pasta,
            target: Target::Shell,
            one_off: false,
            userns: None,
            netns_only: false,
            foreground: false,
            verbosity: Verbosity::Info,
            config_net: false,
            copy_routes: true,
            copy_addrs: true,
            netns_quit: true,
            hostname: None,
            fqdn: None,
            ifname: None,
            v4: true,
            v6: true,
            addr4: None,
            prefix4: None,
            addr6: None,
            gateway4: None,
            gateway6: None,
            mtu: 65_520,
            our_mac: Mac::DEFAULT_OURS,
            ns_mac: None,
            template: None,
            outbound: Outbound::default(),
            freebind: false,
            map_gw: true,
            map_host_loopback4: MapAddr::Default,
            map_host_loopback6: MapAddr::Default,
            map_guest4: None,
            map_guest6: None,
            dns: DnsServers::default(),
            search: None,
            advertise_dns: false,
            advertise_search: false,
            dns_forward4: None,
            dns_forward6: None,
            dns_host4: None,
            dns_host6: None,
            protocols: Protocols::default(),
            dhcp: true,
            dhcpv6: true,
            ndp: true,
            ra: true,
            tcp_in: ForwardSpec::default(),
            udp_in: ForwardSpec::default(),
            tcp_out: ForwardSpec::default(),
            udp_out: ForwardSpec::default(),
            inward: Inward::default(),
            splice_only: false,
            offload: Offload::Udp,
            buffer_memory: BUFFER_MEMORY,
            runas: None,
            pid_file: None,
            log_file: None,
            log_size: LOG_SIZE,
            stats: None,
            pcap: None,
            chroot_fallback: false,
            landlock_fallback: false,
        }
    }
}
