//! The command line: types for clap and nothing else. Values stay text here; `config/flags.rs` judges
//! them, so that every problem is told at once.

pub mod inspect;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use inspect::{AuditCommand, CertsFlags, ProbeFlags};

/// Carries TCP between two sites over mutual TLS.
#[derive(Debug, Parser)]
#[command(
    name = "twinlock",
    version,
    about,
    arg_required_else_help = false,
    after_help = "Each option can be set by the environment variable shown with it. \
                  The operational log goes to standard error, its level is TWINLOCK_LOG (error, warn, info, debug)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What twinlock can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accept plaintext, originate mutual TLS.
    Egress(EgressFlags),
    /// Terminate mutual TLS, forward plaintext to the backend.
    Ingress(IngressFlags),
    /// Show everything that is in credential directories, and what is wrong with it.
    Certs(CertsFlags),
    /// Try a handshake with credentials that need not be in use yet.
    Probe(ProbeFlags),
    /// Do what Istio's resources say.
    Run(RunFlags),
    /// Judge Istio's resources as `run` would, and start nothing.
    Check(CheckFlags),
    /// Tell what Istio's resources mean: who may connect where, and what would become of a connection.
    Explain(ExplainFlags),
    /// Look into the records of connections.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make a root CA and credentials for both sides, for development.
    DevCerts(DevCertsFlags),
}

/// The flags of `twinlock egress`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  twinlock dev-certs --out certs --host mysql.fqdn.example\n  \
                         twinlock egress --upstream 127.0.0.1:13306 --sni mysql.fqdn.example --credentials certs/egress")]
pub struct EgressFlags {
    /// Where the other side's ingress listens; the port defaults to 13306.
    #[arg(long, env = "TWINLOCK_UPSTREAM", value_name = "HOST[:PORT]")]
    pub upstream: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub server: ServerFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub common: CommonFlags,
}

/// The flags that say who the server must be.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// The name to send as SNI and to find in the server's certificate [default: the upstream host].
    #[arg(long, env = "TWINLOCK_SNI", value_name = "NAME")]
    pub sni: Option<String>,
    /// A name to find in the server's certificate instead of the SNI: DNS, URI or IP; repeatable.
    #[arg(long, env = "TWINLOCK_SAN", value_name = "NAME", value_delimiter = ',')]
    pub san: Vec<String>,
    /// `public` trusts the public roots instead of ca.crt.
    #[arg(long, env = "TWINLOCK_CA", value_name = "public")]
    pub ca: Option<String>,
}

/// The flags of `twinlock ingress`.
#[derive(Debug, Args)]
#[command(mut_arg("listen", |listen| listen.default_value("0.0.0.0:13306")))]
#[command(before_help = "Example:\n  twinlock dev-certs --out certs --host mysql.fqdn.example\n  \
                         twinlock ingress --backend 127.0.0.1:3306 --host mysql.fqdn.example --credentials certs/ingress")]
pub struct IngressFlags {
    /// The server to forward to; the port defaults to 3306.
    #[arg(long, env = "TWINLOCK_BACKEND", value_name = "HOST[:PORT]")]
    pub backend: String,
    /// An SNI to answer to, NAME or *.NAME; any other, or none, is refused; repeatable.
    #[arg(long, env = "TWINLOCK_HOST", value_name = "NAME", value_delimiter = ',', required = true)]
    pub host: Vec<String>,
    /// A subject alternative name (DNS, URI or IP) of clients that may connect; repeatable [default: any client of the CA].
    #[arg(long, env = "TWINLOCK_ALLOW_SAN", value_name = "NAME", value_delimiter = ',')]
    pub allow_san: Vec<String>,
    /// A SPIFFE ID of clients that may connect beside those of --allow-san, spiffe://DOMAIN/PATH, or with /* at its
    /// end every one below it; repeatable.
    #[arg(long, env = "TWINLOCK_ALLOW_SPIFFE", value_name = "PATTERN", value_delimiter = ',')]
    pub allow_spiffe: Vec<String>,
    /// Tell the backend who its client is, by the header of the PROXY protocol: v1 or v2 [default: not at all].
    #[arg(long, env = "TWINLOCK_SEND_PROXY_PROTOCOL", value_name = "VERSION")]
    pub send_proxy_protocol: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub common: CommonFlags,
}

/// The flags that both commands have.
#[derive(Debug, Args)]
pub struct CommonFlags {
    /// Where to listen; port 0 lets the kernel choose; repeatable.
    #[arg(
        long,
        env = "TWINLOCK_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:3306"
    )]
    pub listen: Vec<String>,
    /// A directory with tls.crt, tls.key and ca.crt, plain or as a mounted Kubernetes secret; watched. One that is
    /// still to appear in a folder that is there is waited for: connections are closed until then.
    #[arg(long, env = "TWINLOCK_CREDENTIALS", value_name = "DIR")]
    pub credentials: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub process: ProcessFlags,
}

/// The flags of every command that carries connections.
#[derive(Debug, Args)]
pub struct ProcessFlags {
    /// Look at the credentials and the configuration this often even if no change was noticed.
    #[arg(long, env = "TWINLOCK_CREDENTIALS_POLL", value_name = "TIME", default_value = "10s")]
    pub credentials_poll: String,
    /// What a revocation list that should have been replaced by now does: refuse connections, or warn.
    #[arg(long, env = "TWINLOCK_CRL_EXPIRED", value_name = "HOW", default_value = "refuse")]
    pub crl_expired: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub tls: TlsFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub dns: DnsFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub admin: AdminFlags,
    /// What TLS that ends without close_notify does to the other side: reset or fin.
    #[arg(long, env = "TWINLOCK_ON_TRUNCATION", value_name = "HOW", default_value = "reset")]
    pub on_truncation: String,
    /// Time for a whole TLS handshake.
    #[arg(long, env = "TWINLOCK_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub handshake_timeout: String,
    /// Time to resolve and connect, over all addresses.
    #[arg(long, env = "TWINLOCK_CONNECT_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub connect_timeout: String,
    /// Connections open at once; one more is reset.
    #[arg(long, env = "TWINLOCK_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "10000")]
    pub max_connections: String,
    /// Clients in the middle of a TLS handshake, on each worker; one more is reset. They use up nothing of
    /// --max-connections.
    #[arg(long, env = "TWINLOCK_MAX_HANDSHAKES", value_name = "NUMBER", default_value = "1000")]
    pub max_handshakes: String,
    /// End a connection on which nothing moved for this long [default: never].
    #[arg(long, env = "TWINLOCK_IDLE_TIMEOUT", value_name = "TIME")]
    pub idle_timeout: Option<String>,
    /// End a connection to a peer that acknowledges nothing of what it was sent for this long, or that does not read
    /// [default: what the system does, which is about 15 minutes for a peer that vanished, and never for one that
    /// does not read].
    #[arg(long, env = "TWINLOCK_USER_TIMEOUT", value_name = "TIME")]
    pub user_timeout: Option<String>,
    /// A connection whose peer's certificate expired or was revoked, or whose CA was removed, is closed when nothing
    /// moves on it, at the latest after this time.
    #[arg(long, env = "TWINLOCK_REVOKED_GRACE", value_name = "TIME", default_value = "30s")]
    pub revoked_grace: String,
    /// End connections of this age; the last tenth of it spreads their ends [default: never].
    #[arg(long, env = "TWINLOCK_MAX_CONNECTION_AGE", value_name = "TIME")]
    pub max_connection_age: Option<String>,
    /// Change the keys of a TLS 1.3 connection after so many bytes (1GiB) or so much time (1h), or whichever comes
    /// first of both (1GiB,1h) [default: at the limit of the cipher].
    #[arg(long, env = "TWINLOCK_REKEY_AFTER", value_name = "SIZE,TIME", value_delimiter = ',')]
    pub rekey_after: Vec<String>,
    /// After SIGTERM or SIGINT, time for open connections to end by themselves.
    #[arg(long, env = "TWINLOCK_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub drain_timeout: String,
    /// Worker threads [default: the cores available].
    #[arg(long, env = "TWINLOCK_WORKERS", value_name = "NUMBER")]
    pub workers: Option<String>,
    /// How connections (standard output) and the operational log (standard error) are written: text or json.
    #[arg(long, env = "TWINLOCK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,
}

/// The flags that say which TLS is spoken.
#[derive(Debug, Args)]
pub struct TlsFlags {
    /// The oldest version of TLS to speak, 1.2 or 1.3 [default: 1.2, or 1.3 with --kx require-pq].
    #[arg(long, env = "TWINLOCK_TLS_MIN", value_name = "VERSION")]
    pub tls_min: Option<String>,
    /// How keys are agreed on: prefer-pq (X25519MLKEM768 if the peer knows it), require-pq, or classical.
    #[arg(long, env = "TWINLOCK_KX", value_name = "POLICY", default_value = "prefer-pq")]
    pub kx: String,
    /// A cipher suite by its IANA or OpenSSL name, best first; repeatable [default: all of AES-GCM and ChaCha20].
    #[arg(long, env = "TWINLOCK_CIPHER", value_name = "NAME", value_delimiter = ',')]
    pub cipher: Vec<String>,
}

/// The flags of the admin server.
#[derive(Debug, Args)]
pub struct AdminFlags {
    /// Where health, metrics and certificates can be asked for by HTTP, and reload and drain be told, such as 127.0.0.1:15021 [default: nowhere].
    #[arg(long, env = "TWINLOCK_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// How far --admin may reach: loopback, or any address, where whoever can reach it can ask and tell.
    #[arg(long, env = "TWINLOCK_ADMIN_REACH", value_name = "HOW", default_value = "loopback")]
    pub admin_reach: String,
}

/// The flags that say how names are resolved.
#[derive(Debug, Args)]
pub struct DnsFlags {
    /// A DNS server to ask instead of those in /etc/resolv.conf, whose search domains and options still count;
    /// repeatable. The port defaults to 53.
    #[arg(long, env = "TWINLOCK_DNS_SERVER", value_name = "IP[:PORT]", value_delimiter = ',')]
    pub dns_server: Vec<String>,
    /// While DNS fails, the last answer for a name serves for so long behind its TTL.
    #[arg(long, env = "TWINLOCK_DNS_STALE", value_name = "TIME", default_value = "1h")]
    pub dns_stale: String,
}

/// The flags of `twinlock run`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  twinlock run --config config/mysql/client --role sidecar --role egress --credentials credentials"
)]
pub struct RunFlags {
    /// A directory with a credential in a directory of its own for each credentialName; watched.
    #[arg(long, env = "TWINLOCK_CREDENTIALS", value_name = "DIR")]
    pub credentials: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub workload: WorkloadFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub process: ProcessFlags,
}

/// The flags of `twinlock check`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  twinlock check --config config/mysql/client --role sidecar --role egress"
)]
pub struct CheckFlags {
    /// The credentials that `run` would use; judged too if given.
    #[arg(long, env = "TWINLOCK_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// Let warnings count: exit code 1.
    #[arg(long, env = "TWINLOCK_STRICT")]
    pub strict: bool,
    /// How the report is written: text or json.
    #[arg(long, env = "TWINLOCK_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub format: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub workload: WorkloadFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub process: ProcessFlags,
}

/// The flags of `twinlock explain`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  twinlock explain --config config/mysql/client --role sidecar --role egress"
)]
pub struct ExplainFlags {
    /// How the plan is written: text, json or dot.
    #[arg(long, env = "TWINLOCK_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub format: String,
    /// Tell what would become of a connection to this listener [default: the only one].
    #[arg(long, env = "TWINLOCK_LISTENER", value_name = "IP:PORT")]
    pub listener: Option<String>,
    /// The SNI that the connection would send.
    #[arg(long, env = "TWINLOCK_SNI", value_name = "NAME")]
    pub sni: Option<String>,
    /// The address that the connection would come from.
    #[arg(long, env = "TWINLOCK_SOURCE", value_name = "IP")]
    pub source: Option<String>,
    /// The address that the connection would be for, where that decides.
    #[arg(long, env = "TWINLOCK_DESTINATION", value_name = "IP")]
    pub destination: Option<String>,
    /// A file with the certificate that the connection would show; its names are judged, not its chain.
    #[arg(long, env = "TWINLOCK_PEER_CERT", value_name = "FILE")]
    pub peer_cert: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub workload: WorkloadFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub process: ProcessFlags,
}

/// The flags that say what the process is, as far as Istio's resources ask.
#[derive(Debug, Args)]
pub struct WorkloadFlags {
    /// A file, or a directory of *.yaml, *.yml and *.json files, with Istio's resources; watched by `run`; repeatable.
    #[arg(long, env = "TWINLOCK_CONFIG", value_name = "PATH", value_delimiter = ',', required = true)]
    pub config: Vec<PathBuf>,
    /// What this process is: sidecar, egress or ingress; repeatable.
    #[arg(long, env = "TWINLOCK_ROLE", value_name = "ROLE", value_delimiter = ',', required = true)]
    pub role: Vec<String>,
    /// A label of the workload, of all roles or of one; repeatable [default: those of Istio's own gateways].
    #[arg(long, env = "TWINLOCK_LABELS", value_name = "[ROLE:]KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// The namespace of the workload, of all roles or of one [default: istio-system, for a sidecar default].
    #[arg(long, env = "TWINLOCK_NAMESPACE", value_name = "[ROLE:]NAME", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// The trust domain of the mesh.
    #[arg(long, env = "TWINLOCK_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,
    /// The domain of the cluster's services.
    #[arg(long, env = "TWINLOCK_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub domain: String,
    /// The credential that is the identity in the mesh.
    #[arg(long, env = "TWINLOCK_WORKLOAD_CREDENTIAL", value_name = "NAME", default_value = "workload")]
    pub workload_credential: String,
    /// Where a host is, whatever the resources and DNS say; repeatable.
    #[arg(long, env = "TWINLOCK_RESOLVE", value_name = "HOST[:PORT]=ADDRESS[:PORT]", value_delimiter = ',')]
    pub resolve: Vec<String>,
    /// Where to listen instead, for a port of the resources; port 0 lets the kernel choose; repeatable.
    #[arg(long, env = "TWINLOCK_LISTEN", value_name = "PORT=IP:PORT", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Where the application of a sidecar listens, for a port at which others look for it; repeatable.
    #[arg(long, env = "TWINLOCK_INBOUND", value_name = "PORT=HOST:PORT", value_delimiter = ',')]
    pub inbound: Vec<String>,
}

/// The flags of `twinlock dev-certs`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  twinlock dev-certs --out certs --host mysql.fqdn.example")]
pub struct DevCertsFlags {
    /// Where to write: ca.crt and ca.key, ingress/ and egress/. A root that is there is used again.
    #[arg(long, env = "TWINLOCK_OUT", value_name = "DIR")]
    pub out: PathBuf,
    /// A name or address of the ingress certificate; repeatable.
    #[arg(long, env = "TWINLOCK_HOST", value_name = "NAME", value_delimiter = ',', required = true)]
    pub host: Vec<String>,
    /// A name of the egress certificate, DNS or URI; repeatable.
    #[arg(
        long,
        env = "TWINLOCK_CLIENT",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "egress.example"
    )]
    pub client: Vec<String>,
    /// RSA 2048 instead of ECDSA P-256.
    #[arg(long, env = "TWINLOCK_RSA")]
    pub rsa: bool,
    /// Days until the certificates expire.
    #[arg(long, env = "TWINLOCK_DAYS", value_name = "DAYS", default_value = "30")]
    pub days: u32,
}
