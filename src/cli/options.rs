//! The option table: the one definition behind the parser, the help text and the refusals.
//!
//! Every option of both modes is listed, also those that do nothing yet: they must be recognised
//! (and take their argument) so that the refusal names them and nothing is mistaken for a command
//! [CLI-2]. An option without help text is left out of `--help`. Where an option means something
//! else for a virtual machine, or has another default there, it has two texts.

use crate::config::Mode;

/// What an option makes [`super::build::Builder`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Known by name, refused.
    NotYet,
    Help,
    Version,
    Debug,
    Trace,
    Quiet,
    Foreground,
    Stderr,
    RunAs,
    PidFile,
    Mtu,
    Address,
    Netmask,
    OurMac,
    Gateway,
    Template,
    Dns,
    DnsForward,
    MapHostLoopback,
    NoMapGw,
    Ipv4Only,
    Ipv6Only,
    TcpIn,
    UdpIn,
    TcpOut,
    UdpOut,
    Ifname,
    NsMac,
    Offload,
    BufferMemory,
    ConfigNet,
    Userns,
    Netns,
    NetnsOnly,
    NoNetnsQuit,
    NoCopyRoutes,
    NoCopyAddrs,
    DnsHost,
    NoDhcpDns,
    DhcpDns,
    NoDhcpSearch,
    DhcpSearch,
    Hostname,
    Fqdn,
    Search,
    MapGuestAddr,
    Outbound,
    OutboundIf4,
    OutboundIf6,
    Freebind,
    NoTcp,
    NoUdp,
    NoIcmp,
    NoSplice,
    HostLoToNsLo,
    SpliceOnly,
    NoDhcp,
    NoNdp,
    NoDhcpv6,
    NoRa,
    Socket,
    /// The descriptor itself is read before all this, by [`super::guest_fd`].
    Fd,
    OneOff,
    /// `none` is what is done without it, in every mode; anything else needs vhost-user.
    RepairPath,
    /// Chooses the mode, before any other option is looked at [CLI-1].
    VhostUser,
    LogFile,
    LogSize,
    Stats,
    Pcap,
    ChrootFallback,
    LandlockFallback,
}

/// The modes an option is meant for; in the other one it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modes {
    Both,
    Pasta,
    Passt,
}

impl Modes {
    pub(super) fn include(self, mode: Mode) -> bool {
        match self {
            Self::Both => true,
            Self::Pasta => mode == Mode::Pasta,
            Self::Passt => mode == Mode::Passt,
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) alias: Option<&'static str>,
    pub(super) short: Option<char>,
    /// Name of the argument in the help text; `None` for a flag.
    pub(super) value: Option<&'static str>,
    pub(super) modes: Modes,
    pub(super) action: Action,
    /// Text for `--help`, default included; empty to leave the option out.
    help: &'static str,
    /// The same for passt, where it differs.
    machine: Option<&'static str>,
}

impl Opt {
    const fn flag(long: &'static str) -> Self {
        Self {
            long,
            alias: None,
            short: None,
            value: None,
            modes: Modes::Both,
            action: Action::NotYet,
            help: "",
            machine: None,
        }
    }

    const fn with(long: &'static str, value: &'static str) -> Self {
        Self { value: Some(value), ..Self::flag(long) }
    }

    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn alias(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    const fn pasta(self) -> Self {
        Self { modes: Modes::Pasta, ..self }
    }

    const fn passt(self) -> Self {
        Self { modes: Modes::Passt, ..self }
    }

    const fn does(self, action: Action, help: &'static str) -> Self {
        Self { action, help, ..self }
    }

    const fn machine(self, help: &'static str) -> Self {
        Self { machine: Some(help), ..self }
    }

    /// What `--help` says about it; empty if that leaves it out.
    pub(super) fn help(&self, mode: Mode) -> &'static str {
        match mode {
            _ if !self.modes.include(mode) => "",
            Mode::Pasta => self.help,
            Mode::Passt => self.machine.unwrap_or(self.help),
        }
    }
}

/// All options, by heading of the help text.
pub(super) static SECTIONS: &[(&str, &[Opt])] = &[
    ("General", GENERAL),
    ("Namespace", NAMESPACE),
    ("Addresses and routes", ADDRESSES),
    ("Name resolution", NAMES),
    ("Reaching the host", HOST),
    ("Port forwarding", FORWARDING),
    ("Protocols", PROTOCOLS),
    ("Virtual machines", MACHINES),
];

/// All options in one sequence.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    SECTIONS.iter().flat_map(|(_, options)| options.iter())
}

const GENERAL: &[Opt] = &[
    Opt::flag("help").short('h').does(Action::Help, "Print this text and exit"),
    Opt::flag("version").does(Action::Version, "Print the version and exit"),
    Opt::flag("foreground")
        .short('f')
        .does(
            Action::Foreground,
            "Stay in the foreground\n[default: off, but on when a command is started]",
        )
        .machine("Stay in the foreground [default: off]"),
    Opt::flag("quiet")
        .short('q')
        .does(Action::Quiet, "Print warnings and errors only\n[default: off]"),
    Opt::flag("debug").short('d').does(Action::Debug, "Print debug messages [default: off]"),
    Opt::flag("trace")
        .does(Action::Trace, "Print a line per event and packet, implies --debug\n[default: off]"),
    Opt::flag("stderr").short('e').does(Action::Stderr, ""),
    Opt::with("runas", "UID[:GID]").does(
        Action::RunAs,
        "User and group, by number or name, to run as when\nstarted as root [default: nobody]",
    ),
    Opt::with("pid", "FILE")
        .short('P')
        .does(Action::PidFile, "Write the process id to FILE [default: none]"),
    Opt::with("buffer-memory", "SIZE")
        .does(
            Action::BufferMemory,
            "Memory for what the namespace sent and sockets of\n\
             the host do not take, 1M to 1G [default: 64M]",
        )
        .machine(
            "Memory for what the guest sent and sockets of the\n\
             host do not take, 1M to 1G [default: 64M]",
        ),
    Opt::with("log-file", "FILE")
        .short('l')
        .does(Action::LogFile, "Log to FILE [default: the system log]"),
    Opt::with("log-size", "BYTES").does(
        Action::LogSize,
        "Largest size of the log file, from 40960 on. The\n\
         oldest messages go [default: 1048576]",
    ),
    Opt::with("pcap", "FILE")
        .short('p')
        .does(Action::Pcap, "Capture what crosses the link in FILE\n[default: none]"),
    Opt::with("stats", "DELAY").does(
        Action::Stats,
        "Print counters of events, at most every DELAY\n\
         seconds; needs --foreground before it\n[default: off]",
    ),
    Opt::with("conf-path", "PATH").short('c'),
    Opt::flag("chroot-fallback").does(
        Action::ChrootFallback,
        "Isolate by chroot(2) where pivot_root(2) fails, as\n\
         in an initramfs [default: off]",
    ),
    Opt::flag("landlock-fallback").does(
        Action::LandlockFallback,
        "Isolate by Landlock where unshare(2) fails, as in\n\
         some containers [default: off]",
    ),
];

const NAMESPACE: &[Opt] = &[
    Opt::with("netns", "PATH|NAME").pasta().does(
        Action::Netns,
        "Network namespace to connect; NAME is /run/netns/NAME\n[default: a new one]",
    ),
    Opt::with("userns", "PATH").pasta().does(
        Action::Userns,
        "User namespace to join [default: the one that owns\n\
             the network namespace, where that is needed]",
    ),
    Opt::flag("netns-only")
        .pasta()
        .does(Action::NetnsOnly, "Join no user namespace [default: off]"),
    Opt::flag("config-net")
        .pasta()
        .does(Action::ConfigNet, "Configure the interface in the namespace\n[default: off]"),
    Opt::with("ns-ifname", "NAME").short('I').pasta().does(
        Action::Ifname,
        "Name of the interface in the namespace\n[default: that of the host's interface, or tap0]",
    ),
    Opt::with("ns-mac-addr", "MAC")
        .pasta()
        .does(Action::NsMac, "MAC address of the interface in the namespace\n[default: random]"),
    Opt::with("offload", "LEVEL").pasta().does(
        Action::Offload,
        "Most that the link leaves to the kernel, to find\n\
         faults: segmentation of UDP and TCP (udp), of TCP\n\
         (tcp), nothing (none) [default: udp]",
    ),
    Opt::flag("no-netns-quit")
        .pasta()
        .does(Action::NoNetnsQuit, "Stay when the namespace joined is gone [default: off]"),
    Opt::flag("no-copy-routes").pasta().does(Action::NoCopyRoutes, ""),
    Opt::flag("no-copy-addrs").pasta().does(Action::NoCopyAddrs, ""),
];

const ADDRESSES: &[Opt] = &[
    Opt::flag("ipv4-only")
        .short('4')
        .does(Action::Ipv4Only, "Use IPv4 only [default: IPv4 and IPv6]"),
    Opt::flag("ipv6-only")
        .short('6')
        .does(Action::Ipv6Only, "Use IPv6 only [default: IPv4 and IPv6]"),
    Opt::with("interface", "NAME").short('i').does(
        Action::Template,
        "Host interface to take addresses and routes from\n\
         [default: that of the first default route]",
    ),
    Opt::with("address", "ADDR[/LEN]").short('a').does(
        Action::Address,
        "Address to assign, once for each of IPv4 and IPv6\n\
         [default: that of the host's interface]",
    ),
    Opt::with("netmask", "MASK").short('n').does(
        Action::Netmask,
        "IPv4 netmask, dotted or as a number of bits\n[default: that of the host's address]",
    ),
    Opt::with("gateway", "ADDR").short('g').does(
        Action::Gateway,
        "Default gateway, once for each of IPv4 and IPv6\n[default: that of the host]",
    ),
    Opt::with("mtu", "MTU")
        .short('m')
        .does(Action::Mtu, "MTU to assign, 0 to assign none [default: 65520]"),
    Opt::with("mac-addr", "MAC").short('M').does(
        Action::OurMac,
        "MAC address of the gateway as seen on the link\n[default: 9a:55:9a:55:9a:55]",
    ),
    Opt::with("outbound", "ADDR").short('o').does(
        Action::Outbound,
        "Source address of what leaves the host, once for\n\
         each of IPv4 and IPv6\n[default: the kernel's choice]",
    ),
    Opt::with("outbound-if4", "NAME").does(
        Action::OutboundIf4,
        "Host interface by which IPv4 leaves. Without\n\
         -i addresses and routes are taken from it, too\n\
         [default: the kernel's choice]",
    ),
    Opt::with("outbound-if6", "NAME")
        .does(Action::OutboundIf6, "Likewise for IPv6 [default: the kernel's choice]"),
];

const NAMES: &[Opt] = &[
    Opt::with("dns", "ADDR|none").short('D').does(
        Action::Dns,
        "Resolver to advertise, up to three for each of IPv4\n\
         and IPv6, or none\n[default: those of /etc/resolv.conf]",
    ),
    Opt::with("dns-forward", "ADDR").does(
        Action::DnsForward,
        "Forward queries sent to ADDR to the host's resolver,\n\
         once for each of IPv4 and IPv6 [default: none]",
    ),
    Opt::with("dns-host", "ADDR").does(
        Action::DnsHost,
        "Resolver that queries are forwarded to, once for\n\
         each of IPv4 and IPv6\n[default: the first of /etc/resolv.conf]",
    ),
    Opt::with("search", "NAME|none").short('S').does(
        Action::Search,
        "Search domain to advertise, up to six times, or none\n\
         [default: those of /etc/resolv.conf]",
    ),
    Opt::flag("no-dhcp-dns").does(Action::NoDhcpDns, "").machine(
        "Do not advertise resolvers, neither by DHCP and\n\
         DHCPv6 nor in router advertisements [default: off]",
    ),
    Opt::flag("dhcp-dns").pasta().does(
        Action::DhcpDns,
        "Advertise resolvers by DHCP, DHCPv6 and in router\n\
         advertisements [default: off]",
    ),
    Opt::flag("no-dhcp-search").does(Action::NoDhcpSearch, "").machine(
        "Do not advertise the search list, neither by DHCP\n\
         and DHCPv6 nor in router advertisements\n[default: off]",
    ),
    Opt::flag("dhcp-search").pasta().does(
        Action::DhcpSearch,
        "Advertise the search list by DHCP and DHCPv6, and\n\
         with --dhcp-dns in router advertisements\n[default: off]",
    ),
    Opt::with("hostname", "NAME")
        .short('H')
        .does(
            Action::Hostname,
            "Host name that a command or shell started by us sees\n\
             and DHCP gives\n\
             [default: pasta- and the host's; none by DHCP]",
        )
        .machine("Host name that DHCP gives [default: none]"),
    Opt::with("fqdn", "NAME")
        .does(Action::Fqdn, "Fully qualified name that DHCP and DHCPv6 give\n[default: none]"),
];

const HOST: &[Opt] = &[
    Opt::with("map-host-loopback", "ADDR|none").does(
        Action::MapHostLoopback,
        "Address for the host's loopback address,\n\
         once for each of IPv4 and IPv6, or none\n[default: the gateway]",
    ),
    Opt::flag("no-map-gw")
        .does(Action::NoMapGw, "Do not map the gateway to the host\n[default: off]"),
    Opt::with("map-guest-addr", "ADDR|none")
        .does(
            Action::MapGuestAddr,
            "Address for the host's own address that\n\
             the namespace has too, once for each of\n\
             IPv4 and IPv6, or none [default: none]",
        )
        .machine(
            "Address for the host's own address that\n\
             the guest has too, once for each of IPv4\n\
             and IPv6, or none [default: none]",
        ),
];

const FORWARDING: &[Opt] = &[
    Opt::with("tcp-ports", "SPEC")
        .short('t')
        .does(Action::TcpIn, "Forward TCP ports of the host to the namespace\n[default: auto]")
        .machine("Forward TCP ports of the host to the guest\n[default: none]"),
    Opt::with("udp-ports", "SPEC")
        .short('u')
        .does(Action::UdpIn, "Forward UDP ports of the host to the namespace\n[default: auto]")
        .machine("Forward UDP ports of the host to the guest\n[default: none]"),
    Opt::with("tcp-ns", "SPEC")
        .short('T')
        .pasta()
        .does(Action::TcpOut, "Forward TCP ports of the namespace to the host\n[default: auto]"),
    Opt::with("udp-ns", "SPEC")
        .short('U')
        .pasta()
        .does(Action::UdpOut, "Forward UDP ports of the namespace to the host\n[default: auto]"),
    Opt::flag("freebind").does(
        Action::Freebind,
        "Allow forwarded ports (and --outbound) on addresses\n\
         that the host does not have yet [default: off]",
    ),
    // Nothing can go past the link to a virtual machine.
    Opt::flag("no-splice")
        .does(
            Action::NoSplice,
            "Send what comes from the host's loopback interface\nthrough the link, too [default: off]",
        )
        .machine(""),
    Opt::flag("splice-only").pasta().does(
        Action::SpliceOnly,
        "Connect the loopback interfaces of namespace and host\n\
         and nothing else: no interface in the namespace\n[default: off]",
    ),
    Opt::flag("host-lo-to-ns-lo").pasta().does(
        Action::HostLoToNsLo,
        "Forward from the host's loopback addresses to those\n\
         of the namespace, not to its other address\n[default: off]",
    ),
];

const PROTOCOLS: &[Opt] = &[
    Opt::flag("no-tcp").does(Action::NoTcp, "Do not forward TCP [default: off]"),
    Opt::flag("no-udp").does(Action::NoUdp, "Do not forward UDP [default: off]"),
    Opt::flag("no-icmp")
        .does(Action::NoIcmp, "Do not forward ICMP echo, implies --no-ndp\n[default: off]"),
    Opt::flag("no-dhcp").does(Action::NoDhcp, "Do not serve DHCP [default: off]"),
    Opt::flag("no-ndp")
        .does(Action::NoNdp, "Do not answer neighbour discovery, implies --no-ra\n[default: off]"),
    Opt::flag("no-dhcpv6").does(Action::NoDhcpv6, "Do not serve DHCPv6 [default: off]"),
    Opt::flag("no-ra")
        .does(
            Action::NoRa,
            "Do not send router advertisements\n[default: off; implied by --config-net]",
        )
        .machine("Do not send router advertisements [default: off]"),
];

const MACHINES: &[Opt] = &[
    Opt::with("socket", "PATH").alias("socket-path").short('s').passt().does(
        Action::Socket,
        "Socket that virtual machines connect to\n\
         [default: the first free one of\n\
         /tmp/passt_1.socket to /tmp/passt_99.socket]",
    ),
    Opt::with("fd", "FD").short('F').passt().does(
        Action::Fd,
        "Serve the virtual machine at the other end of the\n\
         open descriptor FD, implies --one-off\n[default: none]",
    ),
    Opt::flag("vhost-user").does(Action::VhostUser, ""),
    Opt::flag("print-capabilities"),
    Opt::with("repair-path", "PATH").does(Action::RepairPath, ""),
    Opt::flag("migrate-exit").passt(),
    Opt::flag("migrate-no-linger").passt(),
    Opt::flag("one-off")
        .short('1')
        .passt()
        .does(Action::OneOff, "End with the first virtual machine [default: off]"),
];
