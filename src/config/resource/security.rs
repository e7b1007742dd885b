//! PeerAuthentication and AuthorizationPolicy: what a workload asks of those who connect to it.

use super::destination_rule::WorkloadSelector;
use crate::config::decode::{At, OneOf, Opaque, Strings, Table, words, written};

written! {
    /// `spec` of a PeerAuthentication.
    PeerAuthentication {
        selector: WorkloadSelector = "selector",
        mtls: MutualTls = "mtls",
        port_level_mtls: At<Table<MutualTls>> = "portLevelMtls",
    }
}

written! {
    /// The mode of one scope.
    MutualTls {
        mode: At<OneOf<MtlsMode>> = "mode",
    }
}

words! {
    /// What is accepted at an inbound port.
    MtlsMode {
        "UNSET" => Unset,
        "DISABLE" => Disable,
        "PERMISSIVE" => Permissive,
        "STRICT" => Strict,
    }
}

written! {
    /// `spec` of an AuthorizationPolicy.
    AuthorizationPolicy {
        selector: WorkloadSelector = "selector",
        target_ref: At<Opaque> = "targetRef",
        target_refs: At<Opaque> = "targetRefs",
        rules: At<Vec<Rule>> = "rules",
        action: At<OneOf<Action>> = "action",
        provider: Provider = "provider",
    }
}

written! {
    /// Who decides for CUSTOM.
    Provider {
        name: At<String> = "name",
    }
}

words! {
    /// What a policy does with what it matches.
    Action {
        "ALLOW" => Allow,
        "DENY" => Deny,
        "AUDIT" => Audit,
        "CUSTOM" => Custom,
    }
}

written! {
    /// A rule: any `from`, and any `to`, and all `when`.
    Rule {
        from: At<Vec<From>> = "from",
        to: At<Vec<To>> = "to",
        when: At<Vec<Condition>> = "when",
    }
}

written! {
    /// Who connects.
    From {
        source: Source = "source",
    }
}

written! {
    /// What is connected to.
    To {
        operation: Operation = "operation",
    }
}

written! {
    /// `Source`.
    Source {
        principals: Strings = "principals",
        not_principals: Strings = "notPrincipals",
        request_principals: Strings = "requestPrincipals",
        not_request_principals: Strings = "notRequestPrincipals",
        namespaces: Strings = "namespaces",
        not_namespaces: Strings = "notNamespaces",
        ip_blocks: Strings = "ipBlocks",
        not_ip_blocks: Strings = "notIpBlocks",
        remote_ip_blocks: Strings = "remoteIpBlocks",
        not_remote_ip_blocks: Strings = "notRemoteIpBlocks",
        service_accounts: Strings = "serviceAccounts",
        not_service_accounts: Strings = "notServiceAccounts",
        trust_domains: Strings = "trustDomains",
        not_trust_domains: Strings = "notTrustDomains",
    }
}

written! {
    /// `Operation`.
    Operation {
        hosts: Strings = "hosts",
        not_hosts: Strings = "notHosts",
        ports: Strings = "ports",
        not_ports: Strings = "notPorts",
        methods: Strings = "methods",
        not_methods: Strings = "notMethods",
        paths: Strings = "paths",
        not_paths: Strings = "notPaths",
    }
}

written! {
    /// `Condition`.
    Condition {
        key: At<String> = "key",
        values: Strings = "values",
        not_values: Strings = "notValues",
    }
}
