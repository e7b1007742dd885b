//! core/v1 Service: of all that Kubernetes writes there, the name, the ports and the selector.

use std::sync::Arc;

use crate::config::decode::{At, Decode, Decoder, Labels};
use crate::config::document::{Node, Value};

/// The part of a Service that names a destination.
#[derive(Debug, Clone)]
pub struct Service {
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.selector`.
    pub selector: Option<Labels>,
}

/// One port.
#[derive(Debug, Clone)]
pub struct Port {
    /// `name`.
    pub name: Option<At<String>>,
    /// `port`.
    pub port: At<i64>,
    /// `appProtocol`.
    pub app_protocol: Option<At<String>>,
    /// `targetPort`, where it is a number; a name stands for a port of the pods, which are not here.
    pub target_port: Option<i64>,
}

impl Port {
    /// The port at which the pods are to be found.
    pub fn target(&self) -> i64 {
        self.target_port.unwrap_or(self.port.value)
    }
}

impl Decode for Service {
    fn decode(node: &Arc<Node>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut ports = Vec::new();
        if let Some(Value::Sequence(items)) = node.get("ports").map(|ports| &ports.value) {
            for item in items {
                let Some(port) = item.get("port").and_then(|port| At::<i64>::decode(port, decoder)) else {
                    continue;
                };
                let mut text =
                    |name| item.get(name).and_then(|node: &Arc<Node>| At::<String>::decode(node, decoder));
                let (name, app_protocol) = (text("name"), text("appProtocol"));
                let target_port = item.get("targetPort").and_then(|port| port.text()?.parse().ok());
                ports.push(Port { name, port, app_protocol, target_port });
            }
        }
        let selector = node.get("selector").filter(|selector| !selector.is_null());
        let selector = selector.and_then(|selector| Labels::decode(selector, decoder));
        Some(Self { ports, selector })
    }
}
