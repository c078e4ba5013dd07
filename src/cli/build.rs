//! Applies options one by one and checks what they say together.
//!
//! An option is checked when it is met, so that the first fault on the line is the one reported.
//! What depends on other options or on the host waits for [`Builder::finish`]: forwarding rules
//! (they need the address families), `--runas`, and the choice of the namespace.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

use super::lex::Event;
use super::options::Action;
use super::ports::{self, Context, Direction};
use super::runas::{CliEnv, runas};
use super::values;
use crate::config::{
    Config, DnsServers, GuestSocket, Inward, MapAddr, Mode, Proto, Protocols, Target, Verbosity,
};

/// Most `-D` addresses of one family; more are dropped, as resolvers do.
const DNS_MAX: usize = 3;

/// Most `-S` domains.
const SEARCH_MAX: usize = 6;

/// Smallest MTU for IPv4 (RFC 791, 3.2).
const MTU_MIN4: u16 = 68;

/// Smallest MTU for IPv6 (RFC 8200, 5).
const MTU_MIN6: u16 = 1280;

/// A command line in the making.
pub(super) struct Builder<'e> {
    env: &'e CliEnv,
    config: Config,
    warnings: Vec<String>,
    no_splice: bool,
    quiet: bool,
    debug: bool,
    trace: bool,
    /// Prefix length from `-a` for IPv4, with the text it came in.
    address_len: Option<(u8, String)>,
    /// `-n`, with its text.
    netmask: Option<(u8, String)>,
    netns: Option<PathBuf>,
    /// `-s` or `-F`, whichever came last.
    socket: GuestSocket,
    runas: Option<String>,
    /// `-t`, `-u`, `-T`, `-U` as written, in order.
    forwards: Vec<(Action, String)>,
}

impl<'e> Builder<'e> {
    pub(super) fn new(env: &'e CliEnv, mode: Mode) -> Self {
        // A namespace has the host's resolvers; a virtual machine has to be told.
        let tell = mode == Mode::Passt;
        let config = Config {
            mode,
            v6: env.ipv6,
            advertise_dns: tell,
            advertise_search: tell,
            ..Config::default()
        };
        Self {
            env,
            config,
            warnings: Vec::new(),
            // There is no loopback interface to splice to in a virtual machine.
            no_splice: tell,
            quiet: false,
            debug: false,
            trace: false,
            address_len: None,
            netmask: None,
            netns: None,
            socket: GuestSocket::Probe,
            runas: None,
            forwards: Vec::new(),
        }
    }

    /// Applies one working option.
    pub(super) fn apply(&mut self, event: &Event) -> Result<(), String> {
        let Event { option, value } = event;
        let config = &mut self.config;
        let text = || values::text(value);
        match option.action {
            // The caller has dealt with these.
            Action::NotYet
            | Action::Help
            | Action::Version
            | Action::VhostUser
            | Action::RepairPath => {}
            Action::Debug => (self.debug, self.quiet) = (true, false),
            Action::Trace => (self.debug, self.trace, self.quiet) = (true, true, false),
            Action::Quiet => (self.debug, self.trace, self.quiet) = (false, false, true),
            Action::Foreground => config.foreground = true,
            Action::Stderr => {
                self.warnings.push("option --stderr is deprecated and has no effect".to_string())
            }
            Action::RunAs => self.runas = Some(text()?.to_string()),
            Action::PidFile => config.pid_file = Some(values::path("--pid", value)?),
            Action::Mtu => config.mtu = values::mtu(text()?)?,
            Action::Address => self.address(text()?)?,
            Action::Netmask => {
                self.netmask = Some((values::netmask(text()?)?, text()?.to_string()));
                self.check_prefix()?;
            }
            Action::OurMac => config.our_mac = values::mac(text()?)?,
            Action::Gateway => match values::gateway(text()?)? {
                IpAddr::V4(a) => config.gateway4 = Some(a),
                IpAddr::V6(a) => config.gateway6 = Some(a),
            },
            Action::Outbound => match values::outbound(text()?)? {
                IpAddr::V4(a) => config.outbound.addr4 = Some(a),
                IpAddr::V6(a) => config.outbound.addr6 = Some(a),
            },
            Action::OutboundIf4 => config.outbound.if4 = Some(values::ifname(text()?)?),
            Action::OutboundIf6 => config.outbound.if6 = Some(values::ifname(text()?)?),
            Action::Freebind => config.freebind = true,
            Action::Template => config.template = Some(values::ifname(text()?)?),
            Action::Dns => self.dns(text()?)?,
            Action::DnsForward => match values::dns_forward(text()?)? {
                IpAddr::V4(a) => config.dns_forward4 = Some(a),
                IpAddr::V6(a) => config.dns_forward6 = Some(a),
            },
            Action::MapHostLoopback => self.map_host_loopback(text()?)?,
            Action::NoMapGw => config.map_gw = false,
            Action::Ipv4Only => (config.v4, config.v6) = (true, false),
            Action::Ipv6Only if !self.env.ipv6 => {
                return Err("option --ipv6-only: IPv6 is not available on this host".to_string());
            }
            Action::Ipv6Only => (config.v4, config.v6) = (false, true),
            Action::TcpIn | Action::UdpIn | Action::TcpOut | Action::UdpOut => {
                self.forwards.push((option.action, text()?.to_string()));
            }
            Action::Ifname => config.ifname = Some(values::ifname(text()?)?),
            Action::Offload => config.offload = values::offload(text()?)?,
            Action::BufferMemory => config.buffer_memory = values::buffer_memory(text()?)?,
            Action::NsMac => config.ns_mac = Some(values::mac(text()?)?),
            Action::ConfigNet => config.config_net = true,
            Action::Userns => {
                config.userns = Some(values::path("--userns", value)?);
                config.netns_only = false;
            }
            Action::Netns => self.netns = Some(values::netns(value)?),
            Action::NetnsOnly => {
                config.netns_only = true;
                config.userns = None;
            }
            Action::NoNetnsQuit => config.netns_quit = false,
            Action::NoCopyRoutes => config.copy_routes = false,
            Action::NoCopyAddrs => config.copy_addrs = false,
            Action::DnsHost => match values::dns_host(text()?)? {
                IpAddr::V4(a) => config.dns_host4 = Some(a),
                IpAddr::V6(a) => config.dns_host6 = Some(a),
            },
            Action::NoDhcpDns => config.advertise_dns = false,
            Action::DhcpDns => config.advertise_dns = true,
            Action::NoDhcpSearch => config.advertise_search = false,
            Action::DhcpSearch => config.advertise_search = true,
            Action::Hostname => config.hostname = Some(values::hostname(text()?)?),
            Action::Fqdn => config.fqdn = Some(values::fqdn(text()?)?),
            Action::Search => self.search(text()?)?,
            Action::MapGuestAddr => self.map_guest(text()?)?,
            Action::NoTcp => config.protocols.tcp = false,
            Action::NoUdp => config.protocols.udp = false,
            Action::NoSplice => self.no_splice = true,
            Action::HostLoToNsLo => config.inward = Inward::Loopback,
            Action::SpliceOnly => config.splice_only = true,
            Action::NoIcmp => (config.protocols.icmp, config.ndp) = (false, false),
            Action::NoNdp => config.ndp = false,
            Action::NoRa => config.ra = false,
            Action::NoDhcp => config.dhcp = false,
            Action::NoDhcpv6 => config.dhcpv6 = false,
            Action::Socket => self.socket = GuestSocket::Path(values::socket_path(value)?),
            Action::Fd => {
                values::descriptor(text()?)?;
                self.socket = GuestSocket::Inherited;
            }
            Action::OneOff => config.one_off = true,
            Action::LogFile => config.log_file = Some(values::path("--log-file", value)?),
            Action::LogSize => config.log_size = values::log_size(text()?)?,
            Action::Stats if !config.foreground => {
                return Err("option --stats needs --foreground before it".to_string());
            }
            Action::Stats => config.stats = Some(values::delay(text()?)?),
            Action::Pcap => config.pcap = Some(values::path("--pcap", value)?),
            Action::ChrootFallback => config.chroot_fallback = true,
            Action::LandlockFallback => config.landlock_fallback = true,
        }
        Ok(())
    }

    /// Checks the whole; `operands` are the arguments after the options.
    pub(super) fn finish(
        mut self,
        operands: Vec<OsString>,
    ) -> Result<(Config, Vec<String>), String> {
        self.target(operands)?;
        if let Some(text) = &self.runas {
            self.config.runas = Some(runas(text, self.env)?);
        }
        self.config.prefix4 =
            self.address_len.as_ref().or(self.netmask.as_ref()).map(|(bits, _)| *bits);
        self.config.verbosity = match (self.quiet, self.debug, self.trace) {
            (true, ..) => Verbosity::Quiet,
            (_, _, true) => Verbosity::Trace,
            (_, true, _) => Verbosity::Debug,
            _ => Verbosity::Info,
        };
        self.warn_mtu();
        self.copying()?;
        self.splicing()?;
        self.forward()?;
        Ok((self.config, self.warnings))
    }

    fn address(&mut self, text: &str) -> Result<(), String> {
        match values::guest_address(text)? {
            (IpAddr::V4(addr), len) => {
                self.config.addr4 = Some(addr);
                self.address_len = len.map(|len| (len, text.to_string()));
                self.check_prefix()?;
            }
            // The length is checked, but an IPv6 link always has 64 bits.
            (IpAddr::V6(addr), _) => self.config.addr6 = Some(addr),
        }
        Ok(())
    }

    fn check_prefix(&self) -> Result<(), String> {
        match (&self.address_len, &self.netmask) {
            (Some((_, address)), Some((_, mask))) => Err(format!(
                "redundant netmask '{mask}': address '{address}' has a prefix length already"
            )),
            _ => Ok(()),
        }
    }

    fn dns(&mut self, text: &str) -> Result<(), String> {
        let config = &mut self.config;
        if text == "none" {
            config.dns = DnsServers { none: true, servers: Vec::new() };
            (config.dns_forward4, config.dns_forward6) = (None, None);
            (config.dns_host4, config.dns_host6) = (None, None);
            return Ok(());
        }
        let addr = values::resolver(text)?;
        config.dns.none = false;
        let servers = &mut config.dns.servers;
        if servers.iter().filter(|s| s.is_ipv4() == addr.is_ipv4()).count() < DNS_MAX {
            servers.push(addr);
        }
        Ok(())
    }

    /// Adds to the list; `none` empties it.
    fn search(&mut self, text: &str) -> Result<(), String> {
        let list = self.config.search.get_or_insert_default();
        if text == "none" {
            list.clear();
            return Ok(());
        }
        for name in values::search(text)? {
            if list.len() == SEARCH_MAX {
                return Err(format!(
                    "too many search domains: '{name}' is one more than {SEARCH_MAX}"
                ));
            }
            list.push(name);
        }
        Ok(())
    }

    fn map_host_loopback(&mut self, text: &str) -> Result<(), String> {
        let config = &mut self.config;
        if text == "none" {
            config.map_host_loopback4 = MapAddr::None;
            config.map_host_loopback6 = MapAddr::None;
            config.map_gw = false;
            return Ok(());
        }
        match values::mapped("--map-host-loopback", text)? {
            IpAddr::V4(a) => config.map_host_loopback4 = MapAddr::Addr(a),
            IpAddr::V6(a) => config.map_host_loopback6 = MapAddr::Addr(a),
        }
        Ok(())
    }

    fn map_guest(&mut self, text: &str) -> Result<(), String> {
        let config = &mut self.config;
        if text == "none" {
            (config.map_guest4, config.map_guest6) = (None, None);
            return Ok(());
        }
        match values::mapped("--map-guest-addr", text)? {
            IpAddr::V4(a) => config.map_guest4 = Some(a),
            IpAddr::V6(a) => config.map_guest6 = Some(a),
        }
        Ok(())
    }

    /// What is copied, and options that choose it, mean something with `--config-net` only.
    fn copying(&mut self) -> Result<(), String> {
        let options = [
            (self.config.copy_routes, "--no-copy-routes", "--gateway"),
            (self.config.copy_addrs, "--no-copy-addrs", "--address"),
        ];
        for (_, option, instead) in options.into_iter().filter(|(copied, ..)| !copied) {
            if !self.config.config_net {
                return Err(format!("option {option} needs --config-net"));
            }
            self.warnings.push(format!("option {option} is deprecated: use {instead}"));
        }
        Ok(())
    }

    /// [SPLICE-3]
    fn splicing(&mut self) -> Result<(), String> {
        let config = &mut self.config;
        if config.splice_only {
            if self.no_splice {
                return Err("option --splice-only: not allowed with --no-splice".to_string());
            }
            // There is no link that any of this could go over.
            config.inward = Inward::Loopback;
            (config.protocols.icmp, config.ndp, config.ra) = (false, false, false);
            config.dns = DnsServers { none: true, servers: Vec::new() };
        }
        match (self.no_splice, config.inward) {
            (true, Inward::Loopback) => {
                Err("option --host-lo-to-ns-lo: not allowed with --no-splice".to_string())
            }
            (true, _) => {
                config.inward = Inward::Link;
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    /// Decides what to connect [CLI-9] [CLI-10] [CLI-11].
    fn target(&mut self, operands: Vec<OsString>) -> Result<(), String> {
        let config = &mut self.config;
        if config.mode == Mode::Passt {
            config.target = Target::Machine(self.socket.clone());
            return match operands.first() {
                Some(word) => Err(format!("unexpected argument {word:?}")),
                None => Ok(()),
            };
        }
        config.target = match (self.netns.take(), operands.as_slice()) {
            (Some(path), []) => Target::Netns(path),
            (Some(_), [word, ..]) => {
                return Err(format!("unexpected argument {word:?}: not allowed with --netns"));
            }
            (None, []) => Target::Shell,
            (None, [word]) => match pid(word)? {
                Some(pid) => Target::Pid(pid),
                None => Target::Command(operands),
            },
            (None, _) => Target::Command(operands),
        };
        match config.target {
            // The command owns the terminal, and its exit status is ours.
            Target::Command(_) | Target::Shell => config.foreground = true,
            _ => {}
        }
        Ok(())
    }

    /// The kernel gives no IPv6 address to an interface whose MTU is too small for IPv6: where we are
    /// to do that, and there is IPv4, we do without.
    fn warn_mtu(&mut self) {
        let Config { mtu, v4, v6, config_net, .. } = self.config;
        let without = v4 && config_net;
        let minima = [(v4, MTU_MIN4, "IPv4", ""), (v6, MTU_MIN6, "IPv6", ": IPv6 is off")];
        for (enabled, min, family, consequence) in minima {
            if enabled && mtu != 0 && mtu < min {
                let consequence = if without { consequence } else { "" };
                let text =
                    format!("MTU {mtu} is too small for {family} (minimum {min}){consequence}");
                self.warnings.push(text);
                self.config.v6 &= !(without && min == MTU_MIN6);
            }
        }
    }

    fn forward(&mut self) -> Result<(), String> {
        let config = &mut self.config;
        let auto = config.mode == Mode::Pasta;
        let context = Context { v4: config.v4, v6: config.v6, auto, ephemeral: self.env.ephemeral };
        let Protocols { tcp, udp, .. } = config.protocols;
        // [PORT-4] What is not mentioned at all follows the other side.
        let mut forwards = self.forwards.clone();
        for (action, enabled) in [
            (Action::TcpIn, tcp),
            (Action::UdpIn, udp),
            (Action::TcpOut, tcp),
            (Action::UdpOut, udp),
        ] {
            if auto && enabled && !forwards.iter().any(|(given, _)| *given == action) {
                forwards.push((action, "auto".to_string()));
            }
        }
        for (action, spec) in &forwards {
            let (short, proto, direction, into) = match action {
                Action::TcpIn => ("-t", Proto::Tcp, Direction::In, &mut config.tcp_in),
                Action::UdpIn => ("-u", Proto::Udp, Direction::In, &mut config.udp_in),
                Action::TcpOut => ("-T", Proto::Tcp, Direction::Out, &mut config.tcp_out),
                _ => ("-U", Proto::Udp, Direction::Out, &mut config.udp_out),
            };
            let in_option = |error| format!("{error}, in option '{short} {spec}'");
            ports::add(spec, proto, direction, context, into).map_err(in_option)?;
            into.options.resize(into.rules.len(), format!("{short} {spec}"));
            let enabled = if proto == Proto::Tcp { tcp } else { udp };
            if !enabled && !into.rules.is_empty() {
                return Err(in_option(format!("{proto} is not enabled")));
            }
        }
        ports::check_limits([&config.tcp_in, &config.udp_in])?;
        ports::check_limits([&config.tcp_out, &config.udp_out])
    }
}

/// A process id if the word is a decimal number.
fn pid(word: &OsStr) -> Result<Option<i32>, String> {
    let text = word.to_str().unwrap_or_default();
    let digits = text.trim_ascii_start();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match digits.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        _ => Err(format!("invalid PID '{text}': must be 1 to {}", i32::MAX)),
    }
}
