//! VirtualService: which connection goes to which destination.

use crate::config::decode::{At, Labels, Opaque, Strings, written};

written! {
    /// `spec` of a VirtualService.
    VirtualService {
        hosts: Strings = "hosts",
        gateways: Strings = "gateways",
        http: At<Vec<At<Opaque>>> = "http",
        tls: At<Vec<TlsRoute>> = "tls",
        tcp: At<Vec<TcpRoute>> = "tcp",
        export_to: Strings = "exportTo",
    }
}

written! {
    /// A rule for bytes whose TLS, if any, is terminated.
    TcpRoute {
        matches: At<Vec<TcpMatch>> = "match",
        route: At<Vec<RouteDestination>> = "route",
    }
}

written! {
    /// A rule for TLS that is passed through.
    TlsRoute {
        matches: At<Vec<TlsMatch>> = "match",
        route: At<Vec<RouteDestination>> = "route",
    }
}

written! {
    /// `L4MatchAttributes`.
    TcpMatch {
        destination_subnets: Strings = "destinationSubnets",
        port: At<i64> = "port",
        source_subnet: At<String> = "sourceSubnet",
        source_labels: Labels = "sourceLabels",
        gateways: Strings = "gateways",
        source_namespace: At<String> = "sourceNamespace",
    }
}

written! {
    /// `TLSMatchAttributes`.
    TlsMatch {
        sni_hosts: Strings = "sniHosts",
        destination_subnets: Strings = "destinationSubnets",
        port: At<i64> = "port",
        source_labels: Labels = "sourceLabels",
        gateways: Strings = "gateways",
        source_namespace: At<String> = "sourceNamespace",
    }
}

written! {
    /// A destination with its share of the connections.
    RouteDestination {
        destination: Destination = "destination",
        weight: At<i64> = "weight",
    }
}

written! {
    /// Host, subset and port of a service.
    Destination {
        host: At<String> = "host",
        subset: At<String> = "subset",
        port: PortSelector = "port",
    }
}

written! {
    /// The number of a port.
    PortSelector {
        number: At<i64> = "number",
    }
}
