//! Web servers behind a forwarded port, past the link and through it: what they write in odd
//! pieces arrives whole, however the client reads.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::lab::{HOST4, Helper, Lab, SOON, at, eventually};
use crate::net::{connect, pattern, try_connect};
use crate::pasta::Guest;

const SIZE: usize = 5 << 20;

/// How the client goes about it.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// Reads as fast as it can.
    Fast,
    /// Reads a bit, then does something else.
    Slow,
    /// Says that it has nothing more to say.
    HalfClosed,
}

/// Fetches `/page` from the host's port 8080 or, if not `past_link`, from the remote host.
fn fetch(lab: &Lab, past_link: bool, how: Client) -> Vec<u8> {
    let mut stream = if past_link {
        connect(&lab.host(), at(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080))
    } else {
        connect(&lab.remote, at(HOST4, 8080))
    };
    stream.write_all(b"GET /page HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    if matches!(how, Client::HalfClosed) {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut got = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        if matches!(how, Client::Slow) {
            thread::sleep(Duration::from_millis(2));
        }
        match stream.read(&mut piece).unwrap() {
            0 => break,
            n => got.extend_from_slice(&piece[..n]),
        }
    }
    let end = got.windows(4).position(|w| w == b"\r\n\r\n").expect("a header");
    got.split_off(end + 4)
}

/// Node and nginx end an answer to a client that has half-closed early, sometimes.
const WHOLE: &[Client] = &[Client::Fast, Client::Slow];

/// Starts `server`, which is to serve the file `page` of `dir` as `/page` on port 80.
fn serves(lab: &Lab, clients: &[Client], server: impl Fn(&Guest, &Path) -> Command) {
    let guest = lab.guest("-t 8080:80 -u none -T none -U none");
    let dir = lab.fresh("www");
    fs::create_dir(&dir).unwrap();
    let page = pattern(SIZE);
    fs::write(dir.join("page"), &page).unwrap();
    let mut command = server(&guest, &dir);
    let _server = Helper(command.current_dir(&dir).stdout(Stdio::null()).spawn().unwrap());
    eventually("the server listens", SOON, || try_connect(&guest.ns, at(HOST4, 80)).is_ok());
    for past_link in [true, false] {
        for &how in clients {
            let got = fetch(lab, past_link, how);
            assert!(got == page, "{how:?}, past the link {past_link}: {} octets", got.len());
        }
    }
}

#[test]
fn python_in_odd_pieces() {
    // [SPLICE-8] [SPLICE-12] [SPLICE-15]
    const SCRIPT: &str = r"
import http.server, random
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = open('page', 'rb').read()
        self.send_response(200)
        self.end_headers()
        while page:
            n = random.choice((1, 7, 1449, 4096, 20000, 65537))
            self.wfile.write(page[:n])
            page = page[n:]
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        # That of http.server asks for our name, which takes its time without a resolver.
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = 'x', 80
Server(('', 80), Handler).serve_forever()
";
    Lab::run(|lab| {
        serves(lab, &[Client::Fast, Client::Slow, Client::HalfClosed], |guest, _| {
            let mut command = guest.command("python3");
            command.args(["-c", SCRIPT]);
            command
        });
    });
}

#[test]
fn node_in_odd_pieces() {
    const SCRIPT: &str = r"
const page = require('fs').readFileSync('page');
require('http').createServer((request, response) => {
    let at = 0;
    const more = () => {
        while (at < page.length) {
            const n = [1, 7, 1449, 4096, 20000, 65537][Math.floor(Math.random() * 6)];
            const ok = response.write(page.subarray(at, at + n));
            at += n;
            if (!ok) return response.once('drain', more);
        }
        response.end();
    };
    more();
}).listen(80, '0.0.0.0');
";
    Lab::run(|lab| {
        serves(lab, WHOLE, |guest, _| {
            let mut command = guest.command("node");
            command.args(["-e", SCRIPT]);
            command
        });
    });
}

#[test]
fn nginx_with_sendfile() {
    Lab::run(|lab| {
        serves(lab, WHOLE, |guest, dir| {
            let dir_name = dir.display();
            let config = format!(
                "user root root; daemon off; master_process off; pid {dir_name}/pid; error_log {dir_name}/errors;
             events {{ }}
             http {{ access_log off; sendfile on; client_body_temp_path {dir_name}/1;
             proxy_temp_path {dir_name}/2; fastcgi_temp_path {dir_name}/3;
             uwsgi_temp_path {dir_name}/4; scgi_temp_path {dir_name}/5;
             server {{ listen 80; root {dir_name}; }} }}"
            );
            fs::write(dir.join("conf"), config).unwrap();
            let mut command = guest.command("nginx");
            command
                .arg("-e")
                .arg(dir.join("errors"))
                .arg("-p")
                .arg(dir)
                .arg("-c")
                .arg(dir.join("conf"));
            command
        });
    });
}
