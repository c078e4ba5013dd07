#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const BOTH: Context = Context { v4: true, v6: true, auto: true, ephemeral: Some((32768, 60999)) };

fn rules(specs: &[&str]) -> Result<Vec<String>, String> {
    let mut into = ForwardSpec::default();
    for spec in specs {
        add(spec, Proto::Tcp, Direction::In, BOTH, &mut into)?;
    }
    Ok(into.rules.iter().map(quoted).collect())
}

// [PORT-1] [CLI-6] [COMPAT-17] [COMPAT-18]
#[test]
fn accepted() {
    for (spec, expected) in [
        ("none", &[][..]),
        ("22", &["TCP [*]:22  =>  22"][..]),
        ("+22", &["TCP [*]:22  =>  22"]),
        (" 22", &["TCP [*]:22  =>  22"]),
        ("8080:80", &["TCP [*]:8080  =>  80"]),
        ("8080-8080:80-80", &["TCP [*]:8080  =>  80"]),
        ("8000-8010", &["TCP [*]:8000-8010  =>  8000-8010"]),
        ("9000-9002:9100-9102", &["TCP [*]:9000-9002  =>  9100-9102"]),
        ("1-65535", &["TCP [*]:1-65535  =>  1-65535"]),
        ("22,80:8080", &["TCP [*]:22  =>  22", "TCP [*]:80  =>  8080"]),
        ("127.0.0.1/8080", &["TCP [127.0.0.1]:8080  =>  8080"]),
        ("[127.0.0.1]/2280", &["TCP [127.0.0.1]:2280  =>  2280"]),
        ("::ffff:127.0.0.1/2280", &["TCP [127.0.0.1]:2280  =>  2280"]),
        ("[::1]/8080", &["TCP [::1]:8080  =>  8080"]),
        ("::1/8080:80", &["TCP [::1]:8080  =>  80"]),
        ("::/80", &["TCP [::]:80  =>  80"]),
        ("fd00::2/80", &["TCP [fd00::2]:80  =>  80"]),
        ("*/8080", &["TCP [*]:8080  =>  8080"]),
        ("/2280", &["TCP [*]:2280  =>  2280"]),
    ] {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(rules(&[spec]), Ok(expected), "{spec:?}");
    }
}

// [PORT-3]
#[test]
fn invalid() {
    let number = "a port must be a decimal number, a range two of them with '-' between";
    let (most, order) = ("a port must be 1 to 65535", "a range must begin with its lowest port");
    let same = "ranges must have the same length";
    let target = "a target must be PORTS, ADDRESS or ADDRESS/PORTS";
    let form = "must be [ADDRESS][%INTERFACE]/PORTS, with one address for all ports";
    let (empty, alone) = ("a part between commas is empty", "'none' must stand alone");
    for (spec, quoted, rule) in [
        ("", "", "no ports are named"),
        ("192.0.2.10/", "", "no ports are named"),
        ("22-", "22-", number),
        ("127.0.0.1/22-", "22-", number),
        ("2280x", "2280x", number),
        ("2280,", "2280,", empty),
        (",2280", ",2280", empty),
        ("22:22:22", "22:22:22", target),
        ("none,22", "none,22", alone),
        ("22,none", "22,none", alone),
        ("127.0.0.1/none", "none", alone),
        ("5-3", "5-3", order),
        ("65536", "65536", most),
        ("22:65536", "22:65536", most),
        ("22-23:65535-65536", "22-23:65535-65536", most),
        ("[*]/2280", "[*]/2280", form),
        ("%/22", "%/22", form),
        ("22:23-24", "22:23-24", same),
        ("22-23:65535", "22-23:65535", same),
        ("0.0.0.0/22-23:192.0.2.2/65535", "22-23:192.0.2.2/65535", same),
        ("0.0.0.0/22:nowhere/22", "22:nowhere/22", target),
        ("10001,192.0.2.2/10002", "10001,192.0.2.2/10002", form),
        ("8080/tcp", "8080/tcp", form),
        ("22:", "22:", number),
        ("-22", "-22", number),
        ("~", "~", number),
        ("~9-8", "~9-8", order),
        ("99999999999999999999999", "99999999999999999999999", number),
        ("all:80", "all:80", "'all' can have another address, but no other ports"),
        ("auto:80", "auto:80", "'auto' can have no target"),
    ] {
        assert_eq!(rules(&[spec]), Err(format!("invalid port specifier '{quoted}': {rule}")));
    }
    for (spec, text) in [
        ("0", "invalid port specifier '0': cannot map from port 0"),
        ("0-5", "invalid port specifier '0-5': cannot map from port 0"),
        ("22:0", "invalid port specifier '22:0': cannot map to port 0"),
        ("%./22", "invalid interface name '.': not a name an interface can have"),
        (
            "%abcdefghijklmnop/22",
            "invalid interface name 'abcdefghijklmnop': must be 1 to 15 bytes",
        ),
    ] {
        assert_eq!(rules(&[spec]), Err(text.to_string()));
    }
}

// [PORT-1] [PORT-2] [FWD-13] The rest of the grammar, and what its parts mean together.
#[test]
fn ranges_exclusions_and_targets() {
    let all = [
        "TCP [*]:1-32767  =>  1-32767  (best effort)",
        "TCP [*]:61000-65535  =>  61000-65535  (best effort)",
    ];
    for (spec, expected) in [
        ("all", &all[..]),
        ("~1-65535", &[]),
        (
            "~22,~100-65535",
            &["TCP [*]:1-21  =>  1-21  (best effort)", "TCP [*]:23-99  =>  23-99  (best effort)"],
        ),
        ("*/~22-65535", &["TCP [*]:1-21  =>  1-21  (best effort)"]),
        ("20-25:30-35,~22-23", &["TCP [*]:20-21  =>  30-31", "TCP [*]:24-25  =>  34-35"]),
        ("~22-23,20-25", &["TCP [*]:20-21  =>  20-21", "TCP [*]:24-25  =>  24-25"]),
        ("all,33000", &["TCP [*]:33000  =>  33000", all[0], all[1]]),
        (
            "all,80:8080,~100-65535",
            &[
                "TCP [*]:80  =>  8080",
                "TCP [*]:1-79  =>  1-79  (best effort)",
                "TCP [*]:81-99  =>  81-99  (best effort)",
            ],
        ),
        ("8080:80,auto", &["TCP [*]:8080  =>  80  (auto-scan)"]),
        ("auto,~3-65535", &["TCP [*]:1-2  =>  1-2  (best effort) (auto-scan)"]),
        ("%eth0/80", &["TCP [*]%eth0:80  =>  80"]),
        ("*%eth0/80", &["TCP [*]%eth0:80  =>  80"]),
        ("fe80::2%eth0/80", &["TCP [fe80::2]%eth0:80  =>  80"]),
        ("192.0.2.1%eth0/80:81", &["TCP [192.0.2.1]%eth0:80  =>  81"]),
        ("0.0.0.0/80:192.0.2.5", &["TCP [0.0.0.0]:80  =>  192.0.2.5:80"]),
        ("0.0.0.0/80:192.0.2.5/81", &["TCP [0.0.0.0]:80  =>  192.0.2.5:81"]),
        ("[::]/80-81:[fd00::2]/90-91", &["TCP [::]:80-81  =>  [fd00::2]:90-91"]),
        ("[::]/80:fd00::2", &["TCP [::]:80  =>  [fd00::2]:80"]),
        (
            "0.0.0.0/all:192.0.2.5,~4-65535",
            &["TCP [0.0.0.0]:1-3  =>  192.0.2.5:1-3  (best effort)"],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(rules(&[spec]), Ok(expected), "{spec:?}");
    }
    let other = Context { ephemeral: None, ..BOTH };
    let mut into = ForwardSpec::default();
    add("all", Proto::Udp, Direction::In, other, &mut into).unwrap();
    assert_eq!(into.rules.len(), 1);
    assert_eq!(quoted(&into.rules[0]), "UDP [*]:1-49151  =>  1-49151  (best effort)");
}

// [PORT-3] [FWD-11]
#[test]
fn targets_and_modes_that_cannot_be() {
    for (spec, text) in [
        (
            "2280:192.0.2.5",
            "forwarding rule 'TCP [*]:2280  =>  192.0.2.5:2280': a target address needs one \
             family to listen on: write '0.0.0.0/...' or",
        ),
        (
            "2280:[fd00::2]",
            "forwarding rule 'TCP [*]:2280  =>  [fd00::2]:2280': a target address needs one \
             family to listen on: write '[::]/...'",
        ),
        (
            "0.0.0.0/2280:[2001:db8::5]/6000",
            "forwarding rule 'TCP [0.0.0.0]:2280  =>  [2001:db8::5]:6000': listening and target \
             address are of different families",
        ),
        (
            "0.0.0.0/2280:224.0.0.1",
            "forwarding rule 'TCP [0.0.0.0]:2280  =>  224.0.0.1:2280': target is a multicast \
             address",
        ),
        (
            "0.0.0.0/2280:255.255.255.255",
            "forwarding rule 'TCP [0.0.0.0]:2280  =>  255.255.255.255:2280': target is the \
             broadcast address",
        ),
    ] {
        let text = text.strip_suffix(" or").unwrap_or(text);
        assert_eq!(rules(&[spec]), Err(text.to_string()));
    }
    let mut into = ForwardSpec::default();
    assert_eq!(
        add("22,auto", Proto::Tcp, Direction::In, Context { auto: false, ..BOTH }, &mut into),
        Err("port specifier '22,auto': 'auto' is for pasta mode only".to_string())
    );
    assert_eq!(
        add("22:192.0.2.1", Proto::Tcp, Direction::Out, BOTH, &mut into),
        Err("forwarding rule 'TCP [*]%lo:22  =>  192.0.2.1:22': target address not allowed here"
            .to_string())
    );
    let v4 = Context { v6: false, ..BOTH };
    add("22:192.0.2.1", Proto::Tcp, Direction::In, v4, &mut into).unwrap();
    assert_eq!(quoted(&into.rules[0]), "TCP [0.0.0.0]:22  =>  192.0.2.1:22");
}

// [FWD-12] [PORT-3] [PORT-7] Overlaps quote both rules; separate addresses are no overlap.
#[test]
fn conflicts() {
    for (specs, a, b) in [
        (&["2280,2280"][..], "[*]:2280  =>  2280", "[*]:2280  =>  2280"),
        (&["80", "127.0.0.1/80"], "[127.0.0.1]:80  =>  80", "[*]:80  =>  80"),
        (&["0.0.0.0/80:1", "127.0.0.1/80"], "[127.0.0.1]:80  =>  80", "[0.0.0.0]:80  =>  1"),
        (&["[::]/80", "::1/80"], "[::1]:80  =>  80", "[::]:80  =>  80"),
        (&["10-20", "15"], "[*]:15  =>  15", "[*]:10-20  =>  10-20"),
        (&["%a/80", "80"], "[*]:80  =>  80", "[*]%a:80  =>  80"),
        (&["%a/80", "192.0.2.1%a/80"], "[192.0.2.1]%a:80  =>  80", "[*]%a:80  =>  80"),
        (&["all", "8888"], "[*]:8888  =>  8888", "[*]:1-32767  =>  1-32767  (best effort)"),
        (&["20", "10-20"], "[*]:10-20  =>  10-20", "[*]:20  =>  20"),
    ] {
        let text = format!("forwarding rule 'TCP {a}' conflicts with 'TCP {b}'");
        assert_eq!(rules(specs), Err(text));
    }
    for specs in [
        &["0.0.0.0/80", "[::]/80"][..],
        &["127.0.0.1/80", "127.0.0.2/80"],
        &["10-20", "21"],
        &["%a/80", "%b/80"],
        &["all", "40000"],
        &["none", "80"],
    ] {
        assert!(rules(specs).is_ok(), "{specs:?}");
    }
    assert_eq!(
        rules(&["80", "none"]),
        Err("'none' conflicts with earlier rule 'TCP [*]:80  =>  80'".to_string())
    );
}

// [CLI-6] `-T` and `-U` take no listening address, not even an empty one.
#[test]
fn outbound() {
    for spec in ["/2280", "*/2280", "127.0.0.1/2280"] {
        let mut into = ForwardSpec::default();
        let error = add(spec, Proto::Udp, Direction::Out, BOTH, &mut into).unwrap_err();
        assert!(error.contains("listening address not allowed"), "{error}");
    }
    let mut into = ForwardSpec::default();
    add("80:81", Proto::Udp, Direction::Out, BOTH, &mut into).unwrap();
    assert_eq!(quoted(&into.rules[0]), "UDP [*]%lo:80  =>  81");
}

// [CLI-7] [COMPAT-20] A single family has its own wildcard; the other one's address is refused.
#[test]
fn families() {
    let one = |spec, v4| {
        let mut into = ForwardSpec::default();
        add(spec, Proto::Tcp, Direction::In, Context { v4, v6: !v4, ..BOTH }, &mut into)
            .map(|()| quoted(&into.rules[0]))
    };
    assert_eq!(one("80", true), Ok("TCP [0.0.0.0]:80  =>  80".to_string()));
    assert_eq!(one("*/80", false), Ok("TCP [::]:80  =>  80".to_string()));
    assert_eq!(
        one("::1/80", true),
        Err("forwarding rule 'TCP [::1]:80  =>  80': IPv6 is not enabled".to_string())
    );
    assert_eq!(
        one("127.0.0.1/80", false),
        Err("forwarding rule 'TCP [127.0.0.1]:80  =>  80': IPv4 is not enabled".to_string())
    );
}

// [CLI-7] Table limits.
#[test]
fn limits() {
    let filled = |specs: Vec<String>| {
        let mut into = ForwardSpec::default();
        for spec in specs {
            add(&spec, Proto::Tcp, Direction::In, BOTH, &mut into).unwrap();
        }
        into
    };
    let most = filled((1..=255).map(|p| p.to_string()).collect());
    let one = filled(vec!["1000".to_string()]);
    assert!(check_limits([&most, &ForwardSpec::default()]).is_ok());
    assert!(check_limits([&most, &one]).unwrap_err().contains("255"));
    let all = |n| filled((1..=n).map(|i| format!("127.0.0.{i}/1-65535")).collect());
    assert!(check_limits([&all(4), &ForwardSpec::default()]).is_ok());
    assert!(check_limits([&all(5), &one]).is_ok());
    assert!(check_limits([&all(6), &one]).unwrap_err().contains("327680"));
}

fn range() -> impl Strategy<Value = Range> {
    (any::<u16>(), 0u16..100).prop_map(|(first, n)| Range { first, last: first.saturating_add(n) })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let addr = any::<IpAddr>().prop_map(|addr| addr.to_canonical());
    let to = any::<Option<u16>>();
    prop_oneof![
        prop::option::of(addr.clone()).prop_map(Chunk::All),
        Just(Chunk::Auto),
        range().prop_map(Chunk::Except),
        (range(), prop::option::of(addr), to).prop_map(|(from, addr, to)| {
            let to = to
                .filter(|to| to.checked_add(from.extra()).is_some())
                .map(|first| Range { first, last: first + from.extra() });
            Chunk::Ports { from, addr, to }
        }),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let listen = (any::<Option<IpAddr>>(), prop::option::of("[a-z][a-z0-9.:-]{0,14}"))
        .prop_map(|(addr, interface)| Listen { addr: addr.map(|a| a.to_canonical()), interface });
    let ports = (prop::option::of(listen), prop::collection::vec(chunk(), 1..5))
        .prop_map(|(listen, chunks)| Spec::Ports { listen, chunks });
    prop_oneof![1 => Just(Spec::None), 9 => ports]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::In), Just(Direction::Out)]
}

proptest! {
    // [PORT-1]
    #[test]
    fn what_is_printed_parses_to_the_same(spec in spec()) {
        let text = spec.to_string();
        prop_assert_eq!(Spec::parse(&text), Ok(spec), "{}", text);
    }

    // Nothing a user types makes the parser panic or accept a rule that is not one.
    #[test]
    fn any_text(
        spec in prop_oneof![any::<String>(), "[0-9:,/~%.*\\[\\]a-f +-]{0,24}"],
        direction in direction(),
        v4 in any::<bool>(),
    ) {
        let mut into = ForwardSpec::default();
        let context = Context { v4, v6: !v4, ..BOTH };
        if add(&spec, Proto::Tcp, direction, context, &mut into).is_ok() {
            for rule in &into.rules {
                prop_assert!(rule.first >= 1 && rule.first <= rule.last && rule.to_first >= 1);
                prop_assert!(rule.to_first.checked_add(rule.last - rule.first).is_some());
            }
        }
    }

    // [CLI-16] What a rule prints is what was asked for.
    #[test]
    fn printed_rule_matches_the_specifier(
        first in 1u16..=65535,
        len in 0u16..100,
        to in 1u16..=65535,
        addr in any::<Option<IpAddr>>(),
    ) {
        let (Some(last), Some(to_last)) = (first.checked_add(len), to.checked_add(len)) else {
            return Ok(());
        };
        let (listen, shown) = match addr {
            Some(addr) => (format!("[{addr}]/"), addr.to_canonical().to_string()),
            None => (String::new(), "*".to_string()),
        };
        let printed = rules(&[&format!("{listen}{first}-{last}:{to}-{to_last}")]).unwrap();
        let expected = if len == 0 {
            format!("TCP [{shown}]:{first}  =>  {to}")
        } else {
            format!("TCP [{shown}]:{first}-{last}  =>  {to}-{to_last}")
        };
        prop_assert_eq!(printed, vec![expected]);
    }
}
