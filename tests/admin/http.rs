//! Requests to the admin server, as bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::{PATIENCE, Program, wait_until};

/// Where the admin server of a program is, from what it says.
pub fn address(program: &Program) -> SocketAddr {
    program.wait_for_stderr("admin server listening");
    let said = program.stderr();
    let line = said.lines().find(|line| line.contains("admin server listening")).expect("the line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    line["fields"]["address"].as_str().expect("an address").parse().expect("an address")
}

/// A response: its status, its head, its body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends a request as it is and reads to the end.
pub fn send(address: SocketAddr, request: &str) -> Response {
    let mut stream = TcpStream::connect(address).expect("the admin server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    // What was sent in vain may be answered by a reset behind the response.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Response { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Asks for a path.
pub fn get(address: SocketAddr, path: &str) -> Response {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

/// The value of a sample, by its name and labels as they are written.
pub fn sample(address: SocketAddr, name: &str) -> Option<f64> {
    let metrics = get(address, "/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

/// Waits until a sample has a value.
pub fn wait_for_sample(address: SocketAddr, name: &str, is_right: impl Fn(f64) -> bool) {
    wait_until(name, || sample(address, name).is_some_and(&is_right));
}

/// Waits until it is ready, or not ready, and says what it says then.
pub fn wait_for_readiness(address: SocketAddr, ready: bool) -> String {
    let mut said = String::new();
    wait_until(if ready { "ready" } else { "not ready" }, || {
        let response = get(address, "/readyz?verbose");
        said = response.body;
        response.status == if ready { 200 } else { 503 }
    });
    said
}
