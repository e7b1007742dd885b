//! ServiceEntry and WorkloadEntry: what services there are, and where their endpoints are.

use super::gateway::Port;
use crate::config::decode::{At, Labels, OneOf, Opaque, Strings, Table, words, written};

written! {
    /// `spec` of a ServiceEntry.
    ServiceEntry {
        hosts: Strings = "hosts",
        addresses: Strings = "addresses",
        ports: At<Vec<Port>> = "ports",
        location: At<OneOf<Location>> = "location",
        resolution: At<OneOf<Resolution>> = "resolution",
        endpoints: At<Vec<WorkloadEntry>> = "endpoints",
        workload_selector: EntrySelector = "workloadSelector",
        export_to: Strings = "exportTo",
        subject_alt_names: Strings = "subjectAltNames",
    }
}

written! {
    /// The workloads that are endpoints.
    EntrySelector {
        labels: Labels = "labels",
    }
}

written! {
    /// An endpoint, or `spec` of a WorkloadEntry.
    WorkloadEntry {
        address: At<String> = "address",
        ports: At<Table<At<i64>>> = "ports",
        labels: Labels = "labels",
        network: At<Opaque> = "network",
        locality: At<Opaque> = "locality",
        weight: At<i64> = "weight",
        service_account: At<String> = "serviceAccount",
    }
}

words! {
    /// Whether a service is part of the mesh.
    Location {
        "MESH_EXTERNAL" => MeshExternal,
        "MESH_INTERNAL" => MeshInternal,
    }
}

words! {
    /// How endpoints are found.
    Resolution {
        "NONE" => None,
        "STATIC" => Static,
        "DNS" => Dns,
        "DNS_ROUND_ROBIN" => DnsRoundRobin,
        "DYNAMIC_DNS" => DynamicDns,
    }
}
