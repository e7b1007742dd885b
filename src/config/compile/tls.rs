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
use crate::config::decode::At;
use crate::config::resource::destination_rule::{ClientMode, ClientTls};
use crate::config::resource::gateway::{ServerMode, ServerTls, Version};
use crate::config::resource::security::MtlsMode;
use crate::config::validate::items;
use crate::config::{name, pins};
use crate::plan::identity::{Pin, SubjectAltName};
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
        self.refuse_files(tls)?;
        let accept = if mode == ServerMode::IstioMutual {
            self.mesh_accept()
        } else {
            let named = |name: &At<String>| CredentialName(name.value.clone());
            let mut shown = tls.credential_name.iter().chain(items(tls.credential_names.as_ref())).map(named);
            let accept = Accept::by(shown.next().ok_or(())?, client, self.server_policy(tls)?);
            let ca = tls.ca_cert_credential_name.as_ref().map_or_else(|| accept.ca.clone(), named);
            Accept { alternatives: shown.collect(), ca, ..accept }
        };
        let names = items(tls.subject_alt_names.as_ref()).iter();
        let keys = items(tls.verify_certificate_spki.as_ref()).iter();
        let hashes = items(tls.verify_certificate_hash.as_ref()).iter();
        let keys = keys.filter_map(|text| pins::spki(text).ok()).map(Pin::PublicKey);
        let hashes = hashes.filter_map(|text| pins::hash(text).ok()).map(Pin::Certificate);
        Ok(Some(Arc::new(Accept {
            client_names: names.filter_map(|text| name::subject_alt_name(text).ok()).collect(),
            client_pins: keys.chain(hashes).collect(),
            ..accept
        })))
    }

    /// The end of a hop of the mesh: every workload of it may come.
    pub fn mesh_accept(&self) -> Accept {
        let (credential, tls) = (self.workload.credential.clone(), self.workload.tls.clone());
        Accept { alpn: MESH_PROTOCOL, ..Accept::by(credential, ClientCertificate::Required, tls) }
    }

    /// Key material comes from `--credentials` alone.
    fn refuse_files(&mut self, tls: &ServerTls) -> Result<(), ()> {
        let files = [&tls.server_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
        let file = files.into_iter().flatten().next().map(|file| file.place);
        let Some(place) = file.or(tls.tls_certificates.as_ref().map(|at| at.place)) else { return Ok(()) };
        self.error(place, "expected credentialName, which is a folder below --credentials, found a file");
        Err(())
    }

    fn server_policy(&mut self, tls: &ServerTls) -> Result<TlsPolicy, ()> {
        let only_1_3 = tls.min_protocol_version.as_ref().is_some_and(|at| at.value.0 == Version::V1_3);
        let only_1_2 = tls.max_protocol_version.as_ref().filter(|at| at.value.0 == Version::V1_2);
        let ciphers: Vec<_> =
            items(tls.cipher_suites.as_ref()).iter().filter_map(|name| Cipher::by_name(name)).collect();
        let base = self.workload.tls.clone();
        let policy = TlsPolicy {
            version_min: if only_1_3 { TlsVersion::V1_3 } else { base.version_min },
            version_max: if only_1_2.is_some() { TlsVersion::V1_2 } else { base.version_max },
            // Istio's list is for TLS 1.2; the suites of 1.3 stay.
            ciphers: if ciphers.is_empty() { base.ciphers } else { with_tls_1_3(&ciphers) },
            ..base
        };
        // What the resource says by itself has been judged before, so it is the flags that leave nothing.
        if let Some(place) = only_1_2.filter(|_| !policy.speaks(TlsVersion::V1_2)).map(|at| at.place) {
            self.error(place, "expected a version that --tls-min, --kx and --cipher leave, found TLSV1_2");
            return Err(());
        }
        Ok(policy)
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
