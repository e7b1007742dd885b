//! Gateway: the ports on which a gateway workload listens, and how it terminates TLS there.

use crate::config::decode::{At, Labels, OneOf, Opaque, Strings, words, written};

written! {
    /// `spec` of a Gateway.
    Gateway {
        selector: Labels = "selector",
        servers: At<Vec<Server>> = "servers",
    }
}

written! {
    /// One port with its hosts.
    Server {
        port: Port = "port",
        bind: At<String> = "bind",
        hosts: Strings = "hosts",
        tls: ServerTls = "tls",
        name: At<Opaque> = "name",
        default_endpoint: At<Opaque> = "defaultEndpoint",
    }
}

written! {
    /// The port of a server, or of a service.
    Port {
        number: At<i64> = "number",
        protocol: At<String> = "protocol",
        name: At<String> = "name",
        target_port: At<i64> = "targetPort",
    }
}

written! {
    /// `ServerTLSSettings`.
    ServerTls {
        https_redirect: At<bool> = "httpsRedirect",
        mode: At<OneOf<ServerMode>> = "mode",
        server_certificate: At<String> = "serverCertificate",
        private_key: At<String> = "privateKey",
        ca_certificates: At<String> = "caCertificates",
        ca_crl: At<String> = "caCrl",
        tls_certificates: At<Opaque> = "tlsCertificates",
        credential_name: At<String> = "credentialName",
        credential_names: Strings = "credentialNames",
        ca_cert_credential_name: At<String> = "caCertCredentialName",
        subject_alt_names: Strings = "subjectAltNames",
        verify_certificate_spki: Strings = "verifyCertificateSpki",
        verify_certificate_hash: Strings = "verifyCertificateHash",
        min_protocol_version: At<OneOf<Version>> = "minProtocolVersion",
        max_protocol_version: At<OneOf<Version>> = "maxProtocolVersion",
        cipher_suites: Strings = "cipherSuites",
        insecure_skip_verify: At<bool> = "insecureSkipVerify",
    }
}

words! {
    /// How a server treats TLS.
    ServerMode {
        "PASSTHROUGH" => Passthrough,
        "SIMPLE" => Simple,
        "MUTUAL" => Mutual,
        "AUTO_PASSTHROUGH" => AutoPassthrough,
        "ISTIO_MUTUAL" => IstioMutual,
        "OPTIONAL_MUTUAL" => OptionalMutual,
    }
}

words! {
    /// A version of TLS.
    Version {
        "TLS_AUTO" => Auto,
        "TLSV1_0" => V1_0,
        "TLSV1_1" => V1_1,
        "TLSV1_2" => V1_2,
        "TLSV1_3" => V1_3,
    }
}
