//! Where a client's datagram or connection would go, and why not elsewhere. Asks no worker and changes nothing; what
//! workers said beside it is put in.

mod rates;
mod requests;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub use self::rates::{Rated, RatedWorker};
pub use self::requests::{Edits, Requested};
pub use self::tls::{Met, Shaken};
use kakei_config::{Affinity, Balance, Document, Name, Protocol};
use kakei_proxy::balance::{self, Member};
use kakei_proxy::seam::{BindKey, RateUse, Transport};
use kakei_proxy::snapshot::{Asked, Cluster, Generation, Listener, Metered};
use kakei_proxy::stats::BackendMetric;
use schemars::JsonSchema;
use serde::Serialize;

use crate::sums::Sums;
use crate::view::View;

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The address that was dialled; none: a request was asked for, wherever it arrives.
    pub local: Option<SocketAddr>,
    /// Who dialled it.
    pub client: SocketAddr,
    /// What happens, in one sentence.
    pub verdict: String,
    /// The reason, where nothing is forwarded.
    pub dropped: Option<&'static str>,
    /// The listener that has the address.
    pub listener: Option<Name>,
    /// A request over TLS: what becomes of its handshake.
    pub tls: Option<Shaken>,
    /// Routes of the listener, in the order in which they are tried.
    pub considered: Vec<Considered>,
    /// HTTP: what is done to the request.
    pub request: Option<Requested>,
    /// HTTP: how much of the route's rate limits is used up, where workers were asked.
    pub rates: Vec<Rated>,
    /// What they are to be asked.
    #[serde(skip)]
    pub(crate) metered: Option<Arc<Metered>>,
    /// The route that matched; none: the listener's own cluster.
    pub route: Option<Name>,
    /// The cluster.
    pub cluster: Option<Name>,
    /// How the cluster chooses.
    pub balance: Option<Balance>,
    /// What its choice hashes.
    pub affinity: Option<Affinity>,
    /// The backend that this client always gets while nothing changes; none where the choice is not settled.
    pub chosen: Option<Name>,
    /// The cluster's backends.
    pub backends: Vec<Candidate>,
}

/// One way to match a route that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Considered {
    /// The route.
    pub route: Option<Name>,
    /// The server name that it asks for.
    pub sni: Option<String>,
    /// The protocol that it asks for.
    pub alpn: Option<String>,
    /// The network that it asks for.
    pub source: Option<String>,
    /// HTTP: the hosts and the path that it asks for.
    pub asks: Option<String>,
    /// Where it leads; none: it is answered by the proxy itself, or several share it.
    pub cluster: Option<Name>,
    /// Whether it matches the client.
    pub matches: bool,
    /// Why it is taken or not.
    pub why: &'static str,
}

/// A backend that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Candidate {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub address: kakei_proxy::seam::Endpoint,
    /// Its share.
    pub weight: u32,
    /// Whether it takes the flow, or may.
    pub eligible: bool,
    /// Why it does or not.
    pub why: &'static str,
}

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// A datagram or a connection.
    pub protocol: Protocol,
    /// The address that is dialled; none: that of the listener that `url` or `listener` leads to.
    pub local: Option<SocketAddr>,
    /// HTTP: the listener, where several could be meant.
    pub listener: Option<Name>,
    /// Who dials it.
    pub client: SocketAddr,
    /// The server name of its ClientHello.
    pub sni: Option<String>,
    /// A protocol that its ClientHello offers.
    pub alpn: Option<String>,
    /// What an HTTP client asks for: `http://shop.example.com/api?q=1`.
    pub url: Option<String>,
    /// By which method; none: GET.
    pub method: Option<String>,
    /// With which header fields.
    pub headers: Vec<(String, String)>,
}

/// Who asks for a request where nobody is named.
pub const ANYONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A header field from its line: `name: value`.
pub fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
}

/// Explain by a document alone: every backend counts as up. Certificates are read where the question is about TLS.
pub fn document(document: &Document, question: &Question) -> Explanation {
    let view = View::of(document.clone());
    let view = if tls::is_asked(question) { tls::with_files(view) } else { view };
    live(&view, None, question)
}

/// Explain by what runs.
pub fn live(view: &View, sums: Option<&Sums>, question: &Question) -> Explanation {
    let question = &Question { client: canonical(question.client), ..question.clone() };
    let mut answer = Explanation {
        local: question.local,
        client: question.client,
        verdict: String::new(),
        dropped: None,
        listener: None,
        tls: None,
        considered: Vec::new(),
        request: None,
        rates: Vec::new(),
        metered: None,
        route: None,
        cluster: None,
        balance: None,
        affinity: None,
        chosen: None,
        backends: Vec::new(),
    };
    let found = match question.local {
        Some(local) => find_listener(view, question.protocol, local).ok_or_else(|| {
            let what = if question.protocol == Protocol::Udp { "datagram" } else { "connection" };
            format!("no listener is bound to {local}: the kernel refuses the {what}")
        }),
        None => requests::listener_of(view, question),
    };
    match found {
        Ok(listener) => follow(&mut answer, view, sums, (listener, question)),
        Err(verdict) => answer.verdict = verdict,
    }
    answer
}

/// An IPv4 client is one also where it comes by IPv6, as it is for workers.
fn canonical(client: SocketAddr) -> SocketAddr {
    match client.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), client.port()),
        IpAddr::V6(_) => client,
    }
}

impl Explanation {
    /// Put in what each worker said of the route's rate limits.
    pub(crate) fn rate(&mut self, said: &BTreeMap<u16, Vec<RateUse>>) {
        self.rates = self.metered.as_ref().map(|metered| rates::rows(metered, said)).unwrap_or_default();
    }
}

fn follow(answer: &mut Explanation, view: &View, sums: Option<&Sums>, (listener, question): (&Listener, &Question)) {
    let source = answer.client.ip();
    let sni = question.sni.as_ref().map(|sni| sni.trim_end_matches('.').to_ascii_lowercase());
    let alpn: Vec<Vec<u8>> = question.alpn.iter().map(|alpn| alpn.clone().into_bytes()).collect();
    let asked = Asked { source, sni: sni.as_deref(), alpn: &alpn };
    let is_udp = question.protocol == Protocol::Udp;
    answer.listener = Some(listener.name.clone());
    let target = match &listener.http {
        Some(_) if tls::refuses(answer, view, (listener, question)) => return,
        Some(http) => match requests::follow(answer, (listener, http), question) {
            Some(target) => Some(target),
            None => return,
        },
        None => {
            answer.considered = considered(listener, asked);
            listener.route(&asked).cloned()
        }
    };
    let Some(target) = target else {
        answer.dropped = Some("no_route");
        answer.verdict =
            format!("dropped: no route of listener {} matches {source} and it has no cluster", listener.name);
        return;
    };
    let by = match &target.route {
        Some(route) => format!("route {route}"),
        None => format!("the default of listener {}", listener.name),
    };
    answer.route = target.route.clone();
    answer.cluster = Some(target.cluster.clone());
    let Some(cluster) = view.snapshot.cluster(&target.cluster) else { return };
    answer.balance = Some(cluster.balance);
    let affinity = if is_udp { cluster.knobs.affinity } else { cluster.tcp.affinity };
    answer.affinity = Some(affinity);
    answer.backends = candidates(view, sums, cluster);
    answer.chosen = chosen(view, cluster, &answer.backends, (answer.client, affinity));
    let eligible: Vec<&Name> = answer.backends.iter().filter(|b| b.eligible).map(|b| &b.name).collect();
    answer.verdict = match (&eligible[..], answer.chosen.as_ref()) {
        ([], _) => {
            answer.dropped = Some("no_backend");
            format!("dropped: by {by} to cluster {}, where no backend takes it", cluster.name)
        }
        (&[one], _) | (_, Some(one)) => format!("by {by} to backend {one} of cluster {}", cluster.name),
        (_, None) => {
            let names: Vec<&str> = eligible.iter().map(|name| name.as_str()).collect();
            format!("by {by} to cluster {}, any of {} ({})", cluster.name, names.join(", "), how(cluster.balance))
        }
    };
}

fn how(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "in turn, by weight",
        Balance::Random => "at random, by weight",
        Balance::Least => "the fewest live flows over weight",
        Balance::P2c => "the better of two at random",
        Balance::Hrw | Balance::Maglev => "always the same one for the same affinity",
    }
}

/// As a worker chooses, but for the slow start of a backend that came up just now. A client without a port, or a view
/// that nothing runs, has no settled choice.
fn chosen(
    view: &View,
    cluster: &Cluster,
    candidates: &[Candidate],
    (client, affinity): (SocketAddr, Affinity),
) -> Option<Name> {
    let port_counts = affinity == Affinity::SourceIpPort;
    if view.generation() == Generation(0) || (port_counts && client.port() == 0) {
        return None;
    }
    let mut eligible: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.eligible).collect();
    eligible.sort_by_key(|candidate| &candidate.name);
    let member = |c: &&Candidate| Member { identity: balance::identity(c.name.as_str()), weight: c.weight };
    let members: Vec<Member> = eligible.iter().map(member).collect();
    let affinity = balance::source_affinity(view.snapshot.shared.balance_seed, affinity, client);
    let at = balance::settled(cluster.balance, &members, affinity)?;
    Some(eligible[at].name.clone())
}

/// A specific address beats the wildcard of its family, as in the kernel.
fn find_listener(view: &View, protocol: Protocol, local: SocketAddr) -> Option<&Listener> {
    let transport = match protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp | Protocol::Http => Transport::Tcp,
    };
    let bound = |listener: &&Listener, wanted: SocketAddr| {
        let at = |bind: &BindKey| view.locals.get(bind).copied().unwrap_or(bind.address);
        listener.binds.iter().any(|bind| bind.transport == transport && at(bind) == wanted)
    };
    let wildcard = match local.ip() {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let listeners = || view.snapshot.listeners.values();
    let exact = listeners().find(|listener| bound(listener, local));
    exact.or_else(|| listeners().find(|listener| bound(listener, SocketAddr::new(wildcard, local.port()))))
}

fn considered(listener: &Listener, asked: Asked<'_>) -> Vec<Considered> {
    let mut taken = false;
    let entries = listener.routes.considered(asked).into_iter().map(|entry| {
        let lacks_name = entry.sni.as_ref().is_some_and(|name| !asked.sni.is_some_and(|sni| name.covers(sni)));
        let lacks_alpn = entry.alpn.is_some_and(|alpn| !asked.alpn.iter().any(|offer| offer == alpn.as_bytes()));
        let why = match (entry.matches, taken) {
            (true, false) => "the most specific that matches",
            (true, true) => "a more specific one matched",
            _ if lacks_name => "the client asks for another server name, or for none",
            _ if lacks_alpn => "the client doesn't offer this protocol",
            _ => "the client is not in this network",
        };
        taken |= entry.matches;
        Considered {
            route: entry.target.route.clone(),
            sni: entry.sni.map(|name| name.to_string()),
            alpn: entry.alpn.map(ToOwned::to_owned),
            source: entry.source.map(ToString::to_string),
            asks: None,
            cluster: Some(entry.target.cluster.clone()),
            matches: entry.matches,
            why,
        }
    });
    entries.collect()
}

fn candidates(view: &View, sums: Option<&Sums>, cluster: &Cluster) -> Vec<Candidate> {
    let up = |name: &Name| match sums.and_then(|sums| sums.backend(&cluster.name, name)) {
        Some(stats) => stats.values[BackendMetric::Up] > 0,
        None => view.health.up(&cluster.name, name).unwrap_or(true),
    };
    let primary_up = cluster.backends.iter().any(|b| !b.backup && b.weight > 0 && up(&b.name));
    let any_up = cluster.backends.iter().any(|b| b.weight > 0 && up(&b.name));
    let fail_open = !any_up && cluster.health.as_ref().is_some_and(|health| health.fail_open);
    let judge = |backend: &kakei_proxy::snapshot::Backend| match (backend.weight, up(&backend.name), backend.backup) {
        (0, ..) => (false, "weight 0: it takes nothing new"),
        (_, false, _) if fail_open => (true, "down, but all are, and the cluster fails open"),
        (_, false, _) => (false, "down"),
        (_, true, true) if primary_up => (false, "a backup, and others are up"),
        (_, true, true) => (true, "a backup, and no other is up"),
        (_, true, false) => (true, "up"),
    };
    cluster
        .backends
        .iter()
        .map(|backend| {
            let (eligible, why) = judge(backend);
            Candidate {
                name: backend.name.clone(),
                address: backend.address.clone(),
                weight: backend.weight,
                eligible,
                why,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(asked: &Document, client: &str, request: (&str, &str)) -> Explanation {
        with_fields(asked, client, request, &[])
    }

    fn with_fields(
        asked: &Document,
        client: &str,
        (method, url): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Explanation {
        let headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let client = SocketAddr::new(client.parse().unwrap(), 0);
        let (method, url) = (Some(method.to_owned()), Some(url.to_owned()));
        let (local, listener, sni, alpn) = (None, None, None, None);
        let protocol = Protocol::Http;
        document(asked, &Question { protocol, local, listener, client, sni, alpn, url, method, headers })
    }

    #[test]
    fn a_client_that_comes_by_ipv6_with_an_ipv4_address_is_that() {
        let text = "[listeners.web]\nprotocol = \"http\"\nbind = [\"[::1]:80\"]\n\
            [routes.d]\nlistener = \"web\"\npath = \"/\"\ndeny = [\"9.9.9.0/24\"]\nrespond = {}\n\
            [routes.s]\nlistener = \"web\"\npath = \"/\"\nsource = [\"8.8.8.8\"]\nrespond = {}\n";
        let asked = kakei_config::parse_toml(text).unwrap();
        for client in ["9.9.9.9", "::ffff:9.9.9.9"] {
            let answer = explained(&asked, client, ("GET", "http://a.test/"));
            assert_eq!((answer.dropped, answer.client.ip().to_string().as_str()), (Some("denied"), "9.9.9.9"));
        }
        assert_eq!(explained(&asked, "::ffff:8.8.8.8", ("GET", "http://a.test/")).route, Some("s".into()));
        let other = explained(&asked, "2001:db8::1", ("GET", "http://a.test/"));
        assert_eq!(other.client.ip().to_string(), "2001:db8::1");
    }

    #[test]
    fn a_request_that_says_twice_whose_limit_it_is_is_none() {
        let text = "[listeners.web]\nprotocol = \"http\"\nbind = [\"[::1]:80\"]\n\
            [routes.r]\nlistener = \"web\"\npath = \"/\"\nrespond = {}\n\
            rate_limits = [{ by = { header = \"x-key\" }, requests = 2, per = \"1s\" }]\n";
        let asked = kakei_config::parse_toml(text).unwrap();
        let explained = |fields: &[_]| with_fields(&asked, "192.0.2.1", ("GET", "http://a.test/"), fields).dropped;
        assert_eq!(explained(&[("x-key", "a"), ("x-other", "a")]), None);
        assert_eq!(explained(&[("x-key", "a"), ("X-Key", "a")]), Some("bad_request"));
    }

    #[test]
    fn what_all_of_the_server_is_asked_takes_the_route_of_its_root() {
        let text = "[listeners.web]\nprotocol = \"http\"\nbind = [\"[::1]:80\"]\n\
            [routes.root]\nlistener = \"web\"\npath = { exact = \"/\" }\nrespond = {}\n";
        let asked = kakei_config::parse_toml(text).unwrap();
        let answer = explained(&asked, "192.0.2.1", ("OPTIONS", "*"));
        assert_eq!((answer.route, answer.verdict.as_str()), (Some("root".into()), "by route root: answered by 200"));
        assert_eq!(explained(&asked, "192.0.2.1", ("GET", "*")).dropped, Some("bad_request"));
    }
}
