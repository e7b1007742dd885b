//! The resources as written: one type a kind, no behaviour. This file tells which document is which.

pub mod destination_rule;
pub mod gateway;
pub mod security;
pub mod service;
pub mod service_entry;
pub mod virtual_service;

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{At, Decode, Decoder, Labels, Opaque, written};
use super::document::{self, Node, Spot, SyntaxError, Value};
use super::report::{Report, similar};
use super::sources::{Located, Place, SourceFile, Sources};
use destination_rule::DestinationRule;
use gateway::Gateway;
use security::{AuthorizationPolicy, PeerAuthentication};
use service::Service;
use service_entry::{ServiceEntry, WorkloadEntry};
use virtual_service::VirtualService;

/// Where a resource without a namespace is.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A resource: its name and what it says.
#[derive(Debug, Clone)]
pub struct Resource<S> {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// The metadata, with their places.
    pub meta: Metadata,
    /// `spec`.
    pub spec: S,
    /// Where the resource is.
    pub place: Place,
}

written! {
    /// `ObjectMeta`, of which Kubernetes writes most by itself.
    Metadata {
        name: At<String> = "name",
        namespace: At<String> = "namespace",
        labels: Labels = "labels",
        annotations: Labels = "annotations",
        creation_timestamp: At<String> = "creationTimestamp",
        generate_name: At<Opaque> = "generateName",
        uid: At<Opaque> = "uid",
        resource_version: At<Opaque> = "resourceVersion",
        generation: At<Opaque> = "generation",
        managed_fields: At<Opaque> = "managedFields",
        finalizers: At<Opaque> = "finalizers",
        owner_references: At<Opaque> = "ownerReferences",
        self_link: At<Opaque> = "selfLink",
        deletion_timestamp: At<Opaque> = "deletionTimestamp",
        deletion_grace_period_seconds: At<Opaque> = "deletionGracePeriodSeconds",
    }
}

written! {
    /// A whole document.
    Document {
        api_version: At<String> = "apiVersion",
        kind: At<String> = "kind",
        metadata: Metadata = "metadata",
        spec: At<Opaque> = "spec",
        status: At<Opaque> = "status",
    }
}

/// Every resource of a configuration, each kind in Istio's order: oldest first, then by name and namespace.
#[derive(Debug, Default)]
pub struct Resources {
    /// Gateways.
    pub gateways: Vec<Resource<Gateway>>,
    /// VirtualServices.
    pub virtual_services: Vec<Resource<VirtualService>>,
    /// DestinationRules.
    pub destination_rules: Vec<Resource<DestinationRule>>,
    /// ServiceEntries.
    pub service_entries: Vec<Resource<ServiceEntry>>,
    /// WorkloadEntries.
    pub workload_entries: Vec<Resource<WorkloadEntry>>,
    /// core/v1 Services.
    pub services: Vec<Resource<Service>>,
    /// PeerAuthentications.
    pub peer_authentications: Vec<Resource<PeerAuthentication>>,
    /// AuthorizationPolicies.
    pub authorization_policies: Vec<Resource<AuthorizationPolicy>>,
}

/// Reads texts, each with the name of its file. What cannot be read is in the report, the rest is there.
pub fn read(texts: Vec<(String, String)>) -> (Resources, Report) {
    let mut broken = Vec::new();
    let files = texts.into_iter().enumerate().map(|(index, (name, text))| {
        let resources = match document::parse(&text) {
            Ok(documents) => documents.iter().flat_map(items).map(located).collect(),
            Err(error) => {
                broken.push((index, error));
                Vec::new()
            }
        };
        SourceFile { name, text, resources }
    });
    let sources = Arc::new(Sources { files: files.collect() });
    let mut report = Report::on(sources.clone());
    for (index, SyntaxError { spot, message }) in broken {
        report.error(Place { file: number(index), resource: u32::MAX, spot, node: spot }, message);
    }
    let mut reader = Reader { report, resources: Resources::default(), seen: HashMap::new() };
    for (file, source) in sources.files.iter().enumerate() {
        for (index, located) in source.resources.iter().enumerate() {
            let spot = Spot::default();
            let whence = Place { file: number(file), resource: number(index), spot, node: spot };
            reader.read(&located.root, whence);
        }
    }
    let mut resources = reader.resources;
    resources.sort();
    (resources, reader.report)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A document, or what a `kind: List` holds.
fn items(root: &Arc<Node>) -> Vec<Arc<Node>> {
    let is_list = root.get("kind").and_then(|kind| kind.text()) == Some("List");
    match root.get("items").map(|items| &items.value) {
        Some(Value::Sequence(items)) if is_list => {
            items.iter().filter(|item| !item.is_null()).cloned().collect()
        }
        _ if is_list => Vec::new(),
        _ => vec![root.clone()],
    }
}

fn located(root: Arc<Node>) -> Located {
    let text = |node: Option<&Arc<Node>>| node.and_then(|node| node.text()).map(str::to_owned);
    let meta = root.get("metadata");
    let title = match (text(root.get("kind")), text(meta.and_then(|meta| meta.get("name")))) {
        (Some(kind), Some(name)) => {
            let namespace = text(meta.and_then(|meta| meta.get("namespace")));
            format!("{kind} {}/{name}", namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE))
        }
        (Some(kind), None) => kind,
        (None, _) => String::new(),
    };
    Located { title, root }
}

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// The kinds that are honoured: group, kind, versions. The versions of a group have the same schema.
const HONOURED: &[(&str, &str, &[&str])] = &[
    ("networking.istio.io", "Gateway", NETWORKING),
    ("networking.istio.io", "VirtualService", NETWORKING),
    ("networking.istio.io", "DestinationRule", NETWORKING),
    ("networking.istio.io", "ServiceEntry", NETWORKING),
    ("networking.istio.io", "WorkloadEntry", NETWORKING),
    ("security.istio.io", "PeerAuthentication", SECURITY),
    ("security.istio.io", "AuthorizationPolicy", SECURITY),
    ("", "Service", &["v1"]),
];

/// Kinds of Istio that change who may connect or where connections go, and are not honoured.
const REFUSED: &[(&str, &str)] = &[
    ("networking.istio.io", "Sidecar"),
    ("networking.istio.io", "EnvoyFilter"),
    ("security.istio.io", "RequestAuthentication"),
    ("extensions.istio.io", "WasmPlugin"),
];

struct Reader {
    report: Report,
    resources: Resources,
    /// (kind, namespace, name) -> the first of them.
    seen: HashMap<(String, String, String), Place>,
}

impl Reader {
    fn read(&mut self, root: &Arc<Node>, whence: Place) {
        let whence = Place { spot: root.spot, node: root.spot, ..whence };
        if let Value::Sequence(_) = &root.value {
            self.report.remark(whence, "passed over, it is a list and not a resource");
            return;
        }
        let text = |name: &str| root.get(name).and_then(|node| node.text()).map(str::to_owned);
        let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            self.report.error(whence, "expected a resource with apiVersion and kind, found none");
            return;
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let at = |name: &str| {
            root.get(name).map_or(whence, |node| Place { spot: node.spot, node: node.spot, ..whence })
        };
        let honoured = HONOURED.iter().find(|(known, name, _)| *known == group && *name == kind);
        let Some((_, _, versions)) = honoured else {
            self.foreign(group, &kind, at("apiVersion"), at("kind"));
            return;
        };
        if !versions.contains(&version) {
            let expected = versions.join(", ");
            let message = format!("expected one of the versions {expected} of {kind}, found {api_version:?}");
            self.report.error(at("apiVersion"), message);
            return;
        }
        self.honoured(group, &kind, root, whence);
    }

    /// A kind that is not ours: refused if it is one that counts, passed over if not.
    fn foreign(&mut self, group: &str, kind: &str, group_place: Place, kind_place: Place) {
        let is_istio = group.ends_with("istio.io");
        let mut of_istio = HONOURED.iter().filter(|(known, _, _)| is_istio && known.ends_with("istio.io"));
        let in_group = HONOURED.iter().filter(|(known, _, _)| is_istio && *known == group).map(|row| row.1);
        if REFUSED.contains(&(group, kind)) {
            let message = format!(
                "expected a kind that can be honoured, found one that changes who may connect or where to: {kind:?}"
            );
            self.report.error(kind_place, message);
        } else if let Some((right, _, [version, ..])) = of_istio.find(|(_, name, _)| *name == kind) {
            let message = format!("expected {kind} in the group {right}, found the group {group:?}");
            self.report.error(group_place, message).help(format!("apiVersion: {right}/{version}"));
        } else if let Some(meant) = similar(kind, in_group) {
            let message = format!("expected a kind of {group}, found {kind:?}");
            self.report.error(kind_place, message).help(format!("did you mean {meant:?}?"));
        } else {
            self.report.remark(kind_place, format!("passed over, it is not for a gateway: {kind}"));
        }
    }

    fn honoured(&mut self, group: &str, kind: &str, root: &Arc<Node>, whence: Place) {
        let before = self.report.errors();
        let mut decoder = Decoder { report: &mut self.report, whence };
        let meta = if group.is_empty() {
            // Of a Service only what is needed is read: its schema is Kubernetes' business.
            root.get("metadata").and_then(|meta| Metadata::decode(meta, &mut decoder))
        } else {
            Document::decode(root, &mut decoder).and_then(|document| document.metadata)
        };
        let Some((meta, name)) = meta.and_then(|meta| meta.name.clone().map(|name| (meta, name))) else {
            self.report.error(whence, "expected a name, found none").field("metadata.name");
            return;
        };
        let namespace = meta.namespace.as_ref().map_or(DEFAULT_NAMESPACE.to_owned(), |at| at.value.clone());
        let identity = (kind.to_owned(), namespace.clone(), name.value.clone());
        if let Some(first) = self.seen.get(&identity) {
            let first = self.report.sources().line_of(*first);
            self.report.error(name.place, format!("expected each resource once, found it also at {first}"));
            return;
        }
        self.seen.insert(identity, name.place);
        let Some(spec) = root.get("spec").filter(|spec| !spec.is_null()) else {
            // PeerAuthentication and AuthorizationPolicy mean something without one.
            let empty = Arc::new(Node::empty(root.spot));
            if group == "security.istio.io" {
                self.keep(kind, &empty, before, Named { name: name.value, namespace, meta, place: whence });
            } else {
                self.report.error(whence, "expected a spec, found none").field("spec");
            }
            return;
        };
        self.keep(kind, spec, before, Named { name: name.value, namespace, meta, place: whence });
    }

    fn keep(&mut self, kind: &str, spec: &Arc<Node>, errors_before: usize, named: Named) {
        let mut decoder = Decoder { report: &mut self.report, whence: named.place };
        let all = &mut self.resources;
        let mut kept = Keep { spec, errors_before, decoder: &mut decoder, named };
        match kind {
            "Gateway" => kept.add(&mut all.gateways),
            "VirtualService" => kept.add(&mut all.virtual_services),
            "DestinationRule" => kept.add(&mut all.destination_rules),
            "ServiceEntry" => kept.add(&mut all.service_entries),
            "WorkloadEntry" => kept.add(&mut all.workload_entries),
            "PeerAuthentication" => kept.add(&mut all.peer_authentications),
            "AuthorizationPolicy" => kept.add(&mut all.authorization_policies),
            _ => kept.add(&mut all.services),
        }
    }
}

/// What every resource has.
struct Named {
    name: String,
    namespace: String,
    meta: Metadata,
    place: Place,
}

struct Keep<'a, 'report> {
    spec: &'a Arc<Node>,
    errors_before: usize,
    decoder: &'a mut Decoder<'report>,
    named: Named,
}

impl Keep<'_, '_> {
    /// Reads the spec; a resource of which a part could not be read is not judged any further.
    fn add<S: Decode>(&mut self, list: &mut Vec<Resource<S>>) {
        let spec = S::decode(self.spec, self.decoder);
        if self.decoder.report.errors() == self.errors_before {
            let Named { name, namespace, meta, place } = &self.named;
            list.extend(spec.map(|spec| Resource {
                name: name.clone(),
                namespace: namespace.clone(),
                meta: meta.clone(),
                spec,
                place: *place,
            }));
        }
    }
}

impl Resources {
    fn sort(&mut self) {
        sort(&mut self.gateways);
        sort(&mut self.virtual_services);
        sort(&mut self.destination_rules);
        sort(&mut self.service_entries);
        sort(&mut self.workload_entries);
        sort(&mut self.services);
        sort(&mut self.peer_authentications);
        sort(&mut self.authorization_policies);
    }
}

fn sort<S>(list: &mut [Resource<S>]) {
    list.sort_by(|one, other| order(one).cmp(&order(other)));
}

fn order<S>(resource: &Resource<S>) -> (&str, &str, &str) {
    let created = resource.meta.creation_timestamp.as_ref().map_or("", |at| at.value.as_str());
    (created, &resource.name, &resource.namespace)
}
