//! How soon a new certificate is in use: by an event where there are events, at the next poll where there are none.

use rustls::ClientConfig;
use twinlock::clock;

use crate::mount::{Mount, wait_until_shown};
use crate::support::authority::{Authority, Identity, Leaf};
use crate::support::confined::without_inotify;
use crate::support::socket::Backend;
use crate::support::{Certs, HOST, Program, Reader, path, peer, watches};

const SWAPS: usize = 5;

/// A mounted secret, and what an ingress is to be told of it.
struct Stage {
    certs: Certs,
    root: Authority,
    mount: Mount,
    backend: Backend,
}

impl Stage {
    fn new() -> Self {
        let (certs, backend) = (Certs::mint(), Backend::echo());
        let root = Authority::of(&certs);
        let mount = Mount::new(certs.dir.path().join("mount"), &root, &Identity::of(&certs.ingress()));
        Self { certs, root, mount, backend }
    }

    fn arguments(&self, poll: &str) -> Vec<String> {
        let server = self.backend.address.to_string();
        let arguments = ["ingress", "--listen", "127.0.0.1:0", "--backend", &server, "--host", HOST];
        let more = ["--credentials", path(&self.mount.directory), "--credentials-poll", poll];
        arguments.into_iter().chain(more).map(str::to_owned).collect()
    }

    /// Swaps again and again, and waits each time until new handshakes are made with what is new.
    #[allow(clippy::print_stderr, reason = "figures for whoever asks for them with --nocapture")]
    fn swap(&mut self, ingress: &mut Program, config: &ClientConfig, how: &str) {
        let mut times = Vec::new();
        for _ in 0..SWAPS {
            let new = self.root.issue(&Leaf::server(&[HOST]));
            self.mount.update(&self.root, &new);
            let swapped = clock::now();
            wait_until_shown(ingress, config, &new);
            times.push(clock::now().duration_since(swapped).as_millis());
        }
        eprintln!("in use {times:?} ms after a swap, {how}");
        ingress.stop();
        assert_eq!(ingress.said("credential loaded"), SWAPS, "{}", ingress.stderr());
        assert_eq!(ingress.said("credential refused"), 0, "{}", ingress.stderr());
    }
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn a_swap_is_in_use_long_before_a_poll_is_due() {
    let mut stage = Stage::new();
    let mut ingress = Program::start(&borrowed(&stage.arguments("1h")));
    let config = peer::good_client_config(&stage.certs);
    stage.swap(&mut ingress, &config, "with a poll every hour");
}

#[test]
fn without_inotify_a_swap_is_in_use_at_the_next_poll() {
    let mut stage = Stage::new();
    let Some(mut command) = without_inotify(&borrowed(&stage.arguments("1s"))) else { return };
    command.args(["--log-format", "json"]);
    let mut ingress = Program::launch(command, Reader::Reads, Reader::Reads);
    ingress.wait_for_stderr("no inotify, changes are found by polling only");
    assert_eq!(watches(&ingress), 0);
    let config = peer::good_client_config(&stage.certs);
    stage.swap(&mut ingress, &config, "without inotify and with a poll every second");
}
