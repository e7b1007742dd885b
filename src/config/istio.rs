//! The flags of `run` and `check`, and Istio's resources -> a plan, or every problem of both at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::compile::{self, Identity, Resolve, Workload};
use super::flags::{self, Process};
use super::report::Report;
use super::sources::Reading;
use super::{Awaited, Configuration, name, resource, sources, validate};
use crate::cli::{ProcessFlags, WorkloadFlags};
use crate::credentials::needs::{Needs, Use};
use crate::credentials::store::Source;
use crate::plan::route::HostPattern;
use crate::plan::{ClientCertificate, CredentialName, Entrance, Host, Listener, Plan, Role, Trust};

/// Reads the files and compiles them. Without a folder of credentials the plan cannot run, only be looked at.
pub fn load(
    workload: &WorkloadFlags,
    process: &ProcessFlags,
    credentials: Option<&Path>,
) -> (Option<Configuration>, Report) {
    compile(sources::read(&workload.config), workload, process, credentials)
}

/// Compiles what was read.
pub fn compile(
    read: Reading,
    workload: &WorkloadFlags,
    process: &ProcessFlags,
    credentials: Option<&Path>,
) -> (Option<Configuration>, Report) {
    let nothing = read.texts.is_empty() && read.unreadable.is_empty();
    let (resources, mut report) = resource::read(read.texts);
    for problem in read.unreadable {
        report.file(problem.path.display().to_string(), problem.why);
    }
    if nothing {
        report.add("--config", "expected at least one *.yaml, *.yml or *.json file, found none");
    }
    let process = flags::process(process, &mut report);
    let workload = process.as_ref().and_then(|process| workload_of(workload, process, &mut report));
    validate::resources(&resources, &mut report);
    // What does not stand by itself would only be wrong a second time when put together.
    let (Some(workload), Some(process), true) = (workload, process, report.is_empty()) else {
        return (None, report);
    };
    let listeners = compile::listeners(&resources, &workload, &mut report);
    if !report.is_empty() {
        return (None, report);
    }
    let folder = credentials.unwrap_or(Path::new("."));
    let credentials = needs(&listeners, &process).into_iter().map(|(name, needs)| {
        let directory = folder.join(&name.0);
        Source { name, directory, needs }
    });
    let configuration = Configuration {
        credentials: credentials.collect(),
        plan: Plan { listeners, limits: process.limits, dns: process.dns, log_format: process.log_format },
        warnings: report.warning_lines(),
        awaited: Awaited::Any,
        admin: process.admin,
    };
    (Some(configuration), report)
}

/// The listeners that texts compile to, each text with the name of its file. Where there are errors, there are none.
pub fn listeners(texts: Vec<(String, String)>, workload: &Workload) -> (Vec<Arc<Listener>>, Report) {
    let (resources, mut report) = resource::read(texts);
    validate::resources(&resources, &mut report);
    if !report.is_empty() {
        return (Vec::new(), report);
    }
    let listeners = compile::listeners(&resources, workload, &mut report);
    (if report.is_empty() { listeners } else { Vec::new() }, report)
}

/// Every credential of the plan, and what it is for.
fn needs(listeners: &[Arc<Listener>], process: &Process) -> BTreeMap<CredentialName, Needs> {
    let mut all: BTreeMap<CredentialName, Needs> = BTreeMap::new();
    let base = || Needs { crl_expired: process.crl_expired, ..Needs::default() };
    let mut add = |name: &CredentialName, needs: Needs| {
        let known = all.remove(name).unwrap_or_else(base);
        all.insert(name.clone(), known.and(needs));
    };
    for listener in listeners {
        let accepts: Vec<_> = match &listener.entrance {
            Entrance::Plaintext(_) => Vec::new(),
            Entrance::Permissive(accept, _) => vec![(accept, &[][..])],
            Entrance::Tls(table) => table
                .rows()
                .iter()
                .filter_map(|row| Some((row.accept.as_ref()?, row.hosts.as_slice())))
                .collect(),
        };
        for (accept, hosts) in accepts {
            // Certificates of the mesh carry identities, not host names.
            let hosts: &[HostPattern] = if accept.alpn.is_empty() { hosts } else { &[] };
            for shown in accept.shown() {
                add(shown, Needs { uses: vec![Use::Server(hosts.to_vec())], ..base() });
            }
            if accept.client != ClientCertificate::NotAsked {
                add(&accept.ca, Needs { ca: true, ..base() });
            }
        }
        let targets = listener.routes().into_iter().flat_map(|route| &route.targets);
        for originate in targets.filter_map(|target| target.cluster.originate.as_ref()) {
            let uses = if originate.shows_certificate { vec![Use::Client] } else { Vec::new() };
            if let Some(credential) = &originate.credential {
                add(credential, Needs { uses, ca: originate.trust == Trust::Credential, ..base() });
            }
        }
    }
    all
}

fn workload_of(flags: &WorkloadFlags, process: &Process, report: &mut Report) -> Option<Workload> {
    let before = report.errors();
    let roles = flags.role.iter().filter_map(|text| report.note("--role", role(text)));
    let mut roles: BTreeMap<_, _> = roles.map(|role| (role, Identity::stock(role))).collect();
    for text in &flags.namespace {
        let (role, namespace) = scoped(text, "--namespace", report)?;
        for (_, identity) in roles.iter_mut().filter(|(known, _)| role.is_none_or(|role| role == **known)) {
            namespace.clone_into(&mut identity.namespace);
        }
    }
    for text in &flags.labels {
        let (role, pair) = scoped(text, "--labels", report)?;
        let Some((key, value)) = pair.split_once('=') else {
            report.add("--labels", format!("expected KEY=VALUE, found {text:?}"));
            continue;
        };
        for (_, identity) in roles.iter_mut().filter(|(known, _)| role.is_none_or(|role| role == **known)) {
            identity.labels.insert(key.to_owned(), value.to_owned());
        }
    }
    let resolve: Vec<_> =
        flags.resolve.iter().filter_map(|text| report.note("--resolve", resolve(text))).collect();
    let listen = flags.listen.iter().filter_map(|text| report.note("--listen", listen(text))).collect();
    let inbound: BTreeMap<_, _> =
        flags.inbound.iter().filter_map(|text| report.note("--inbound", inbound(text))).collect();
    if !inbound.is_empty() && !roles.contains_key(&Role::Sidecar) {
        report.add("--inbound", "expected the role sidecar beside it, found none");
    }
    let trust_domain = report.note("--trust-domain", name::dns(&flags.trust_domain))?;
    let domain = report.note("--domain", name::dns(&flags.domain))?;
    report.note("--workload-credential", validate::credential_name(&flags.workload_credential))?;
    (report.errors() == before).then(|| Workload {
        roles,
        trust_domain,
        domain,
        credential: CredentialName(flags.workload_credential.clone()),
        resolve,
        listen,
        inbound,
        tls: process.tls.clone(),
        connect_timeout: process.limits.connect_timeout,
    })
}

fn role(text: &str) -> Result<Role, String> {
    [Role::Sidecar, Role::Egress, Role::Ingress]
        .into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| format!("expected sidecar, egress or ingress, found {text:?}"))
}

/// A value for one role, or for all.
fn scoped<'text>(
    text: &'text str,
    flag: &'static str,
    report: &mut Report,
) -> Option<(Option<Role>, &'text str)> {
    match text.split_once(':') {
        Some((name, value)) => report.note(flag, role(name)).map(|role| (Some(role), value)),
        None => Some((None, text)),
    }
}

fn resolve(text: &str) -> Result<Resolve, String> {
    let malformed = || format!("expected HOST[:PORT]=ADDRESS[:PORT], found {text:?}");
    let (from, to) = text.split_once('=').ok_or_else(malformed)?;
    let (host, port) = match from.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| malformed())?)),
        None => (from, None),
    };
    let (to, to_port) = name::host_port(to, 0).map_err(|_| malformed())?;
    let to_port = (to_port != 0).then_some(to_port);
    Ok(Resolve { host: name::dns(host).map_err(|_| malformed())?, port, to, to_port })
}

fn listen(text: &str) -> Result<(u16, std::net::SocketAddr), String> {
    let malformed = || format!("expected PORT=IP:PORT, found {text:?}");
    let (port, address) = text.split_once('=').ok_or_else(malformed)?;
    Ok((port.parse().map_err(|_| malformed())?, name::listen_address(address)?))
}

fn inbound(text: &str) -> Result<(u16, (Host, u16)), String> {
    let malformed = || format!("expected PORT=HOST:PORT, found {text:?}");
    let (port, place) = text.split_once('=').ok_or_else(malformed)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?;
    Ok((port, name::host_port(place, port).map_err(|_| malformed())?))
}
