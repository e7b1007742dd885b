//! TLS settings as written -> what is shown, what is sent, and what must be proven.
//!
//! Stricter than Istio in one point: a server is always verified by name. Where neither the DestinationRule
//! nor the ServiceEntry lists names, it is the SNI, else the host; in the mesh, a SPIFFE ID of the service's
//! own namespace.

use std::sync::Arc;

use super::Compiler;
use super::cluster::{Refusal, Wanted};
use super::policy::Policy;
use super::registry::Service;
use crate::config::name;
use crate::config::resource::destination_rule::{ClientMode, ClientTls};
use crate::config::resource::gateway::{ServerMode, ServerTls, Version};
use crate::config::resource::security::MtlsMode;
use crate::config::sources::Place;
use crate::config::validate::items;
use crate::plan::identity::SubjectAltName;
use crate::plan::policy::{Cipher, TlsPolicy, TlsVersion};
use crate::plan::{Accept, ClientCertificate, CredentialName, Host, Originate, Role, ServerIdentity, Trust};

/// The protocol by which proxies of the mesh know each other. Its sibling, istio-peer-exchange, begins with
/// messages of its own and is never offered or chosen.
pub(super) const MESH_PROTOCOL: &[&str] = &["istio"];

impl<'a> Compiler<'a> {
    /// The TLS of a hop to a service; `None` where plaintext is what was asked for.
    pub fn originate(
        &mut self,
        wanted: &Wanted,
        service: Option<&Service<'a>>,
        port: u16,
        namespace: &str,
        policy: &Policy<'a>,
    ) -> Result<Option<Arc<Originate>>, Refusal> {
        let subset = wanted.subset.as_deref().unwrap_or_default();
        let mesh_sni = format!("outbound_.{port}_.{subset}_.{}", wanted.host);
        let Some(tls) = policy.tls else {
            let automatic = service.filter(|service| self.expects_mesh_tls(wanted, service));
            let identities = automatic.map(|service| self.identities(None, Some(service), namespace));
            return Ok(identities.map(|names| Arc::new(self.mesh_hop(Some(mesh_sni), names))));
        };
        let sni = tls.sni.as_ref().and_then(|sni| name::dns(sni).ok());
        match tls.mode.as_ref().map_or(ClientMode::Disable, |mode| mode.value.0) {
            ClientMode::Disable => Ok(None),
            ClientMode::IstioMutual => {
                let names = self.identities(Some(tls), service, namespace);
                Ok(Some(Arc::new(self.mesh_hop(Some(sni.unwrap_or(mesh_sni)), names))))
            }
            ClientMode::Simple => self.by_credential(wanted, service, tls, sni, policy, false),
            ClientMode::Mutual => self.by_credential(wanted, service, tls, sni, policy, true),
        }
    }

    fn mesh_hop(&self, sni: Option<String>, names: Vec<SubjectAltName>) -> Originate {
        Originate {
            credential: Some(self.workload.credential.clone()),
            shows_certificate: true,
            trust: Trust::Credential,
            sni,
            server_name: ServerIdentity::AnyOf(names),
            alpn: MESH_PROTOCOL,
            tls: self.workload.tls.clone(),
        }
    }

    fn by_credential(
        &mut self,
        wanted: &Wanted,
        service: Option<&Service<'a>>,
        tls: &ClientTls,
        sni: Option<String>,
        policy: &Policy<'a>,
        shows_certificate: bool,
    ) -> Result<Option<Arc<Originate>>, Refusal> {
        let selected = policy.rule.is_some_and(|rule| rule.spec.workload_selector.is_some());
        let credential = match &tls.credential_name {
            Some(credential) if wanted.role == Role::Sidecar && !selected => {
                return Err(Refusal::CredentialOnSidecar(credential.place));
            }
            Some(credential) => Some(CredentialName(credential.value.clone())),
            None => None,
        };
        let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
        let system = |text: &str| text == "system";
        if let Some(file) = files.into_iter().flatten().find(|file| !system(file)) {
            self.error(
                file.place,
                "expected credentialName, which is a folder below --credentials, found a file",
            );
            return Err(Refusal::Told);
        }
        let trust = if credential.is_some() { Trust::Credential } else { Trust::Public };
        let listed = listed(Some(tls), service);
        let server_name = if listed.is_empty() {
            let expected = sni.clone().unwrap_or_else(|| wanted.host.clone());
            ServerIdentity::Host(Host::Name(expected))
        } else {
            ServerIdentity::AnyOf(listed)
        };
        let originate = Originate {
            credential,
            shows_certificate,
            trust,
            sni,
            server_name,
            alpn: &[],
            tls: self.workload.tls.clone(),
        };
        Ok(Some(Arc::new(originate)))
    }

    /// Whom a server of the mesh must be: listed names, or the accounts of its endpoints, or anybody in the
    /// namespace of the service.
    fn identities(
        &self,
        tls: Option<&ClientTls>,
        service: Option<&Service<'a>>,
        namespace: &str,
    ) -> Vec<SubjectAltName> {
        let mut names = listed(tls, service);
        if names.is_empty() {
            let accounts = service.into_iter().flat_map(|service| &service.places);
            let accounts = accounts.filter_map(|place| place.entry.service_account.as_ref());
            let uri = |account: &str| {
                format!("spiffe://{}/ns/{namespace}/sa/{account}", self.workload.trust_domain)
            };
            names = accounts.map(|account| SubjectAltName::Uri(uri(account))).collect();
            names.dedup();
        }
        if names.is_empty() {
            let scope = if namespace.is_empty() { String::new() } else { format!("ns/{namespace}/") };
            names.push(SubjectAltName::SpiffeBelow(format!(
                "spiffe://{}/{scope}",
                self.workload.trust_domain
            )));
        }
        names
    }

    /// Whether a service without TLS settings gets the mesh's TLS by itself (automatic mutual TLS).
    fn expects_mesh_tls(&mut self, wanted: &Wanted, service: &Service<'a>) -> bool {
        if !service.internal {
            return false;
        }
        let scope = self.mtls_of_namespace(service.namespace);
        if scope == Some(MtlsMode::Disable) {
            return false;
        }
        let capable = service.places.iter().filter(|place| place.is_in_mesh()).count();
        if capable > 0 && capable < service.places.len() {
            let message = format!(
                "expected endpoints that all are in the mesh or all are not, found both: {}",
                wanted.host
            );
            self.error(service.place, message);
        }
        if service.places.is_empty() && scope != Some(MtlsMode::Strict) {
            let message = "plaintext is sent to it: nothing here says that its endpoints are in the mesh";
            self.warn(service.place, message);
        }
        capable > 0 || scope == Some(MtlsMode::Strict)
    }

    /// How TLS is terminated at a server of a gateway; `None` passes it through.
    pub fn accept(&mut self, tls: &ServerTls) -> Result<Option<Arc<Accept>>, ()> {
        let mode = tls.mode.as_ref().map_or(ServerMode::Passthrough, |mode| mode.value.0);
        let client = match mode {
            ServerMode::Passthrough => return Ok(None),
            ServerMode::AutoPassthrough => {
                let place = tls.mode.as_ref().map_or(tls.place, |mode| mode.place);
                self.error(place, "expected a mode that says where connections go, found AUTO_PASSTHROUGH, which relays to any service");
                return Err(());
            }
            ServerMode::Simple => ClientCertificate::NotAsked,
            ServerMode::Mutual | ServerMode::IstioMutual => ClientCertificate::Required,
            ServerMode::OptionalMutual => ClientCertificate::Optional,
        };
        self.refuse_unsupported(tls)?;
        let in_mesh = mode == ServerMode::IstioMutual;
        let by_name = tls.credential_name.as_ref().or_else(|| items(tls.credential_names.as_ref()).first());
        let credential = if in_mesh {
            self.workload.credential.clone()
        } else {
            CredentialName(by_name.map_or(String::new(), |name| name.value.clone()))
        };
        let names =
            items(tls.subject_alt_names.as_ref()).iter().filter_map(|text| name::subject_alt_name(text).ok());
        Ok(Some(Arc::new(Accept {
            credential,
            client,
            client_names: names.collect(),
            alpn: if in_mesh { MESH_PROTOCOL } else { &[] },
            tls: if in_mesh { self.workload.tls.clone() } else { self.server_policy(tls) },
        })))
    }

    /// What is right in Istio and would not be enforced here.
    fn refuse_unsupported(&mut self, tls: &ServerTls) -> Result<(), ()> {
        let files = [&tls.server_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
        let file = files.into_iter().flatten().next().map(|file| file.place);
        let several = tls.credential_names.as_ref().filter(|names| names.len() > 1).map(|names| names.place);
        let unsupported: [(Option<Place>, &str); 6] = [
            (
                file.or(tls.tls_certificates.as_ref().map(|at| at.place)),
                "expected credentialName, which is a folder below --credentials, found a file",
            ),
            (several, "expected one name, because this version shows one certificate, found several"),
            (
                tls.ca_cert_credential_name.as_ref().map(|at| at.place),
                "expected the CA in the credential itself or in NAME-cacert, found another credential for it",
            ),
            (
                tls.verify_certificate_spki.as_ref().map(|at| at.place),
                "expected subjectAltNames, because this version does not enforce pins, found one",
            ),
            (
                tls.verify_certificate_hash.as_ref().map(|at| at.place),
                "expected subjectAltNames, because this version does not enforce pins, found one",
            ),
            (
                tls.max_protocol_version.as_ref().filter(|at| at.value.0 == Version::V1_2).map(|at| at.place),
                "expected no maximum below TLSV1_3, which this version always speaks, found one",
            ),
        ];
        for (place, message) in unsupported {
            if let Some(place) = place {
                self.error(place, message);
                return Err(());
            }
        }
        Ok(())
    }

    fn server_policy(&self, tls: &ServerTls) -> TlsPolicy {
        let only_1_3 = tls.min_protocol_version.as_ref().is_some_and(|at| at.value.0 == Version::V1_3);
        let ciphers: Vec<_> =
            items(tls.cipher_suites.as_ref()).iter().filter_map(|name| Cipher::by_name(name)).collect();
        let base = self.workload.tls.clone();
        TlsPolicy {
            version_min: if only_1_3 { TlsVersion::V1_3 } else { base.version_min },
            // Istio's list is for TLS 1.2; the suites of 1.3 stay.
            ciphers: if ciphers.is_empty() { base.ciphers } else { with_tls_1_3(&ciphers) },
            ..base
        }
    }
}

fn with_tls_1_3(ciphers: &[Cipher]) -> Vec<Cipher> {
    let newer = Cipher::ALL
        .into_iter()
        .filter(|cipher| cipher.version() == TlsVersion::V1_3 && !ciphers.contains(cipher));
    newer.chain(ciphers.iter().copied()).collect()
}

/// The names that are listed for a server: the DestinationRule's, else the ServiceEntry's.
fn listed(tls: Option<&ClientTls>, service: Option<&Service<'_>>) -> Vec<SubjectAltName> {
    let of_rule = tls.map_or(&[][..], |tls| items(tls.subject_alt_names.as_ref()));
    if of_rule.is_empty() {
        return service.map_or(Vec::new(), |service| service.names.clone());
    }
    of_rule.iter().filter_map(|text| name::subject_alt_name(text).ok()).collect()
}
