//! HAProxy: as a pair, as hitch's egress, and without TLS.

use std::path::Path;

use super::{CIPHER, HOST, Terms, Wiring, write};
use crate::Failure;
use crate::process::Launch;

/// Two descriptors a connection, and no more than a process may have here.
const MAXCONN: u32 = 9_980;
/// With TLS a buffer holds what one read of the library gives, a record; larger ones gain nothing.
const BUFFER: u32 = 32 * 1024;
const BUFFER_BULK: u32 = 64 * 1024;
/// Without TLS, what moves many bytes best.
const BUFFER_PLAIN_BULK: u32 = 256 * 1024;

pub fn egress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let certs = wiring.certs.join("egress");
    let reuse = if wiring.terms == Terms::Equal { "no-ssl-reuse" } else { "" };
    let server = format!(
        "ssl crt {certs}/tls.pem ca-file {certs}/ca.crt verify required verifyhost {HOST} sni str({HOST}) {reuse}",
        certs = certs.display()
    );
    let listen =
        format!("bind 127.0.0.1:{}\n  server ingress 127.0.0.1:{} {server}", wiring.egress, wiring.upstream);
    launch(
        program,
        wiring,
        "egress.cfg",
        wiring.egress,
        &listen,
        if wiring.bulk { BUFFER_BULK } else { BUFFER },
    )
}

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let certs = wiring.certs.join("ingress");
    let equal = if wiring.terms == Terms::Equal { "curves X25519 no-tls-tickets" } else { "" };
    let bind = format!(
        "bind 127.0.0.1:{} ssl crt {certs}/tls.pem ca-file {certs}/ca.crt verify required {equal}",
        wiring.ingress,
        certs = certs.display()
    );
    let listen = format!("{bind}\n  server backend 127.0.0.1:{}", wiring.backend);
    launch(
        program,
        wiring,
        "ingress.cfg",
        wiring.ingress,
        &listen,
        if wiring.bulk { BUFFER_BULK } else { BUFFER },
    )
}

pub fn plain_egress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    plain(program, wiring, "egress.cfg", wiring.egress, wiring.upstream)
}

pub fn plain_ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    plain(program, wiring, "ingress.cfg", wiring.ingress, wiring.backend)
}

fn plain(program: &Path, wiring: &Wiring<'_>, name: &str, from: u16, to: u16) -> Result<Launch, Failure> {
    let listen = format!("bind 127.0.0.1:{from}\n  server next 127.0.0.1:{to}");
    launch(program, wiring, name, from, &listen, if wiring.bulk { BUFFER_PLAIN_BULK } else { BUFFER })
}

fn launch(
    program: &Path,
    wiring: &Wiring<'_>,
    name: &str,
    port: u16,
    listen: &str,
    buffer: u32,
) -> Result<Launch, Failure> {
    let (cache, ciphers) = match wiring.terms {
        Terms::Equal => ("tune.ssl.cachesize 0", format!("-ciphersuites {CIPHER}")),
        Terms::Defaults => ("", String::new()),
    };
    let ciphers = if ciphers.is_empty() {
        String::new()
    } else {
        format!("  ssl-default-bind{ciphers}\n  ssl-default-server{ciphers}")
    };
    let text = format!(
        "global
  nbthread 1
  maxconn {MAXCONN}
  tune.bufsize {buffer}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
{ciphers}
  {cache}
defaults
  mode tcp
  maxconn {MAXCONN}
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen link
  {listen}
"
    );
    let file = write(wiring, name, &text)?;
    Ok(Launch::new(program, port).args(["-db", "-q", "-f"]).arg(file))
}
