//! OpenSSL as the peer: another implementation's idea of TLS, from either side.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::scene::{Refused, Scene};
use crate::support::socket::{Ending, attempt, echo};
use crate::support::{self, Certs, HOST, PATIENCE, Program};

/// `openssl ARGUMENTS`, its output line by line; ended with the test.
struct Openssl {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Openssl {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl starts");
        let input = child.stdin.take().expect("stdin");
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("stdout")), Box::new(child.stderr.take().expect("stderr"))];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // A test that has ended is not interested any more.
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, input, lines }
    }

    /// Waits for a line that contains a text.
    fn expect(&self, text: &str) -> String {
        let mut heard = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => heard.push(line),
                Err(error) => panic!("no {text:?} from openssl: {error}: {heard:?}"),
            }
        }
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(address: SocketAddr, certs: &Certs, version: &str, more: &[&str]) -> Openssl {
    let (address, credential) = (address.to_string(), certs.egress());
    let ca = credential.join("ca.crt");
    let mut arguments = vec!["s_client", "-connect", &address, "-servername", HOST, version];
    arguments.extend(["-CAfile", support::path(&ca), "-verify_return_error", "-verify_hostname", HOST]);
    arguments.extend(more);
    Openssl::start(&arguments)
}

const VERSIONS: [(&str, &str); 2] = [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")];

#[test]
fn openssl_is_served_as_a_client_in_both_versions() {
    if !support::has(&["openssl"]) {
        return;
    }
    let scene = Scene::new();
    let (certificate, key) = (scene.certs.egress().join("tls.crt"), scene.certs.egress().join("tls.key"));
    let identity = ["-cert", support::path(&certificate), "-key", support::path(&key)];
    for (flag, label) in VERSIONS {
        let mut openssl = client(scene.ingress.address, &scene.certs, flag, &identity);
        openssl.expect("Verify return code: 0 (ok)");
        writeln!(openssl.input, "hello from openssl").expect("written");
        openssl.expect("hello from openssl");
        drop(openssl);
        let record = scene.ingress.record();
        assert_eq!(record["downstream"]["tls"]["version"], label, "{record}");
        assert_eq!(record["bytes_received"], 19, "{record}");
    }
}

#[test]
fn openssl_without_a_certificate_is_refused_in_both_versions() {
    if !support::has(&["openssl"]) {
        return;
    }
    for (flag, _) in VERSIONS {
        let mut scene = Scene::new();
        let openssl = client(scene.ingress.address, &scene.certs, flag, &[]);
        openssl.expect("certificate required");
        drop(openssl);
        scene.assert_refused(&Refused { outcome: "no_certificate", detail: "found none", identity: None });
        scene.assert_nothing_else_recorded();
    }
}

/// A server that sends back each line reversed.
fn server(certs: &Certs, more: &[&str]) -> (Openssl, SocketAddr) {
    let credential = certs.ingress();
    let file = |name: &str| support::path(&credential.join(name)).to_owned();
    let (certificate, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    let mut arguments = vec!["s_server", "-accept", "127.0.0.1:0", "-cert", &certificate, "-key", &key];
    arguments.extend(["-CAfile", &ca, "-Verify", "1", "-verify_return_error", "-rev"]);
    arguments.extend(more);
    let openssl = Openssl::start(&arguments);
    let ready = openssl.expect("ACCEPT");
    let address = ready.split_whitespace().last().and_then(|address| address.parse().ok());
    (openssl, address.unwrap_or_else(|| panic!("no address in {ready:?}")))
}

#[test]
fn openssl_is_spoken_to_as_a_server_in_both_versions() {
    if !support::has(&["openssl"]) {
        return;
    }
    for (flag, label) in VERSIONS {
        let certs = Certs::mint();
        let (_openssl, address) = server(&certs, &[flag]);
        let egress = Program::egress(&certs, address, &[]);
        let mut client = support::socket::connect(egress.address);
        client.write_all(b"olleh\n").expect("written");
        support::socket::expect(&mut client, "hello\n");
        drop(client);
        let record = egress.record();
        assert_eq!(record["upstream"]["tls"]["version"], label, "{record}");
        assert_eq!(record["upstream"]["peer"]["identity"], HOST, "{record}");
    }
}

#[test]
fn a_refusal_by_openssl_after_the_handshake_resets_the_plaintext_client() {
    if !support::has(&["openssl"]) {
        return;
    }
    // Its CA file is another root's, so it refuses the certificate of our egress.
    let (ours, theirs) = (Certs::mint(), Certs::mint());
    let other_ca = theirs.ingress().join("ca.crt");
    let (_openssl, address) = server(&ours, &["-CAfile", support::path(&other_ca)]);
    let egress = Program::egress(&ours, address, &[]);
    assert_eq!(attempt(egress.address, b""), Ending::Reset);
    let record = egress.record();
    assert_eq!([&record["outcome"], &record["closed_by"]], ["alert_received", "upstream"], "{record}");
}

#[test]
fn openssl_can_renew_its_keys_in_mid_stream() {
    if !support::has(&["openssl"]) {
        return;
    }
    let scene = Scene::new();
    let (certificate, key) = (scene.certs.egress().join("tls.crt"), scene.certs.egress().join("tls.key"));
    let identity = ["-cert", support::path(&certificate), "-key", support::path(&key)];
    let mut renewing = client(scene.ingress.address, &scene.certs, "-tls1_3", &identity);
    renewing.expect("Verify return code: 0 (ok)");
    for text in ["before", "K", "after"] {
        writeln!(renewing.input, "{text}").expect("written");
        // A line that is this letter is a command, not data.
        renewing.expect(if text == "K" { "KEYUPDATE" } else { text });
    }
    let mut witness = scene.connect(support::peer::good_client_config(&scene.certs));
    echo(&mut witness, "nobody else noticed");
}

#[test]
fn keys_are_changed_on_a_connection_that_lasts_and_openssl_goes_on() {
    if !support::has(&["openssl"]) {
        return;
    }
    let certs = Certs::mint();
    let (openssl, address) = server(&certs, &["-msg"]);
    let egress = Program::egress(&certs, address, &["--rekey-after", "1s"]);
    let mut client = support::socket::connect(egress.address);
    for _ in 0..2 {
        openssl.expect("KeyUpdate");
        writeln!(client, "hello").expect("written");
        support::socket::expect(&mut client, "olleh\n");
    }
}
