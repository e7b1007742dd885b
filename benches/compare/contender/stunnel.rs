//! stunnel: a thread a connection.

use std::path::Path;

use super::{CIPHER, HOST, Terms, Wiring, write};
use crate::Failure;
use crate::process::Launch;

pub fn egress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let service = format!(
        "client = yes\nverifyChain = yes\ncheckHost = {HOST}\nsni = {HOST}\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:{}",
        wiring.egress, wiring.upstream
    );
    launch(program, wiring, "egress", wiring.egress, &service)
}

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let service = format!(
        "verifyChain = yes\nrequireCert = yes\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:{}",
        wiring.ingress, wiring.backend
    );
    launch(program, wiring, "ingress", wiring.ingress, &service)
}

fn launch(
    program: &Path,
    wiring: &Wiring<'_>,
    side: &str,
    port: u16,
    service: &str,
) -> Result<Launch, Failure> {
    let equal = match wiring.terms {
        Terms::Equal => format!("curves = X25519\nciphersuites = {CIPHER}\nsessionResume = no"),
        Terms::Defaults => String::new(),
    };
    let text = format!(
        "foreground = yes
pid =
debug = crit
syslog = no
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[link]
sslVersion = TLSv1.3
cert = {certs}/tls.crt
key = {certs}/tls.key
CAfile = {certs}/ca.crt
TIMEOUTidle = 3600
{equal}
{service}
",
        certs = wiring.certs.join(side).display()
    );
    let file = write(wiring, &format!("{side}.conf"), &text)?;
    Ok(Launch::new(program, port).arg(file))
}
