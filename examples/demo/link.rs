//! Everything that takes part: certificates, a server, the two gateways, and clients of theirs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;
use twinlock::dev_certs::{self, KeyKind, Request};

use crate::gateway::{Gateway, PATIENCE};
use crate::{Failure, Flags, server};

/// The name that the egress asks for and the ingress proves.
pub const HOST: &str = "mysql.fqdn.example";
/// The name that the egress proves.
const CLIENT: &str = "egress.example";
/// What the demo asks the server: a greeting, who it is, and which of its sessions this is.
pub const QUERY: &str =
    "SELECT 'hello from the other side' AS greeting, @@version_comment AS server, CONNECTION_ID() AS session";
/// Validity of the first certificates and of those that replace them: told apart by their last day.
const DAYS: [u32; 2] = [30, 90];

/// A client's way to a server. The gateways end before their certificates are removed.
pub struct Link {
    pub egress: Gateway,
    pub ingress: Gateway,
    pub backend: String,
    options: OptsBuilder,
    directory: TempDir,
}

impl Link {
    pub async fn open(flags: &Flags) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("twinlock-demo-").tempdir()?;
        mint(directory.path(), DAYS[0])?;
        let backend = match &flags.backend {
            Some(backend) => backend.clone(),
            None => server::start().await?.to_string(),
        };
        let credentials = |side| directory.path().join(side).to_string_lossy().into_owned();
        let (there, here) = (credentials("ingress"), credentials("egress"));
        let arguments =
            ["--backend", &backend, "--host", HOST, "--allow-san", CLIENT, "--credentials", &there];
        let ingress = Gateway::start("ingress", &arguments).await?;
        let upstream = ingress.address.to_string();
        let arguments = ["--upstream", &upstream, "--sni", HOST, "--credentials", &here];
        let egress = Gateway::start("egress", &arguments).await?;
        let options = options(egress.address, flags);
        Ok(Self { egress, ingress, backend, options, directory })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A client of the egress. If the gateways could not carry it, their record says why.
    pub async fn connect(&mut self) -> Result<Conn, Failure> {
        let error = match timeout(PATIENCE, Conn::new(self.options.clone())).await? {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let record = timeout(PATIENCE, self.ingress.next_record()).await??;
        match [&record["outcome"], &record["detail"]].map(|text| text.as_str().unwrap_or_default()) {
            ["completed", _] => Err(error.into()),
            [outcome, detail] => Err(format!("the ingress recorded {outcome}: {detail}").into()),
        }
    }

    /// What both sides recorded of a connection. They count the same connections, in the same order.
    pub async fn records(&mut self, id: u64) -> Result<(Value, Value), Failure> {
        Ok((self.egress.record(id).await?, self.ingress.record(id).await?))
    }

    /// New keys and certificates under the same root, and the moment when both sides use them.
    pub async fn rotate(&mut self) -> Result<(), Failure> {
        mint(self.directory.path(), DAYS[1])?;
        self.ingress.generation(2).await?;
        self.egress.generation(2).await
    }

    /// Ends the gateways, the client's side first, and removes the certificates.
    pub async fn close(self) -> Result<[ExitStatus; 2], Failure> {
        let ended = [self.egress.stop().await?, self.ingress.stop().await?];
        self.directory.close()?;
        Ok(ended)
    }
}

/// Asks [`QUERY`].
pub async fn ask(client: &mut Conn) -> Result<Row, Failure> {
    let row = timeout(PATIENCE, client.query_first(QUERY)).await??;
    row.ok_or_else(|| "the server has no answer".into())
}

fn mint(directory: &Path, days: u32) -> Result<(), Failure> {
    let request = Request {
        out: directory.to_owned(),
        hosts: vec![HOST.into()],
        clients: vec![CLIENT.into()],
        key: KeyKind::EcdsaP256,
        days,
    };
    dev_certs::mint(&request, twinlock::clock::wall())?;
    Ok(())
}

fn options(address: SocketAddr, flags: &Flags) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .user(Some(flags.user.as_str()))
        .pass(flags.password.as_deref())
        // It would ask the server for its socket and go around the gateways.
        .prefer_socket(false)
}
