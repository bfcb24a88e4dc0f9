//! Who may come in.
//!
//! A Unix socket lets in the daemon's user and root, by the credentials that the kernel vouches for. A TCP address asks
//! in this order, so that a stranger learns as little as possible: is the request for a name of ours (DNS rebinding
//! brings a foreign one), does a page of a foreign origin make it, does it carry the token.

pub mod token;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use outlive_protocol::http::{API_VERSION, Problem};

use crate::problem;
use crate::websocket::handshake::offered_token;
use token::Token;

/// Carries the API's version in each answer, and, where a client sends it, in requests.
pub const API_VERSION_HEADER: HeaderName = HeaderName::from_static("outlive-api");

/// The one path that answers without a token: whether anybody is there.
const LIVE: &str = "/v1/live";

/// Whom a TCP address lets in.
#[derive(Clone, Debug)]
pub struct TcpPolicy {
    /// The token that each request has to carry.
    pub token: Token,
    /// Further names of this server that a `Host` header may hold, without a port.
    pub hosts: Vec<String>,
    /// Further origins whose pages may use the API, for instance `https://notebooks.example.org`.
    pub origins: Vec<String>,
}

/// How a connection came in.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// By the Unix socket.
    Unix {
        /// The peer's user as the kernel says; `None` when it does not.
        peer: Option<u32>,
    },
    /// By TCP.
    Tcp {
        /// The address that it reached.
        local: IpAddr,
        /// Whom that address lets in.
        policy: Arc<TcpPolicy>,
    },
}

/// A request that may come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Admitted {
    /// Who it is.
    pub guest: Guest,
    /// A foreign origin that is allowed: its browser has to be told so.
    pub origin: Option<HeaderValue>,
}

/// How far a request is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guest {
    /// It showed a token or credentials.
    Known,
    /// It showed nothing: only [`LIVE`] answers, and only that it is there.
    Unknown,
    /// A browser asks whether it may ask (CORS preflight).
    Preflight,
}

impl Door {
    /// Lets a request in, or says why not. `cluster` is the token of the other nodes, of a node that has any.
    pub(crate) fn admit(&self, head: &Parts, cluster: Option<&Token>) -> Result<Admitted, Problem> {
        let admitted = match self {
            Self::Unix { peer } => {
                let owner = rustix::process::geteuid().as_raw();
                if *peer != Some(owner) && *peer != Some(0) {
                    return Err(problem::wrong_user(*peer, owner));
                }
                Admitted { guest: Guest::Known, origin: None }
            }
            Self::Tcp { local, policy } => policy.admit(*local, head, cluster)?,
        };
        check_version(&head.headers)?;
        Ok(admitted)
    }
}

impl TcpPolicy {
    fn admit(&self, local: IpAddr, head: &Parts, cluster: Option<&Token>) -> Result<Admitted, Problem> {
        let host = self.check_host(local, head)?;
        let origin = self.check_origin(&host, &head.headers)?;
        let is_known = |token| self.token.is(token) || cluster.is_some_and(|cluster| cluster.is(token));
        let guest = match (presented(head), &head.method) {
            (Some(token), _) if is_known(token) => Guest::Known,
            (None, &Method::OPTIONS) if origin.is_some() => Guest::Preflight,
            (_, &Method::GET | &Method::HEAD) if head.uri.path() == LIVE => Guest::Unknown,
            (Some(_), _) => return Err(problem::wrong_token()),
            (None, _) => return Err(problem::no_token()),
        };
        Ok(Admitted { guest, origin })
    }

    /// An attacker's page can make its own name resolve to our address, but it cannot make the browser send another
    /// name than its own: so a name that is not ours is refused. The port says nothing (it may be forwarded).
    fn check_host(&self, local: IpAddr, head: &Parts) -> Result<Authority, Problem> {
        let mut hosts = head.headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(problem::no_host()) };
        let host = Authority::try_from(host.as_bytes())
            .map_err(|_| problem::foreign_host(&String::from_utf8_lossy(host.as_bytes())))?;
        for name in [Some(&host), head.uri.authority()].into_iter().flatten().map(Authority::host) {
            let bare = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
            let ours = match bare.parse::<IpAddr>() {
                Ok(address) => address.is_loopback() || address == local,
                Err(_) => bare.eq_ignore_ascii_case("localhost"),
            };
            if !ours && !self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare)) {
                return Err(problem::foreign_host(name));
            }
        }
        Ok(host)
    }

    /// `None` for our own pages and for programs that are no browser.
    fn check_origin(&self, host: &Authority, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(None) };
        let text = origin.to_str().unwrap_or("unreadable");
        if origins.next().is_some() {
            return Err(problem::cross_origin("several origins"));
        }
        if self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)) {
            return Ok(Some(origin.clone()));
        }
        let (scheme, place) = text.split_once("://").unwrap_or(("", text));
        if matches!(scheme, "http" | "https") && place.eq_ignore_ascii_case(host.as_str()) {
            return Ok(None);
        }
        Err(problem::cross_origin(text))
    }
}

/// The token that a request carries: in its header, else in its query (EventSource and links cannot set headers), else
/// among the subprotocols of a WebSocket (nor can a browser there).
fn presented(head: &Parts) -> Option<&[u8]> {
    if let Some(value) = head.headers.get(AUTHORIZATION) {
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, token) = value.split_at(space);
        let known = [&b"bearer"[..], b"token"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
        return known.then(|| token.trim_ascii());
    }
    let in_query = head.uri.query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    in_query.map(str::as_bytes).or_else(|| offered_token(&head.headers))
}

/// A client of another major version must not guess what our bodies mean.
fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(theirs) = headers.get(&API_VERSION_HEADER) else { return Ok(()) };
    let theirs = String::from_utf8_lossy(theirs.as_bytes());
    let major = theirs.split('.').next().and_then(|major| major.trim().parse::<u32>().ok());
    if major == Some(API_VERSION) { Ok(()) } else { Err(problem::version_mismatch(&theirs)) }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const CLUSTER: &str = "fedcba9876543210fedcba9876543210";

    fn policy() -> TcpPolicy {
        TcpPolicy {
            token: Token::new(TOKEN).unwrap(),
            hosts: vec!["notebooks.example.org".to_owned()],
            origins: vec!["https://trusted.example.org".to_owned()],
        }
    }

    fn admit(uri: &str, headers: &[(&str, &str)]) -> Result<Guest, String> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let door = Door::Tcp { local: "10.0.0.7".parse().unwrap(), policy: Arc::new(policy()) };
        let cluster = Token::new(CLUSTER).unwrap();
        door.admit(&head, Some(&cluster)).map(|admitted| admitted.guest).map_err(|problem| problem.code)
    }

    // B6
    #[test]
    fn hosts() {
        let bearer = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");
        for ours in [
            "localhost:7000",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:7000",
            "10.0.0.7:7000",
            "notebooks.example.org",
        ] {
            assert_eq!(admit("/v1/node", &[("host", ours), bearer]), Ok(Guest::Known), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example:7000", "10.0.0.8", "127.0.0.1.evil.example", "user@evil"]
        {
            let refused = admit("/v1/live", &[("host", foreign), bearer]);
            assert_eq!(refused, Err("foreign-host".to_owned()), "{foreign}");
        }
        assert_eq!(admit("/v1/node", &[bearer]), Err("no-host".to_owned()));
        let two = [("host", "localhost"), ("host", "evil.example"), bearer];
        assert_eq!(admit("/v1/node", &two), Err("no-host".to_owned()));
        let absolute = admit("http://evil.example/v1/node", &[("host", "localhost"), bearer]);
        assert_eq!(absolute, Err("foreign-host".to_owned()));
    }

    // B6
    #[test]
    fn origins() {
        let host = ("host", "localhost:7000");
        let bearer = ("authorization", "token 0123456789abcdef0123456789abcdef");
        for ours in ["http://localhost:7000", "https://localhost:7000", "https://trusted.example.org"] {
            assert_eq!(admit("/v1/node", &[host, bearer, ("origin", ours)]), Ok(Guest::Known), "{ours}");
        }
        for foreign in ["http://localhost:7001", "null", "https://evil.example", "file://localhost:7000"] {
            let refused = admit("/v1/node", &[host, bearer, ("origin", foreign)]);
            assert_eq!(refused, Err("cross-origin".to_owned()), "{foreign}");
        }
    }

    // B6
    #[test]
    fn tokens() {
        let host = ("host", "localhost");
        assert_eq!(admit("/v1/node", &[host]), Err("no-token".to_owned()));
        assert_eq!(admit("/v1/live", &[host]), Ok(Guest::Unknown));
        for wrong in ["Bearer x", "Bearer ", "Basic 0123456789abcdef0123456789abcdef"] {
            assert!(admit("/v1/node", &[host, ("authorization", wrong)]).is_err(), "{wrong}");
        }
        assert_eq!(admit(&format!("/v1/node?a=b&token={TOKEN}"), &[host]), Ok(Guest::Known));
        let node = ("authorization", "Bearer fedcba9876543210fedcba9876543210");
        assert_eq!(admit("/v1/node", &[host, node]), Ok(Guest::Known), "another node of the cluster");
        let elsewhere = admit("/v1/node", &[("host", "evil.example"), node]);
        assert_eq!(elsewhere, Err("foreign-host".to_owned()), "by a name of ours");
        assert_eq!(admit("/v1/node?token=", &[host]), Err("wrong-token".to_owned()));
        let header_first = admit(&format!("/v1/node?token={TOKEN}"), &[host, ("authorization", "Bearer x")]);
        assert_eq!(header_first, Err("wrong-token".to_owned()));
    }

    #[test]
    fn versions() {
        let known = [("host", "localhost"), ("authorization", "Bearer 0123456789abcdef0123456789abcdef")];
        let with = |version| admit("/v1/node", &[known[0], known[1], ("outlive-api", version)]);
        assert_eq!(with("1"), Ok(Guest::Known));
        assert_eq!(with("1.7"), Ok(Guest::Known));
        assert_eq!(with("2"), Err("version-mismatch".to_owned()));
        assert_eq!(with("one"), Err("version-mismatch".to_owned()));
    }

    // B6
    #[test]
    fn a_stranger_on_the_unix_socket_is_refused() {
        let (head, ()) = Request::get("/v1/node").body(()).unwrap().into_parts();
        let own = rustix::process::geteuid().as_raw();
        for (peer, code) in [
            (Some(own), None),
            (Some(0), None),
            (Some(own + 1), Some("wrong-user")),
            (None, Some("wrong-user")),
        ] {
            let refused = Door::Unix { peer }.admit(&head, None).err().map(|problem| problem.code);
            assert_eq!(refused.as_deref(), code, "{peer:?}");
        }
    }
}
