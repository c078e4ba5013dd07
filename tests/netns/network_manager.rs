//! NetworkManager with its own DHCP clients, on a system bus of its own.
//!
//! It leaves tap devices to those who made them. So its interface is one end of a pair whose other
//! end is bridged to ours, as in a machine that has virtual ones in turn.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::dhcp_clients::{ALL, PATIENCE, check_traffic, mount_over};
use crate::lab::{Helper, Lab, REMOTE4, REMOTE6, SOON, eventually, output_within};

/// Lets everybody speak.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/>
<allow send_type="method_call"/><allow send_type="signal"/><allow send_destination="*"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>"#;

/// Nothing but the one interface, and no other service is asked for anything.
const CONFIG: &str = "[main]\nplugins=keyfile\ndhcp=internal\ndns=none\nrc-manager=unmanaged\n\
                      auth-polkit=false\nno-auto-default=*\n[keyfile]\npath=/run/nm/connections\n\
                      unmanaged-devices=except:interface-name:eth0\n";

const CONNECTION: &str = "[connection]\nid=wired\ntype=ethernet\ninterface-name=eth0\n\
                          [ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\naddr-gen-mode=eui64\n";

/// The answer of `nmcli` to one question.
fn nmcli(line: &str) -> String {
    output_within(Command::new("nmcli").args(line.split_whitespace()), PATIENCE).ok()
}

#[test]
fn network_manager() {
    // [DHCP-3] [DHCP-5] [DHCP6-3] [DHCP6-10] [NDP-6] Both families; once more after a release.
    Lab::run(|lab| {
        let guest = lab.guest_raw(lab.command(ALL));
        for line in [
            "link add br0 type bridge",
            "link add eth0 type veth peer name port0",
            "link set port0 master br0",
            "link set up0 master br0",
        ] {
            guest.run(&format!("ip {line}"));
        }
        for name in ["br0", "port0", "up0"] {
            guest.ns.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
            guest.run(&format!("ip link set {name} up"));
        }
        for dir in ["/run/dbus", "/run/nm/connections", "/run/nm/empty", "/run/NetworkManager"] {
            fs::create_dir_all(dir).unwrap();
        }
        mount_over("/var/lib/NetworkManager");
        // Otherwise it waits for udev.
        use nix::mount::{MsFlags, mount};
        mount(Some("lab"), "/sys", Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
        fs::write("/run/nm/bus.conf", BUS).unwrap();
        fs::write("/run/nm/nm.conf", CONFIG).unwrap();
        let connection = "/run/nm/connections/wired.nmconnection";
        fs::write(connection, CONNECTION).unwrap();
        fs::set_permissions(connection, fs::Permissions::from_mode(0o600)).unwrap();

        let mut bus = Command::new("dbus-daemon");
        bus.args(["--config-file=/run/nm/bus.conf", "--nofork", "--nopidfile"]);
        let bus = bus.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let _bus = Helper(bus.unwrap());
        eventually("system bus", SOON, || fs::exists("/run/dbus/system_bus_socket").unwrap());
        let _manager = guest.start(
            "NetworkManager -n --config=/run/nm/nm.conf --config-dir=/run/nm/empty \
             --system-config-dir=/run/nm/empty --intern-config=/run/nm/intern.conf \
             --state-file=/run/nm/state --pid-file=/run/nm/pid",
        );
        let check = || {
            let shown = || {
                let mut command = Command::new("nmcli");
                command.args(["-t", "-e", "no", "-f", "IP4,IP6,GENERAL", "device", "show", "eth0"]);
                output_within(&mut command, SOON).stdout
            };
            for wanted in [
                "IP4.ADDRESS[1]:10.9.0.2/24",
                "IP4.GATEWAY:10.9.0.1",
                "IP4.DNS[1]:10.9.0.53",
                "IP4.SEARCHES[1]:lab.example",
                "2001:db8:9::2/128",
                "IP6.GATEWAY:fe80::",
                "IP6.DNS[1]:2001:db8:9::53",
                "IP6.SEARCHES[1]:lab.example",
                "GENERAL.MTU:65520",
            ] {
                eventually(wanted, PATIENCE, || shown().contains(wanted));
            }
            check_traffic(lab, &guest, &[REMOTE4, REMOTE6]);
        };
        check();
        nmcli("-w 30 connection down wired");
        assert!(!guest.run("ip addr show dev eth0").contains("10.9.0.2"));
        nmcli("-w 30 connection up wired");
        check();
    });
}
