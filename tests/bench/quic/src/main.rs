//! One stream of a bulk transfer over QUIC, and how fast it was.
//!
//! ```text
//! quicbench server PORT              serves for ever, on all addresses
//! quicbench out ADDRESS:PORT SECS    sends to the server, which counts
//! quicbench in ADDRESS:PORT SECS     the other way
//! ```
//!
//! A client prints `gbps N lost% N batch N`: what the receiver got of the stream in the SECS seconds after its first
//! byte, packets that the sender thinks were lost, and datagrams per system call of the sender (`UDP_SEGMENT`; 1 where
//! that is not to be had).
//!
//! A client says on a first stream, as text, what is to be done; the bulk is on a second one, in one direction; and the
//! server answers on the first one. quinn is used as it comes, with larger socket buffers, which is what QUIC programs
//! ask for. Certificates are made on the spot, and nobody looks at them.

use std::error::Error;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream,
    ServerConfig, TokioRuntime,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Asked for in both directions; the kernel gives what its limits allow.
const SOCKET_BUFFER: usize = 4 << 20;

/// Longest first line either side sends.
const LINE: usize = 256;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        match words[..] {
            ["server", port] => serve(port.parse()?).await,
            [way @ ("out" | "in"), to, secs] => client(way, to.parse()?, secs.parse()?).await,
            _ => Err("usage: quicbench server PORT | out ADDRESS:PORT SECS | in ADDRESS:PORT SECS"
                .into()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("quicbench: {e}");
            ExitCode::FAILURE
        }
    }
}

// --- both sides ---

fn endpoint(at: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind(at)?;
    let state = quinn::udp::UdpSocketState::new((&socket).into())?;
    state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER)?;
    state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?)
}

/// Sends until the other side has enough.
async fn send(mut stream: SendStream) {
    let block = vec![0x5a; 1 << 16];
    while stream.write_all(&block).await.is_ok() {}
}

/// Receives for so long from the first byte on; bytes.
async fn receive(mut stream: RecvStream, time: Duration) -> Result<u64> {
    let mut bytes = 0;
    let mut end = None;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        let now = Instant::now();
        if now >= *end.get_or_insert(now + time) {
            break;
        }
        bytes += chunk.bytes.len() as u64;
    }
    let _ = stream.stop(0u32.into());
    Ok(bytes)
}

/// What a sender knows at the end: the percentage of packets lost, and datagrams per call.
fn losses(connection: &Connection) -> String {
    let stats = connection.stats();
    // A probe for the path's MTU is lost if the MTU is smaller, and says nothing.
    let (lost, sent) = (stats.path.lost_packets, stats.path.sent_packets.max(1));
    let batch = stats.udp_tx.datagrams as f64 / stats.udp_tx.ios.max(1) as f64;
    format!("lost% {:.2} batch {batch:.1}", 100.0 * lost as f64 / sent as f64)
}

// --- client ---

async fn client(way: &str, to: SocketAddr, secs: f64) -> Result<()> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(ring::default_provider())))
        .with_no_client_auth();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = endpoint(any.parse()?, None)?;
    let limit = Duration::from_secs_f64(secs + 10.0);
    let connection =
        tokio::time::timeout(limit, endpoint.connect_with(config, to, "bench")?).await??;
    let line = tokio::time::timeout(limit, transfer(&connection, way, secs)).await??;
    println!("{line}");
    connection.close(0u32.into(), b"");
    let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    Ok(())
}

async fn transfer(connection: &Connection, way: &str, secs: f64) -> Result<String> {
    let (mut tell, mut answer) = connection.open_bi().await?;
    tell.write_all(format!("{way} {secs}").as_bytes()).await?;
    tell.finish()?;
    let counted = if way == "out" {
        send(connection.open_uni().await?).await;
        None
    } else {
        Some(receive(connection.accept_uni().await?, Duration::from_secs_f64(secs)).await?)
    };
    let said = String::from_utf8(answer.read_to_end(LINE).await?)?;
    let (bytes, losses) = match counted {
        None => (said.parse::<u64>()?, losses(connection)),
        Some(bytes) => (bytes, said),
    };
    Ok(format!("gbps {:.3} {losses}", bytes as f64 * 8e-9 / secs))
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

// --- server ---

async fn serve(port: u16) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["bench".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = endpoint((Ipv6Addr::UNSPECIFIED, port).into(), Some(config))?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async {
            if let Err(e) = answer(incoming).await {
                eprintln!("quicbench: {e}");
            }
        });
    }
    Ok(())
}

async fn answer(incoming: Incoming) -> Result<()> {
    let connection = incoming.await?;
    let (mut tell, mut asked) = connection.accept_bi().await?;
    let asked = String::from_utf8(asked.read_to_end(LINE).await?)?;
    let (way, secs) = asked.split_once(' ').ok_or("what is to be done?")?;
    let time = Duration::try_from_secs_f64(secs.parse()?)?;
    let said = if way == "out" {
        receive(connection.accept_uni().await?, time).await?.to_string()
    } else {
        send(connection.open_uni().await?).await;
        losses(&connection)
    };
    tell.write_all(said.as_bytes()).await?;
    tell.finish()?;
    connection.closed().await;
    Ok(())
}
