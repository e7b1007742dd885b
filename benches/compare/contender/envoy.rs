//! Envoy, with a static configuration, on one worker.
//!
//! The cipher suites of its TLS 1.3 cannot be chosen: BoringSSL takes AES-128-GCM where the processor has AES.

use std::path::Path;

use serde_json::{Value, json};

use super::{HOST, Terms, Wiring, write};
use crate::Failure;
use crate::process::Launch;

/// By default no more than 1,024 connections to an upstream are made.
const CONNECTIONS_MAX: u32 = 1_000_000;
const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

pub fn egress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let mut tls = json!({
        "@type": UPSTREAM_TLS,
        "sni": HOST,
        "common_tls_context": common(wiring, "egress", &json!({
            "trusted_ca": {"filename": wiring.certs.join("egress/ca.crt")},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HOST}}],
        })),
    });
    if wiring.terms == Terms::Equal {
        tls["max_session_keys"] = json!(0);
    }
    launch(program, wiring, "egress", (wiring.egress, None), (wiring.upstream, Some(tls)))
}

pub fn ingress(program: &Path, wiring: &Wiring<'_>) -> Result<Launch, Failure> {
    let mut tls = json!({
        "@type": DOWNSTREAM_TLS,
        "require_client_certificate": true,
        "common_tls_context": common(wiring, "ingress", &json!({
            "trusted_ca": {"filename": wiring.certs.join("ingress/ca.crt")},
        })),
    });
    if wiring.terms == Terms::Equal {
        tls["disable_stateless_session_resumption"] = json!(true);
        tls["disable_stateful_session_resumption"] = json!(true);
    }
    launch(program, wiring, "ingress", (wiring.ingress, Some(tls)), (wiring.backend, None))
}

fn common(wiring: &Wiring<'_>, side: &str, validation: &Value) -> Value {
    let mut parameters = json!({
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
    });
    if wiring.terms == Terms::Equal {
        parameters["ecdh_curves"] = json!(["X25519"]);
    }
    json!({
        "tls_params": parameters,
        "tls_certificates": [{
            "certificate_chain": {"filename": wiring.certs.join(side).join("tls.crt")},
            "private_key": {"filename": wiring.certs.join(side).join("tls.key")},
        }],
        "validation_context": validation,
    })
}

fn launch(
    program: &Path,
    wiring: &Wiring<'_>,
    side: &str,
    (from, accepts): (u16, Option<Value>),
    (to, originates): (u16, Option<Value>),
) -> Result<Launch, Failure> {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let socket = |tls: Value| json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {"@type": TCP_PROXY, "stat_prefix": "link", "cluster": "next"},
        }],
    });
    let limits = json!({"max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX});
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}],
        },
    });
    if let Some(tls) = accepts {
        chain["transport_socket"] = socket(tls);
    }
    if let Some(tls) = originates {
        cluster["transport_socket"] = socket(tls);
    }
    let listener =
        json!({"name": "link", "address": address(from), "filter_chains": [chain], "tcp_backlog_size": 4096});
    let bootstrap = json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}});
    let file = write(wiring, &format!("{side}.json"), &bootstrap.to_string())?;
    Ok(Launch::new(program, from)
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"])
        .arg(file))
}
