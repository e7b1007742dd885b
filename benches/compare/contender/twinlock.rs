//! twinlock, as it is by default, on one worker.

use std::path::Path;

use super::{CIPHER, HOST, Terms, Wiring};
use crate::process::Launch;

pub fn egress(program: &Path, wiring: &Wiring<'_>) -> Launch {
    let launch = common(program, "egress", wiring, wiring.egress);
    launch.args(["--upstream", &format!("127.0.0.1:{}", wiring.upstream), "--sni", HOST])
}

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Launch {
    let launch = common(program, "ingress", wiring, wiring.ingress);
    launch.args(["--backend", &format!("127.0.0.1:{}", wiring.backend), "--host", HOST])
}

fn common(program: &Path, side: &str, wiring: &Wiring<'_>, port: u16) -> Launch {
    let launch = Launch::new(program, port)
        .args([side, "--workers", "1", "--listen", &format!("127.0.0.1:{port}"), "--credentials"])
        .arg(wiring.certs.join(side));
    match wiring.terms {
        Terms::Equal => launch.args(["--kx", "classical", "--cipher", CIPHER]),
        Terms::Defaults => launch,
    }
}
