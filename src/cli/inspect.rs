//! The command lines of what looks into certificates, servers and records, and changes nothing.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DnsFlags, ServerFlags, TlsFlags};

/// The flags of `twinlock certs`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  twinlock dev-certs --out certs --host mysql.fqdn.example\n  twinlock certs certs"
)]
pub struct CertsFlags {
    /// A credential directory, or a folder of them.
    #[arg(required = true, value_name = "DIR")]
    pub directory: Vec<PathBuf>,
    /// JSON instead of a table.
    #[arg(long, env = "TWINLOCK_JSON")]
    pub json: bool,
}

/// The flags of `twinlock probe`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  twinlock dev-certs --out certs --host mysql.fqdn.example\n  \
                         twinlock probe 127.0.0.1:13306 --sni mysql.fqdn.example --credentials certs/egress")]
pub struct ProbeFlags {
    /// Where the other side's ingress listens; the port defaults to 13306.
    #[arg(value_name = "HOST[:PORT]")]
    pub target: String,
    /// The credentials to try: a directory as for egress.
    #[arg(long, env = "TWINLOCK_CREDENTIALS", value_name = "DIR")]
    pub credentials: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub server: ServerFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub tls: TlsFlags,
    /// What a revocation list that should have been replaced by now does: refuse the server, or warn.
    #[arg(long, env = "TWINLOCK_CRL_EXPIRED", value_name = "HOW", default_value = "refuse")]
    pub crl_expired: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the group")]
    pub dns: DnsFlags,
    /// Time to connect, and as much again for the handshake.
    #[arg(long, env = "TWINLOCK_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub timeout: String,
    /// JSON instead of text.
    #[arg(long, env = "TWINLOCK_JSON")]
    pub json: bool,
}

/// What records can be asked.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Pair the records of both ends of each TLS session, and show what has no partner.
    Join(JoinFlags),
}

/// The flags of `twinlock audit join`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  twinlock audit join egress.log ingress.log",
    after_help = "Exit code 0: every session has two ends that agree. 1: one has not. 2: something could not be read."
)]
pub struct JoinFlags {
    /// What gateways wrote to standard output with --log-format json; two or more, in any order.
    #[arg(required = true, num_args = 2.., value_name = "LOG")]
    pub log: Vec<PathBuf>,
    /// A line of JSON for each finding instead of text.
    #[arg(long, env = "TWINLOCK_JSON")]
    pub json: bool,
}
