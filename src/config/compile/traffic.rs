//! What a policy says of the connections to an upstream: which endpoint, how many, for how long, and when an
//! endpoint is left alone.

use std::time::Duration;

use super::Compiler;
use super::cluster::Refusal;
use super::policy::Policy;
use crate::config::decode::At;
use crate::config::resource::destination_rule::{
    LoadBalancer, OutlierDetection, ProxyProtocol, ProxyVersion, SimpleBalancer, TcpKeepalive, TcpPool,
};
use crate::plan::cluster::{Balance, Idle, Keepalive, Outliers, Pool, ProxyHeader};

/// What a policy says of the connections to an upstream.
pub(super) struct Traffic {
    pub connect_timeout: Duration,
    pub balance: Balance,
    pub outliers: Option<Outliers>,
    pub pool: Pool,
    pub proxy_header: Option<ProxyHeader>,
}

impl<'a> Compiler<'a> {
    /// Reads it from a policy, and tells what would change where connections go, or has no effect here.
    pub fn traffic(&mut self, policy: &Policy<'a>) -> Result<Traffic, Refusal> {
        for place in &policy.shadowed {
            self.warn(*place, "has no effect on this port: its port-level entry is taken whole");
        }
        if let Some(place) = policy.tunnel {
            self.error(place, "expected no tunnel, which this version does not speak, found one");
            return Err(Refusal::Told);
        }
        let balance = match policy.balancer {
            Some(balancer) => self.balance(balancer, policy.by_source)?,
            None => Balance::LeastRequest,
        };
        if let Some(http) = policy.pool.and_then(|pool| pool.http.as_ref()) {
            self.warn(http.place, "has no effect, it is for HTTP");
        }
        let tcp = policy.pool.and_then(|pool| pool.tcp.as_ref());
        let connect_timeout = tcp.and_then(|tcp| tcp.connect_timeout.as_ref());
        Ok(Traffic {
            connect_timeout: connect_timeout.map_or(self.workload.connect_timeout, |at| at.value),
            balance,
            outliers: policy.outlier.and_then(|outlier| self.outliers(outlier)),
            pool: self.pool(tcp, policy.top_pool),
            proxy_header: policy.proxy_protocol.map(proxy_header),
        })
    }

    fn balance(&mut self, balancer: &LoadBalancer, by_source: bool) -> Result<Balance, Refusal> {
        let others = [
            balancer.locality_lb_setting.as_ref().map(|part| part.place),
            balancer.zone_aware_lb_setting.as_ref().map(|part| part.place),
            balancer.warmup.as_ref().map(|part| part.place),
            balancer.warmup_duration_secs.as_ref().map(|part| part.place),
        ];
        for place in others.into_iter().flatten() {
            self.warn(place, "has no effect: every endpoint is as near and as warm as any other");
        }
        if let Some(hash) = &balancer.consistent_hash {
            let http = [&hash.http_header_name, &hash.http_cookie, &hash.http_query_parameter_name];
            if let Some(key) = http.into_iter().flatten().next() {
                self.error(key.place, "expected useSourceIp, found a key that is in HTTP only");
                return Err(Refusal::Told);
            }
            if let Some(size) = &hash.minimum_ring_size {
                self.warn(size.place, "has no effect: clients are bound to endpoints without a ring");
            }
            if by_source {
                return Ok(Balance::SourceAddress);
            }
            self.warn(hash.place, "endpoints are chosen at random: Istio binds clients to them only by useSourceIp, at the top level or in a subset");
            return Ok(Balance::Random);
        }
        let Some(simple) = &balancer.simple else { return Ok(Balance::LeastRequest) };
        match simple.value.0 {
            SimpleBalancer::Random => Ok(Balance::Random),
            SimpleBalancer::RoundRobin => Ok(Balance::RoundRobin),
            SimpleBalancer::LeastConn | SimpleBalancer::LeastRequest | SimpleBalancer::Unspecified => {
                Ok(Balance::LeastRequest)
            }
            SimpleBalancer::Passthrough => {
                self.error(
                    simple.place,
                    "expected an algorithm that chooses, found PASSTHROUGH, which needs captured connections",
                );
                Err(Refusal::Told)
            }
        }
    }

    /// A connection that cannot be made is a failure of local origin; where those are not counted by
    /// themselves, it counts as every other.
    fn outliers(&mut self, outlier: &OutlierDetection) -> Option<Outliers> {
        if let Some(old) = &outlier.consecutive_errors {
            self.warn(old.place, "has no effect, in Istio neither: consecutive5xxErrors is what counts");
        }
        let split = outlier.split_external_local_origin_errors.as_ref().is_some_and(|split| split.value);
        let given = |at: &Option<At<i64>>, usual: i64| at.as_ref().map_or(usual, |at| at.value);
        let counts = if split {
            [given(&outlier.consecutive_local_origin_failures, FAILURES), 0]
        } else {
            [given(&outlier.consecutive_5xx_errors, FAILURES), given(&outlier.consecutive_gateway_errors, 0)]
        };
        let failures = counts.into_iter().filter(|count| *count > 0).min()?;
        let percent = |at: &Option<At<i64>>, usual| u8::try_from(given(at, usual)).unwrap_or(100);
        let time = |at: &Option<At<Duration>>, usual: Duration| at.as_ref().map_or(usual, |at| at.value);
        Some(Outliers {
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            interval: time(&outlier.interval, Duration::from_secs(10)),
            ejection_base: time(&outlier.base_ejection_time, Duration::from_secs(30)),
            ejected_percent_max: percent(&outlier.max_ejection_percent, 10),
            healthy_percent_min: percent(&outlier.min_health_percent, 0),
        })
    }

    /// `tcp` is what applies to the port, `top` what is written at the top level: how long connections may last
    /// is a matter of listeners, which Istio reads from there only.
    fn pool(&mut self, tcp: Option<&TcpPool>, top: Option<&TcpPool>) -> Pool {
        let elsewhere = tcp.filter(|tcp| top.is_none_or(|top| top.place != tcp.place));
        let lasting = |tcp: &TcpPool| {
            let age = tcp.max_connection_duration.as_ref().map(|at| at.place);
            [age, tcp.idle_timeout.as_ref().map(|at| at.place)]
        };
        for place in elsewhere.map(lasting).into_iter().flatten().flatten() {
            self.warn(place, "has no effect, in Istio neither: it counts at the top level of a rule only");
        }
        let connections_max = tcp.and_then(|tcp| tcp.max_connections.as_ref()).map(|at| at.value);
        let idle_timeout = top.and_then(|top| top.idle_timeout.as_ref()).map(|at| at.value.0);
        Pool {
            // 0 is as good as nothing said.
            connections_max: connections_max.filter(|max| *max > 0).and_then(|max| usize::try_from(max).ok()),
            keepalive: tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()).map_or(Keepalive::USUAL, keepalive),
            idle: match idle_timeout {
                None => Idle::AsProcess,
                Some(Duration::ZERO) => Idle::Never,
                Some(timeout) => Idle::After(timeout),
            },
            age_max: top.and_then(|top| top.max_connection_duration.as_ref()).map(|at| at.value),
        }
    }
}

/// Failures in a row that are too many where no number is given.
const FAILURES: i64 = 5;

/// Without a version it is the first.
fn proxy_header(written: &ProxyProtocol) -> ProxyHeader {
    match written.version.as_ref().map(|at| at.value.0) {
        None | Some(ProxyVersion::V1) => ProxyHeader::V1,
        Some(ProxyVersion::V2) => ProxyHeader::V2,
    }
}

fn keepalive(written: &TcpKeepalive) -> Keepalive {
    let usual = Keepalive::USUAL;
    let probes =
        written.probes.as_ref().and_then(|at| u32::try_from(at.value).ok()).filter(|probes| *probes > 0);
    Keepalive {
        time: written.time.as_ref().map_or(usual.time, |at| at.value),
        interval: written.interval.as_ref().map_or(usual.interval, |at| at.value),
        probes: probes.unwrap_or(usual.probes),
    }
}
