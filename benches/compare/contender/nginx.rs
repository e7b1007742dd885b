//! nginx with its stream module.

use std::path::Path;

use super::{CIPHER, HOST, Terms, Wiring, write};
use crate::Failure;
use crate::process::Launch;

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub fn egress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let certs = wiring.certs.join("egress");
    let equal = match wiring.terms {
        Terms::Equal => {
            format!("proxy_ssl_session_reuse off;\n    proxy_ssl_conf_command Ciphersuites {CIPHER};")
        }
        Terms::Defaults => String::new(),
    };
    let server = format!(
        "listen 127.0.0.1:{from} backlog=4096;
    proxy_pass 127.0.0.1:{to};
    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_certificate {certs}/tls.crt;
    proxy_ssl_certificate_key {certs}/tls.key;
    proxy_ssl_trusted_certificate {certs}/ca.crt;
    proxy_ssl_verify on;
    proxy_ssl_name {HOST};
    proxy_ssl_server_name on;
    {equal}",
        from = wiring.egress,
        to = wiring.upstream,
        certs = certs.display()
    );
    launch(program, wiring, "egress", wiring.egress, &server)
}

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let certs = wiring.certs.join("ingress");
    let equal = match wiring.terms {
        Terms::Equal => format!(
            "ssl_ecdh_curve X25519;\n    ssl_session_tickets off;\n    ssl_conf_command Ciphersuites {CIPHER};"
        ),
        Terms::Defaults => String::new(),
    };
    let server = format!(
        "listen 127.0.0.1:{from} ssl backlog=4096;
    proxy_pass 127.0.0.1:{to};
    ssl_protocols TLSv1.3;
    ssl_certificate {certs}/tls.crt;
    ssl_certificate_key {certs}/tls.key;
    ssl_client_certificate {certs}/ca.crt;
    ssl_verify_client on;
    {equal}",
        from = wiring.ingress,
        to = wiring.backend,
        certs = certs.display()
    );
    launch(program, wiring, "ingress", wiring.ingress, &server)
}

fn launch(
    program: &Path,
    wiring: &Wiring<'_>,
    side: &str,
    port: u16,
    server: &str,
) -> Result<Launch, Failure> {
    let module = if Path::new(MODULE).exists() { format!("load_module {MODULE};\n") } else { String::new() };
    let buffer = if wiring.bulk { "64k" } else { "16k" };
    let text = format!(
        "{module}daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/{side}.pid;
error_log stderr crit;
events {{
  worker_connections 20000;
  multi_accept on;
}}
stream {{
  proxy_timeout 1h;
  proxy_connect_timeout 10s;
  proxy_buffer_size {buffer};
  server {{
    {server}
  }}
}}
",
        directory = wiring.directory.display()
    );
    let file = write(wiring, &format!("{side}.conf"), &text)?;
    Ok(Launch::new(program, port).args(["-e", "stderr", "-p"]).arg(wiring.directory).arg("-c").arg(file))
}
