//! A request -> a response. Everything is bounded before it comes here; whoever may not ask is refused first.

use std::net::IpAddr;

use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};

use super::state::State;
use super::{exposition, guard, metrics, readiness};

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Whoever orders must send this: a form or a script of another site's page cannot.
const ORDER_HEADER: (&str, &str) = ("x-twinlock", "1");

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Health,
    Readiness,
    Metrics,
    Certificates,
    Order(Order),
}

const PATHS: [(&str, Endpoint); 6] = [
    ("/healthz", Endpoint::Health),
    ("/readyz", Endpoint::Readiness),
    ("/metrics", Endpoint::Metrics),
    ("/certs", Endpoint::Certificates),
    ("/reload", Endpoint::Order(Order::Reload)),
    ("/drain", Endpoint::Order(Order::Drain)),
];

/// What the process can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Look at the configuration and the credentials now.
    Reload,
    /// Accept no more, and end when the connections have.
    Drain,
}

impl Order {
    /// The name used in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Drain => "drain",
        }
    }
}

/// What is asked about.
pub struct Subject {
    /// Looks at the process.
    pub state: Box<dyn Fn() -> State + Send + Sync>,
    /// The credentials in use, as JSON.
    pub certificates: Box<dyn Fn() -> String + Send + Sync>,
    /// Passes on an order; `false` if it could not be.
    pub order: Box<dyn Fn(Order) -> bool + Send + Sync>,
}

/// Answers a request that came in at this address.
pub fn answer<B: Body>(request: &Request<B>, local: IpAddr, subject: &Subject) -> Response<String> {
    let mut response = refusal(request, local).unwrap_or_else(|| reply(request, subject));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Why a request is not looked at.
fn refusal<B: Body>(request: &Request<B>, local: IpAddr) -> Option<Response<String>> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let named = request.uri().authority().is_none_or(|authority| guard::is_ours(authority.as_str(), local));
    if hosts.next().is_some() || !named || !host.is_some_and(|host| guard::is_ours(host, local)) {
        let expected =
            "expected a host that is localhost, a loopback address or the address that was asked\n";
        return Some(text(StatusCode::MISDIRECTED_REQUEST, expected));
    }
    (!request.body().is_end_stream())
        .then(|| text(StatusCode::PAYLOAD_TOO_LARGE, "expected a request without a body\n"))
}

fn reply<B: Body>(request: &Request<B>, subject: &Subject) -> Response<String> {
    let found = PATHS.iter().find(|(path, _)| *path == request.uri().path());
    let Some((_, endpoint)) = found else {
        let paths = PATHS.map(|(path, _)| path).join(", ");
        return text(StatusCode::NOT_FOUND, &format!("expected one of {paths}\n"));
    };
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    match endpoint {
        Endpoint::Order(order) => ordered(request, *order, subject),
        Endpoint::Health | Endpoint::Readiness | Endpoint::Metrics | Endpoint::Certificates if !reads => {
            not_allowed("GET, HEAD")
        }
        Endpoint::Health => text(StatusCode::OK, "ok\n"),
        Endpoint::Readiness => ready(&(subject.state)(), request.uri().query() == Some("verbose")),
        Endpoint::Metrics => typed(StatusCode::OK, exposition::MEDIA_TYPE, metrics::text(&(subject.state)())),
        Endpoint::Certificates => typed(StatusCode::OK, JSON, (subject.certificates)()),
    }
}

fn ordered<B>(request: &Request<B>, order: Order, subject: &Subject) -> Response<String> {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let (name, value) = ORDER_HEADER;
    if request.headers().get(name).is_none_or(|found| found != value) {
        return text(StatusCode::FORBIDDEN, &format!("expected the header {name}: {value}\n"));
    }
    if (subject.order)(order) {
        text(StatusCode::ACCEPTED, &format!("told to {}\n", order.label()))
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "too many orders at once\n")
    }
}

fn ready(state: &State, verbose: bool) -> Response<String> {
    let missing = readiness::missing(state);
    let (status, word) = if missing.is_empty() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    let lines = missing.iter().filter(|_| verbose).map(|what| format!("{what}\n"));
    text(status, &std::iter::once(word.to_owned()).chain(lines).collect::<String>())
}

fn not_allowed(methods: &'static str) -> Response<String> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("expected one of {methods}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    typed(status, PLAIN, body.to_owned())
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
