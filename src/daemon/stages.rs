//! Start-up as a straight line of types.
//!
//! [`Parsed`] -> [`Resolved`] -> [`Opened`] -> [`Sandboxed`], each consuming the one before, so
//! that a step cannot be taken twice, skipped, or out of order. What each may still do is what
//! privileges remain: names of files are resolved by `Parsed` at the latest, sockets and the tap
//! are made by `Resolved`, and `Sandboxed` can only run.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use thiserror::Error;

use super::auto::{self, Auto};
use super::engine::{Engine, Lifeline, clock};
use super::network::{self, Network};
use super::ports::{self, BindError, Shares};
use super::stats::Stats;
use crate::config::{
    Config, ForwardSpec, GuestSocket, HostView, Inward, Lease, LeaseError, Offload, Target,
    Verbosity, summary,
};
use crate::event::Reactor;
use crate::flow::{MAX_FLOWS, Pool};
use crate::forward::GuestAddrs;
use crate::host::{Inside, Listeners, Net, OutboundError, Patience, Side, outbound};
use crate::link::{
    self, Guests, Link, NoLink, Pcap, SocketError, SocketFile, Stream, Tap, TapError, captured,
};
use crate::services::Offered;
use crate::sys::background::{self, Background, Null};
use crate::sys::factory::{self, Factory};
use crate::sys::ids::{self, Ids};
use crate::sys::logfile::LogFile;
use crate::sys::netlink::{self, Bound, Configured, Snapshot};
use crate::sys::pidfile::PidFile;
use crate::sys::sandbox::{Fallback, Run};
use crate::sys::signals::{Inherited, Signals};
use crate::sys::spawn::{self, Program, Waiting};
use crate::sys::watch::NetnsWatch;
use crate::sys::{self, caps, logsink, netns, sandbox, seccomp, userns};
use crate::translate::tcp::Timeouts;
use crate::translate::udp;
use crate::translate::{Setup, Translator};
use crate::wire::{Addr, Mac};

/// Where resolvers are found.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Name of the interface where neither option nor template names one.
const DEFAULT_IFNAME: &str = "tap0";

/// Leftovers the ready list has room for without growing: every flow, and the other sources.
const LEFTOVERS: usize = MAX_FLOWS + 128;

/// Why we could not start: the line the user sees.
#[derive(Debug, Error)]
pub(super) enum StartError {
    /// A step of isolation or namespace handling.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// The host's network.
    #[error(transparent)]
    Discover(#[from] netlink::DiscoverError),
    /// What the guest was to get.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The namespace's network.
    #[error(transparent)]
    Configure(#[from] netlink::ConfigureError),
    /// Where the guest's flows leave.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A forwarded port.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The tap device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The socket for guests.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Anything else.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
}

/// Starts, and runs to the end. `guest` is the descriptor that `--fd` names.
pub(super) fn run(
    config: Config,
    warnings: &[String],
    inherited: Inherited,
    guest: Option<OwnedFd>,
) -> Result<ExitCode, StartError> {
    Parsed::new(config, warnings, inherited, guest)?.resolve()?.open()?.isolate()?.run()
}

/// The command line is known and what it names exists. Still the user who started us.
struct Parsed {
    config: Config,
    inherited: Inherited,
    ids: Ids,
    program: Option<Program>,
    guest: Option<OwnedFd>,
    pid_file: Option<PidFile>,
    pcap: Option<Pcap>,
    null: Option<Null>,
    key: [u8; 16],
}

impl Parsed {
    fn new(
        config: Config,
        warnings: &[String],
        inherited: Inherited,
        guest: Option<OwnedFd>,
    ) -> Result<Self, StartError> {
        caps::reduce_initial()?;
        let file = config.log_file.as_ref();
        let file = file
            .map(|path| LogFile::create(path, config.log_size, config.mode.name()))
            .transpose()?;
        logsink::configure(config.mode, config.verbosity, has_command(&config), file);
        if config.foreground {
            logsink::identify(std::process::id());
        }
        for warning in warnings {
            log::warn!("{warning}");
        }
        let program = match &config.target {
            Target::Command(argv) => Some(Program::find(argv)?),
            Target::Shell => Some(Program::shell()?),
            Target::Pid(_) | Target::Netns(_) | Target::Machine(_) => None,
        };
        let ids = ids::resolve(config.runas)?;
        let mut key = [0; 16];
        File::open("/dev/urandom")
            .and_then(|mut f| f.read_exact(&mut key))
            .map_err(|e| StartError::Io("cannot read /dev/urandom", e))?;
        let null = if config.foreground { None } else { Some(Null::open()?) };
        let (pid_file, pcap) = (None, None);
        Ok(Self { config, inherited, ids, program, guest, pid_file, pcap, null, key })
    }

    /// Looks at the host and claims what only the starting user can.
    fn resolve(mut self) -> Result<Resolved, StartError> {
        // Before anything is looked at, so that no change is missed.
        let monitor = if self.config.splice_only { None } else { network::monitor() };
        let mut host = netlink::Socket::open()
            .map_err(|e| StartError::Io("cannot open a netlink socket", e))?;
        let view = netlink::discover(&mut host, &self.config, Path::new(RESOLV_CONF))?;
        let snapshot = netlink::snapshot(&mut host, &view)?;
        let ipv6 = Path::new("/proc/net/if_inet6").exists();
        let (lease, notices) = Lease::new(&self.config, &view, ipv6)?;
        for notice in notices {
            log::log!(notice.level, "{}", notice.text);
        }
        let network = monitor.map(|monitor| Network::new(monitor, &self.config, &view, &lease));
        let families = (lease.v4, lease.v6);
        outbound::check(&self.config.outbound, families, self.config.freebind)?;
        let mut listeners = Listeners::new(self.config.freebind);
        let shares = Shares::new(&self.config);
        let patience = Patience::at_start();
        for (n, spec) in [&self.config.tcp_in, &self.config.udp_in].into_iter().enumerate() {
            let share = shares.option(n);
            ports::open(&mut listeners, spec, Side::Host, families, share, patience)?;
        }
        let door = self.door()?;
        self.pcap = self.config.pcap.as_deref().and_then(capture);
        self.pid_file = self.config.pid_file.as_deref().map(PidFile::open).transpose()?;
        let limits = Limits::of_the_kernel();
        Ok(Resolved {
            parsed: self,
            view,
            snapshot,
            lease,
            limits,
            network,
            listeners,
            shares,
            door,
        })
    }

    /// Where a virtual machine will come from; `None` for a namespace.
    fn door(&mut self) -> Result<Option<Door>, StartError> {
        let Target::Machine(socket) = &self.config.target else { return Ok(None) };
        Ok(Some(match socket {
            GuestSocket::Probe => Door::Path(SocketFile::bind(None)?),
            GuestSocket::Path(path) => Door::Path(SocketFile::bind(Some(path))?),
            GuestSocket::Inherited => {
                let fd = self.guest.take().ok_or(SocketError::NotConnected)?;
                Door::Open(link::connected(fd)?)
            }
        }))
    }
}

/// True if a command of the user is to run, in our terminal.
fn has_command(config: &Config) -> bool {
    matches!(config.target, Target::Command(_) | Target::Shell)
}

/// The file for `--pcap`. What it is for works without, so that failure is told and no more.
fn capture(path: &Path) -> Option<Pcap> {
    match Pcap::create(path) {
        Ok(pcap) => {
            log::info!("capturing in {}", path.display());
            Some(pcap)
        }
        Err(e) => {
            log::warn!("cannot capture in {}: {e}", path.display());
            None
        }
    }
}

/// The host's network is known, and its ports are ours.
struct Resolved {
    parsed: Parsed,
    view: HostView,
    snapshot: Snapshot,
    lease: Lease,
    limits: Limits,
    network: Option<Network>,
    listeners: Listeners,
    shares: Shares,
    door: Option<Door>,
}

/// Where a virtual machine comes from.
enum Door {
    /// It will connect to this socket.
    Path(SocketFile),
    /// It is connected.
    Open(OwnedFd),
}

impl Resolved {
    /// Becomes the user we run as, enters or makes the namespaces, makes the link.
    fn open(mut self) -> Result<Opened, StartError> {
        self.parsed.ids.switch()?;
        match self.door.take() {
            Some(door) => self.open_machine(door),
            None => self.open_namespace(),
        }
    }

    /// A user namespace in which we are nobody; and guests may come.
    fn open_machine(self, door: Door) -> Result<Opened, StartError> {
        self.tell(None);
        let config = &self.parsed.config;
        match userns::create(None) {
            // Root may have the other namespaces without. If not, that is seen later.
            Err(error) if config.landlock_fallback => log::warn!("{}", error.fact()),
            created => created?,
        }
        caps::reduce_for_setup(fallback(config))?;
        let guests = match door {
            Door::Open(fd) => Guests::Connected(fd),
            Door::Path(file) => {
                let path = file.path().to_owned();
                let fd = file.listen()?;
                let probed = config.target == Target::Machine(GuestSocket::Probe);
                tell_how_to_connect(&path, probed);
                Guests::Listener(fd)
            }
        };
        Ok(Opened { base: self.base(), side: GuestSide::Machine(guests) })
    }

    fn open_namespace(mut self) -> Result<Opened, StartError> {
        let Parsed { config, ids, program, inherited, .. } = &self.parsed;
        let mut watch = None;
        match (&config.userns, &config.target) {
            (Some(path), _) => {
                userns::join(path)?;
            }
            (None, _) if config.netns_only => {}
            (None, Target::Pid(pid)) => {
                watch = Some(NetnsWatch::process(*pid)?);
                // Usually its own. But a process may have made more user namespaces since.
                if !userns::join_owner(&netns::open_pid_file(*pid)?)? {
                    userns::join_pid(*pid)?;
                }
            }
            (None, Target::Netns(path)) => {
                let file = netns::open_file(path)?;
                if !netns::may_enter(&file) {
                    userns::join_owner(&file)?;
                }
            }
            (None, Target::Command(_) | Target::Shell) => userns::create(Some(*ids))?,
            (None, Target::Machine(_)) => {}
        }
        let target = match (&config.target, program) {
            (Target::Pid(pid), _) => {
                if watch.is_none() {
                    watch = Some(NetnsWatch::process(*pid)?);
                }
                Netns::Joined(netns::open_pid(*pid)?)
            }
            (Target::Netns(path), _) => {
                let fd = netns::open_path(path)?;
                watch = Some(NetnsWatch::path(path)?);
                Netns::Joined(fd)
            }
            (_, Some(program)) => {
                let hostname = config.hostname.as_deref();
                Netns::Spawned(spawn::prepare(program, hostname, inherited)?)
            }
            (_, None) => return Err(sys::Error::Other("no command given".into()).into()),
        };
        let watch = watch.filter(|_| config.netns_quit);
        caps::reduce_for_setup(fallback(config))?;

        let ifname = self.ifname();
        self.tell((!config.splice_only).then_some(&ifname));
        let mut made = netns::run_in(target.fd(), || self.make_link(&ifname))
            .map_err(|e| StartError::Io("cannot enter the network namespace", e))??;
        self.lease.v4 &= made.configured.v4;
        self.lease.v6 &= made.configured.v6;
        self.listeners.append(std::mem::take(&mut made.listeners));
        let base = self.base();
        let Made { configured, tap, bound, .. } = made;
        let auto = Auto::new(&base.parsed.config, bound);
        let namespace = Namespace { configured, tap, netns: target, watch, auto, factory: None };
        Ok(Opened { base, side: GuestSide::Namespace(namespace) })
    }

    fn base(self) -> Base {
        let Self { parsed, lease, limits, network, listeners, .. } = self;
        Base { parsed, lease, limits, network, listeners }
    }

    /// Says what the guest's network looks like [CLI-15].
    fn tell(&self, ifname: Option<&str>) {
        let config = &self.parsed.config;
        if has_command(config) && config.verbosity < Verbosity::Debug {
            return;
        }
        for line in summary(config, &self.view, &self.lease, ifname) {
            log::info!("{line}");
        }
    }

    fn ifname(&self) -> String {
        let template = self.view.v4.as_ref().map(|f| &f.ifname);
        let template = template.or_else(|| self.view.v6.as_ref().map(|f| &f.ifname));
        self.parsed
            .config
            .ifname
            .as_ref()
            .or(template)
            .cloned()
            .unwrap_or_else(|| DEFAULT_IFNAME.to_owned())
    }

    /// Runs inside the target namespace.
    fn make_link(&self, ifname: &str) -> Result<Made, StartError> {
        let config = &self.parsed.config;
        let tap = if config.splice_only { None } else { Some(Tap::open(ifname, config.offload)?) };
        let mut socket = netlink::Socket::open()
            .map_err(|e| StartError::Io("cannot open a netlink socket in the namespace", e))?;
        let configured = netlink::configure(
            &mut socket,
            &self.snapshot,
            &self.lease,
            config,
            tap.as_ref().map(|_| ifname),
        )?;
        let families = (self.lease.v4, self.lease.v6);
        let (mut listeners, patience) = (Listeners::default(), Patience::at_start());
        for (n, spec) in [(2, &config.tcp_out), (3, &config.udp_out)] {
            let share = self.shares.option(n);
            ports::open(&mut listeners, spec, Side::Namespace, families, share, patience)?;
        }
        let bound = if Auto::is_needed(config) { auto::look() } else { None };
        Ok(Made { tap, configured, listeners, bound })
    }
}

/// Says how machines are started that connect [CLI-17] [CLI-18].
fn tell_how_to_connect(path: &Path, probed: bool) {
    let path = path.display();
    log::info!("virtual machines can connect to {path}");
    log::info!(
        "QEMU 7.2 or later: -device virtio-net-pci,netdev=s \
         -netdev stream,id=s,server=off,addr.type=unix,addr.path={path}"
    );
    // Elsewhere it does not look.
    if probed {
        log::info!(
            "earlier versions, by qrap: qrap 5 qemu-system-x86_64 ... \
             -net socket,fd=5 -net nic,model=virtio"
        );
    }
}

/// What was made inside the target namespace.
struct Made {
    tap: Option<Tap>,
    configured: Configured,
    listeners: Listeners,
    /// Tells which ports are bound in there.
    bound: Option<Bound>,
}

/// The target namespace, and how it came to us.
enum Netns {
    Spawned(Waiting),
    Joined(OwnedFd),
}

impl Netns {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Spawned(waiting) => waiting.netns(),
            Self::Joined(fd) => fd.as_fd(),
        }
    }
}

/// Everything that is ever opened is open.
struct Opened {
    base: Base,
    side: GuestSide,
}

/// What every link needs.
struct Base {
    parsed: Parsed,
    lease: Lease,
    limits: Limits,
    network: Option<Network>,
    listeners: Listeners,
}

/// What is at the other end of the link.
#[expect(clippy::large_enum_variant, reason = "there is one, and it is moved once")]
enum GuestSide {
    Namespace(Namespace),
    Machine(Guests),
}

/// A namespace with a tap device.
struct Namespace {
    configured: Configured,
    /// None if it is connected past the link alone.
    tap: Option<Tap>,
    netns: Netns,
    watch: Option<NetnsWatch>,
    auto: Option<Auto>,
    /// Makes sockets inside while we run.
    factory: Option<factory::Starting>,
}

impl Opened {
    /// Locks the door: own namespaces, empty root, no capabilities; goes to the background.
    fn isolate(mut self) -> Result<Sandboxed, StartError> {
        let parsed = &mut self.base.parsed;
        let background = !parsed.config.foreground;
        let fallback = fallback(&parsed.config);
        let signals = Signals::listen(background)?;
        if let GuestSide::Namespace(namespace) = &mut self.side
            && needs_factory(&parsed.config)
        {
            namespace.factory = Some(factory::start(namespace.netns.fd(), fallback)?);
        }
        let how = if background { Run::Background } else { Run::Foreground };
        sandbox::isolate(how, fallback)?;
        let pid_file = parsed.pid_file.take();
        let waits = match parsed.null.take() {
            Some(null) => Waits::Parent(background::detach(null, pid_file)?),
            None => Waits::File(pid_file),
        };
        Ok(Sandboxed { opened: self, signals, waits })
    }
}

/// What is done where a wall cannot be had.
fn fallback(config: &Config) -> Fallback {
    Fallback { chroot: config.chroot_fallback, landlock: config.landlock_fallback }
}

/// True if sockets inside the namespace may be wanted while we run.
fn needs_factory(config: &Config) -> bool {
    let Config { inward, tcp_in, udp_in, tcp_out, udp_out, .. } = config;
    let forwards = |spec: &ForwardSpec| !spec.rules.is_empty();
    (*inward != Inward::Link && [tcp_in, udp_in].into_iter().any(forwards))
        || [tcp_out, udp_out].into_iter().any(ForwardSpec::is_auto)
}

/// Nothing can be opened by name or gained any more.
struct Sandboxed {
    opened: Opened,
    signals: Signals,
    waits: Waits,
}

/// What waits for us to be ready.
enum Waits {
    /// In the background: the parent, which has the PID file, too.
    Parent(Background),
    /// In the foreground: perhaps a PID file.
    File(Option<PidFile>),
}

impl Sandboxed {
    /// Closes the last doors, lets those who wait go on, and serves.
    fn run(self) -> Result<ExitCode, StartError> {
        let Sandboxed { opened: Opened { mut base, side }, signals, waits } = self;
        match side {
            GuestSide::Namespace(mut n) => match (n.tap.take(), base.parsed.pcap.take()) {
                (Some(tap), None) => {
                    waits.serve(|| namespace_engine(base, n, (tap.rx, tap.tx), signals))
                }
                (Some(tap), Some(pcap)) => {
                    let link = captured((tap.rx, tap.tx), tap.offload, pcap);
                    waits.serve(|| namespace_engine(base, n, link, signals))
                }
                (None, _) => waits.serve(|| namespace_engine(base, n, NoLink::new(), signals)),
            },
            GuestSide::Machine(guests) => {
                let connected = matches!(guests, Guests::Connected(_));
                let (mut link, out) = Stream::new(guests, base.parsed.config.one_off);
                match base.parsed.pcap.take() {
                    None => waits.serve(|| machine_engine(base, (link, out), connected, signals)),
                    Some(pcap) => {
                        link.keep_apart();
                        let link = captured((link, out), Offload::None, pcap);
                        waits.serve(|| machine_engine(base, link, connected, signals))
                    }
                }
            }
        }
    }
}

impl Waits {
    fn serve<L: Link>(
        self,
        engine: impl FnOnce() -> Result<(Engine<L>, seccomp::Allow), StartError>,
    ) -> Result<ExitCode, StartError> {
        let sealed = || {
            let (engine, allow) = engine()?;
            sandbox::seal(allow)?;
            Ok(engine)
        };
        match self {
            Self::Parent(parent) => match sealed().and_then(Engine::begin) {
                Ok(engine) => {
                    parent.ready()?;
                    Ok(engine.run())
                }
                Err(e) => {
                    parent.fail(&sys::Error::Other(e.to_string()));
                    Err(e)
                }
            },
            Self::File(None) => Ok(sealed()?.begin()?.run()),
            Self::File(Some(mut file)) => {
                let engine = sealed()?;
                // Before the command starts, which may look for it.
                file.write(std::process::id())?;
                let engine = engine.begin()?;
                file.keep();
                Ok(engine.run())
            }
        }
    }
}

/// How patient the host is, where its kernel tells. Read while there is a `/proc` to read it from.
struct Limits {
    /// With connections of its own [TCP-23, TCP-72].
    tcp: Timeouts,
    /// With idle UDP flows: what connection tracking allows them, if the host has it [UDP-10].
    udp: udp::Timeouts,
}

impl Limits {
    fn of_the_kernel() -> Self {
        let ipv4 = |name| sys::sysctl::number(&format!("net/ipv4/{name}"));
        let tracking = |name| sys::sysctl::number(&format!("net/netfilter/nf_conntrack_{name}"));
        Self {
            tcp: Timeouts::new(
                ipv4("tcp_syn_retries"),
                ipv4("tcp_syn_linear_timeouts"),
                ipv4("tcp_rto_max_ms"),
            ),
            udp: udp::Timeouts::new(tracking("udp_timeout"), tracking("udp_timeout_stream")),
        }
    }
}

/// The running parts for a namespace.
fn namespace_engine<L: Link>(
    base: Base,
    namespace: Namespace,
    link: (L, L::Tx),
    signals: Signals,
) -> Result<(Engine<L>, seccomp::Allow), StartError> {
    let Namespace { configured, tap: _, netns, watch, auto, factory } = namespace;
    let factory = factory.map(factory::Starting::ready).transpose()?;
    let config_net = base.parsed.config.config_net;
    let who = Who {
        mac: configured.mac,
        addrs: configured.addrs,
        link_local: configured.link_local.map(Into::into),
    };
    let allow = seccomp::Allow {
        namespace: true,
        faccessat: watch.as_ref().is_some_and(NetnsWatch::looks),
        files: has_files(&base.parsed.config),
    };
    let life = Lifeline {
        waiting: match netns {
            Netns::Spawned(waiting) => Some(waiting),
            Netns::Joined(_) => None,
        },
        child: None,
        netns: watch,
    };
    let mut engine = engine(base, link, who, signals, life, factory)?;
    engine.auto = auto;
    if config_net && L::FRAMES {
        // Otherwise the interface is still down, and nobody is there to be asked.
        engine.translator.solicit_guest();
    }
    Ok((engine, allow))
}

/// True if files are written, which may have to be cut.
fn has_files(config: &Config) -> bool {
    config.log_file.is_some() || config.pcap.is_some()
}

/// The running parts for a virtual machine; `connected` if it is there already.
fn machine_engine<L: Link>(
    base: Base,
    link: (L, L::Tx),
    connected: bool,
    signals: Signals,
) -> Result<(Engine<L>, seccomp::Allow), StartError> {
    let allow =
        seccomp::Allow { files: has_files(&base.parsed.config), ..seccomp::Allow::default() };
    let who = Who { mac: Mac::BROADCAST, addrs: Vec::new(), link_local: None };
    let mut engine = engine(base, link, who, signals, Lifeline::default(), None)?;
    if connected {
        engine.translator.solicit_guest();
    }
    Ok((engine, allow))
}

/// What is known of the guest before it speaks.
struct Who {
    mac: Mac,
    addrs: Vec<IpAddr>,
    link_local: Option<Addr>,
}

/// Puts the running parts together.
fn engine<L: Link>(
    base: Base,
    (link, out): (L, L::Tx),
    who: Who,
    signals: Signals,
    life: Lifeline,
    factory: Option<Factory>,
) -> Result<Engine<L>, StartError> {
    let Base { parsed, lease, limits, network, listeners } = base;
    let config = parsed.config;
    let reactor =
        Reactor::new(LEFTOVERS).map_err(|e| StartError::Io("cannot create an event set", e))?;
    let registrar =
        || reactor.registrar().map_err(|e| StartError::Io("cannot share the event set", e));
    let mut guest =
        GuestAddrs::new(&lease, config.addr4.is_some(), config.addr6.is_some()).with(&who.addrs);
    if let Some(link_local) = who.link_local {
        guest.learn(link_local);
    }
    let pool = Pool::new(config.buffer_memory).map_err(|_| {
        StartError::Io("cannot reserve --buffer-memory", std::io::ErrorKind::OutOfMemory.into())
    })?;
    let setup = Setup {
        protocols: config.protocols,
        services: Offered {
            dhcp: config.dhcp,
            dhcpv6: config.dhcpv6,
            ndp: config.ndp,
            ra: config.ra && !config.config_net,
        },
        guest,
        linked: L::FRAMES,
        inward: if factory.is_some() { config.inward } else { Inward::Link },
        guest_mac: who.mac,
        key: parsed.key,
        flows: MAX_FLOWS,
        pool,
        timeouts: limits.tcp,
        idle: limits.udp,
        now: clock(),
        lease,
    };
    let inside = Inside::new(factory);
    let net = Net::new(registrar()?, setup.lease.scope6, inside, config.outbound, config.freebind);
    Ok(Engine {
        translator: Translator::new(setup, out, net),
        link,
        listeners,
        auto: None,
        network,
        registrar: registrar()?,
        reactor,
        signals,
        life,
        ask_at: 0,
        waiting: Vec::new(),
        stop: None,
        stats: config.stats.map(Stats::new),
        parked: Vec::new(),
    })
}
