//! DestinationRule: how the endpoints of a service are reached.

use std::time::Duration;

use super::virtual_service::PortSelector;
use crate::config::decode::{At, Labels, OneOf, Opaque, OrZero, Strings, words, written};

written! {
    /// `spec` of a DestinationRule.
    DestinationRule {
        host: At<String> = "host",
        traffic_policy: TrafficPolicy = "trafficPolicy",
        subsets: At<Vec<Subset>> = "subsets",
        export_to: Strings = "exportTo",
        workload_selector: WorkloadSelector = "workloadSelector",
    }
}

written! {
    /// The proxies that a rule is for.
    WorkloadSelector {
        match_labels: Labels = "matchLabels",
    }
}

written! {
    /// A named part of a service.
    Subset {
        name: At<String> = "name",
        labels: Labels = "labels",
        traffic_policy: TrafficPolicy = "trafficPolicy",
    }
}

written! {
    /// `TrafficPolicy`.
    TrafficPolicy {
        load_balancer: LoadBalancer = "loadBalancer",
        connection_pool: ConnectionPool = "connectionPool",
        outlier_detection: OutlierDetection = "outlierDetection",
        tls: ClientTls = "tls",
        port_level_settings: At<Vec<PortPolicy>> = "portLevelSettings",
        tunnel: At<Opaque> = "tunnel",
        proxy_protocol: ProxyProtocol = "proxyProtocol",
        retry_budget: At<Opaque> = "retryBudget",
    }
}

written! {
    /// `PortTrafficPolicy`.
    PortPolicy {
        port: PortSelector = "port",
        load_balancer: LoadBalancer = "loadBalancer",
        connection_pool: ConnectionPool = "connectionPool",
        outlier_detection: OutlierDetection = "outlierDetection",
        tls: ClientTls = "tls",
    }
}

written! {
    /// `ClientTLSSettings`.
    ClientTls {
        mode: At<OneOf<ClientMode>> = "mode",
        client_certificate: At<String> = "clientCertificate",
        private_key: At<String> = "privateKey",
        ca_certificates: At<String> = "caCertificates",
        credential_name: At<String> = "credentialName",
        subject_alt_names: Strings = "subjectAltNames",
        sni: At<String> = "sni",
        insecure_skip_verify: At<bool> = "insecureSkipVerify",
        ca_crl: At<String> = "caCrl",
    }
}

words! {
    /// How TLS is originated.
    ClientMode {
        "DISABLE" => Disable,
        "SIMPLE" => Simple,
        "MUTUAL" => Mutual,
        "ISTIO_MUTUAL" => IstioMutual,
    }
}

written! {
    /// `LoadBalancerSettings`.
    LoadBalancer {
        simple: At<OneOf<SimpleBalancer>> = "simple",
        consistent_hash: ConsistentHash = "consistentHash",
        locality_lb_setting: At<Opaque> = "localityLbSetting",
        zone_aware_lb_setting: At<Opaque> = "zoneAwareLbSetting",
        warmup_duration_secs: At<Duration> = "warmupDurationSecs",
        warmup: At<Opaque> = "warmup",
    }
}

words! {
    /// The algorithms without a key.
    SimpleBalancer {
        "UNSPECIFIED" => Unspecified,
        "LEAST_CONN" => LeastConn,
        "LEAST_REQUEST" => LeastRequest,
        "RANDOM" => Random,
        "ROUND_ROBIN" => RoundRobin,
        "PASSTHROUGH" => Passthrough,
    }
}

written! {
    /// `ConsistentHashLB`.
    ConsistentHash {
        http_header_name: At<Opaque> = "httpHeaderName",
        http_cookie: At<Opaque> = "httpCookie",
        http_query_parameter_name: At<Opaque> = "httpQueryParameterName",
        use_source_ip: At<bool> = "useSourceIp",
        ring_hash: At<Opaque> = "ringHash",
        maglev: At<Opaque> = "maglev",
        minimum_ring_size: At<i64> = "minimumRingSize",
    }
}

written! {
    /// `ConnectionPoolSettings`.
    ConnectionPool {
        tcp: TcpPool = "tcp",
        http: At<Opaque> = "http",
    }
}

written! {
    /// `TCPSettings`.
    TcpPool {
        max_connections: At<i64> = "maxConnections",
        connect_timeout: At<Duration> = "connectTimeout",
        tcp_keepalive: TcpKeepalive = "tcpKeepalive",
        max_connection_duration: At<Duration> = "maxConnectionDuration",
        idle_timeout: At<OrZero> = "idleTimeout",
    }
}

written! {
    /// `TcpKeepalive`.
    TcpKeepalive {
        probes: At<i64> = "probes",
        time: At<Duration> = "time",
        interval: At<Duration> = "interval",
    }
}

written! {
    /// `ProxyProtocol`.
    ProxyProtocol {
        version: At<OneOf<ProxyVersion>> = "version",
    }
}

words! {
    /// The form of the header.
    ProxyVersion {
        "V1" => V1,
        "V2" => V2,
    }
}

written! {
    /// `OutlierDetection`.
    OutlierDetection {
        consecutive_errors: At<i64> = "consecutiveErrors",
        split_external_local_origin_errors: At<bool> = "splitExternalLocalOriginErrors",
        consecutive_local_origin_failures: At<i64> = "consecutiveLocalOriginFailures",
        consecutive_gateway_errors: At<i64> = "consecutiveGatewayErrors",
        consecutive_5xx_errors: At<i64> = "consecutive5xxErrors",
        interval: At<Duration> = "interval",
        base_ejection_time: At<Duration> = "baseEjectionTime",
        max_ejection_percent: At<i64> = "maxEjectionPercent",
        min_health_percent: At<i64> = "minHealthPercent",
    }
}
