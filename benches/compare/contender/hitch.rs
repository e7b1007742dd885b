//! hitch, for the ingress: it only terminates TLS.

use std::path::Path;

use super::{CIPHER, Terms, Wiring, write};
use crate::Failure;
use crate::process::Launch;

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let certs = wiring.certs.join("ingress");
    let equal = match wiring.terms {
        Terms::Equal => format!("ecdh-curve = \"X25519\"\nciphersuites = \"{CIPHER}\""),
        Terms::Defaults => String::new(),
    };
    // It refuses to serve as root, and changes to this user once it has read its files.
    let user = if rustix::process::geteuid().is_root() { "user = \"nobody\"" } else { "" };
    let text = format!(
        "frontend = \"[127.0.0.1]:{from}\"
backend = \"[127.0.0.1]:{to}\"
pem-file = \"{certs}/tls.pem\"
tls-protos = TLSv1.3
client-verify = required
client-verify-ca = \"{certs}/ca.crt\"
workers = 1
backlog = 4096
daemon = off
quiet = on
syslog = off
{user}
{equal}
",
        from = wiring.ingress,
        to = wiring.backend,
        certs = certs.display()
    );
    let file = write(wiring, "hitch.conf", &text)?;
    let mut config = std::ffi::OsString::from("--config=");
    config.push(file);
    Ok(Launch::new(program, wiring.ingress).arg(config))
}
