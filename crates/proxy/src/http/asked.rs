//! The decision about a request that nobody sent: what `explain` shows. It is read and routed by the same code as one
//! that somebody did. Changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use kakei_config::FieldEdits;
use kakei_wire::http1::{Heads, RequestHead, Scan};
use kakei_wire::message::{Authority, Fields};

use super::answer::write_location;
use super::decide::{Deciding, Path, Refused};
use super::rate::{is_ambiguous, values};
use super::receive::{limits, refusal};
use super::rewrite::write_target;
use super::rule::{Action, Rule};
use super::table::{Mismatch, Wanted};
use crate::record::CloseReason;
use crate::snapshot::HttpListener;

/// A request that nobody sent.
#[derive(Clone, Copy, Debug)]
pub struct Imagined<'a> {
    /// Who would send it.
    pub client: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// Like `http://shop.example.com/api?q=1`.
    pub url: &'a str,
    /// Its header fields besides `Host`.
    pub fields: &'a [(String, String)],
}

/// What would become of a request.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    /// The host that it is routed by.
    pub host: String,
    /// The path that it is routed by, normalised.
    pub path: String,
    /// By which route, or by the listener's default; none: by neither.
    pub rule: Option<Arc<Rule>>,
    /// Every route, and what of it the request lacks (none: it matches); the one that is taken first, then those that
    /// come nearest.
    pub considered: Vec<(Arc<Rule>, Option<Mismatch>)>,
    /// The status that it is refused by before its route's action is looked at, and why.
    pub refused: Option<(u16, CloseReason)>,
    /// The target that it goes on with, or the `Location` that it is sent to.
    pub target: Option<String>,
    /// What is changed in its fields, and in those of its response.
    pub edits: [FieldEdits; 2],
    /// What the limits of its rate go by, where its route has some and it comes to them.
    pub metered: Option<Arc<Metered>>,
}

/// A request that nobody sent, as the rate limits of its route see it.
#[derive(Clone, Debug)]
pub struct Metered {
    /// The route.
    pub rule: Arc<Rule>,
    /// How many workers share its limits.
    pub workers: u16,
    /// Who would send it.
    pub client: IpAddr,
    /// Of each limit, in their order: the values of the header field that it goes by.
    pub values: Vec<Vec<Vec<u8>>>,
}

impl HttpListener {
    /// What would become of a request. Limits of its rate are not asked: each worker knows for itself how much of them is
    /// used up.
    pub fn decide(&self, imagined: &Imagined<'_>) -> Decided {
        let scheme = imagined.url.split_once("://").map_or("http", |(scheme, _)| scheme);
        let decided = write(imagined).and_then(|bytes| self.read(&bytes, (imagined.client, scheme), true));
        decided.unwrap_or_else(|refused| Decided { refused: Some(refused), ..Decided::default() })
    }

    /// What would become of the request with this head; which routes were considered, and what is
    /// changed in fields, is not said.
    pub fn decide_head(&self, client: IpAddr, head: &[u8]) -> Decided {
        let decided = self.read(head, (client, "http"), false);
        decided.unwrap_or_else(|refused| Decided { refused: Some(refused), ..Decided::default() })
    }

    fn read(&self, bytes: &[u8], from: (IpAddr, &str), considers: bool) -> Result<Decided, Refused> {
        let limits = limits(self);
        Scan::default().find(bytes, &limits).map_err(refusal)?;
        let mut heads = Heads::default();
        let head = heads.request(bytes, &limits).map_err(refusal)?;
        self.route(from, &head, considers)
    }

    fn route(
        &self,
        (client, scheme): (IpAddr, &str),
        head: &RequestHead<'_>,
        considers: bool,
    ) -> Result<Decided, Refused> {
        let request = &head.request;
        let bad = (400, CloseReason::BadRequest);
        let host = match request.authority {
            "" => "".into(),
            authority => Authority::parse(authority).map_err(|_| bad)?.host,
        };
        let Path { normal: path, sent } = Path::of(head, self.knobs.ambiguous_paths)?;
        let (fields, query, method) = (request.fields, request.query, request.method);
        let wanted = Wanted { client, host: &host, path: &path, method, fields, query };
        let found = self.table.find(&wanted).cloned();
        let all = self.table.rules().filter(|_| considers);
        let mut considered: Vec<(Arc<Rule>, Option<Mismatch>)> =
            all.map(|rule| (Arc::clone(rule), rule.mismatch(&wanted))).collect();
        let is_found = |rule: &Arc<Rule>| found.as_ref().is_some_and(|found| Arc::ptr_eq(found, rule));
        considered.sort_by_key(|(rule, mismatch)| {
            // The later a route is found not to match, the nearer it comes.
            (!is_found(rule), mismatch.map_or(0, |mismatch| 10 - mismatch as usize))
        });
        let rule = found.or_else(|| self.default.clone());
        let refused = match &rule {
            None => Some((404, CloseReason::NoRoute)),
            Some(rule) if !rule.admits(client) => Some((403, CloseReason::Denied)),
            Some(rule) if method == "CONNECT" && !rule.spec.connect => Some((405, CloseReason::NotAllowed)),
            Some(rule) if is_ambiguous(rule, &fields) || rule.lacks_host(&host) || rule.climbs(&path) => Some(bad),
            Some(_) => None,
        };
        let deciding = (&Deciding { head, host: &host, path: &path, sent: &sent, added: &[] }, scheme);
        let target = rule.as_ref().and_then(|rule| target(rule, deciding));
        let edits = rule.as_ref().filter(|_| considers).map(|rule| rule.edits(&path)).unwrap_or_default();
        let limited = rule.as_ref().filter(|_| considers && refused.is_none());
        let metered = limited.and_then(|rule| self.metered(rule, client, &fields));
        let (host, path) = (host.to_string(), String::from_utf8_lossy(&path).into_owned());
        Ok(Decided { host, path, rule, considered, refused, target, edits, metered })
    }

    fn metered(&self, rule: &Arc<Rule>, client: IpAddr, fields: &Fields<'_>) -> Option<Arc<Metered>> {
        let limits = &rule.spec.rate_limits;
        let values = || limits.iter().map(|limit| values(limit, fields).map(<[u8]>::to_vec).collect()).collect();
        let metered = || Metered { rule: Arc::clone(rule), workers: self.workers, client, values: values() };
        (!limits.is_empty()).then(|| Arc::new(metered()))
    }
}

fn target(rule: &Rule, (deciding, scheme): (&Deciding<'_>, &str)) -> Option<String> {
    let mut out = Vec::new();
    match rule.action() {
        Action::Forward(_) | Action::Split(_) => write_target(rule, deciding, &mut out),
        Action::Redirect(redirect) => write_location((rule, redirect), (deciding, scheme), &mut out),
        Action::Respond(_) => return None,
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The head that a client would send.
fn write(imagined: &Imagined<'_>) -> Result<Vec<u8>, Refused> {
    let after = imagined.url.split_once("://").map_or(imagined.url, |(_, after)| after);
    let after = after.split('#').next().unwrap_or_default();
    let (authority, target) = match after {
        "*" => ("", after),
        after => after.split_at(after.find(['/', '?']).unwrap_or(after.len())),
    };
    let target = match target {
        _ if imagined.method == "CONNECT" => authority.to_owned(),
        "" => "/".to_owned(),
        target if target.starts_with('?') => format!("/{target}"),
        target => target.to_owned(),
    };
    // Who names no host speaks HTTP/1.0.
    let version = if authority.is_empty() { "1.0" } else { "1.1" };
    let mut head = format!("{} {target} HTTP/{version}\r\n", imagined.method);
    let names_host = imagined.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let own = (!authority.is_empty() && !names_host).then_some(("Host", authority));
    let others = imagined.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(others) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let lines = 1 + usize::from(own.is_some()) + imagined.fields.len();
    head.push_str("\r\n");
    match head.matches(['\r', '\n']).count() == 2 * (lines + 1) {
        true => Ok(head.into_bytes()),
        // A line that ends within itself is another request.
        false => Err((400, CloseReason::BadRequest)),
    }
}

#[cfg(test)]
mod tests {
    use kakei_config::{
        Document, Listener, Name, PathMatch, Protocol, RateKey, RateLimit, RequestEdits, Route, ValueMatch,
    };

    use super::*;
    use crate::snapshot::{Generation, Shared, Snapshot};

    fn compiled(routes: Vec<(&str, Route)>) -> Arc<HttpListener> {
        let listener = Listener { protocol: Protocol::Http, cluster: Some("site".into()), ..Listener::default() };
        let document = Document {
            listeners: [("web".into(), listener)].into(),
            routes: routes.into_iter().map(|(name, route)| (name.into(), route)).collect(),
            ..Document::default()
        };
        let shared = Shared { workers: 3, balance_seed: 0 };
        let snapshot = Snapshot::compile(&document, Generation(1), shared, None);
        Arc::clone(snapshot.listeners.values().next().unwrap().http.as_ref().unwrap())
    }

    fn listener() -> Arc<HttpListener> {
        let api = Route {
            listener: "web".into(),
            path: PathMatch::Prefix("/api".into()),
            cluster: Some("api".into()),
            deny: vec!["192.0.2.0/24".parse().unwrap()],
            request: RequestEdits { path: Some("/v2{rest}".into()), ..RequestEdits::default() },
            response: FieldEdits { set: [("x-was".into(), "{path}".into())].into(), ..FieldEdits::default() },
            ..Route::default()
        };
        let headers = [("x-beta".to_owned(), ValueMatch::Exact("1".into()))].into();
        let beta = Route { headers, deny: Vec::new(), ..api.clone() };
        compiled(vec![("api", api), ("beta", beta)])
    }

    fn decide(method: &str, url: &str, fields: &[(&str, &str)]) -> Decided {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let client = "192.0.2.7".parse().unwrap();
        listener().decide(&Imagined { client, method, url, fields: &fields })
    }

    fn route(decided: &Decided) -> Option<Name> {
        decided.rule.as_ref().and_then(|rule| rule.route.clone())
    }

    #[test]
    fn a_request_that_nobody_sent_goes_where_one_that_somebody_did_would() {
        let plain = decide("GET", "https://Shop.Example.com:80/x/../api/y?q=1#z", &[]);
        assert_eq!((plain.host.as_str(), plain.path.as_str()), ("shop.example.com", "/api/y"));
        assert_eq!((route(&plain), plain.refused), (Some("api".into()), Some((403, CloseReason::Denied))));
        assert_eq!(plain.target.as_deref(), Some("/v2/y?q=1"));
        assert_eq!((plain.edits[0].set.len(), &*plain.edits[1].set["x-was"]), (0, "/api/y"));
        let beta = decide("GET", "http://a/api", &[("X-Beta", "1")]);
        assert_eq!((route(&beta), beta.refused), (Some("beta".into()), None));
        assert_eq!(beta.target.as_deref(), Some("/v2"));
        let other = decide("GET", "http:///", &[]);
        assert_eq!((route(&other), other.refused, other.target.as_deref()), (None, None, Some("/")));
        assert_eq!(decide("CONNECT", "http://a:80", &[]).refused, Some((405, CloseReason::NotAllowed)));
    }

    #[test]
    fn what_is_no_request_is_refused_as_one() {
        let bad = [
            decide("G(T", "http://a/", &[]),
            decide("GET", "http://a b/", &[]),
            decide("GET", "http://a/%zz", &[]),
            decide("GET", "http://a/", &[("x", "1\r\nx-beta: 1")]),
            decide("GET", "http://a/", &[("x y", "1")]),
            decide("GET", "http://a/", &[("host", "b"), ("Host", "c")]),
        ];
        assert!(bad.iter().all(|decided| decided.refused == Some((400, CloseReason::BadRequest))), "{bad:?}");
        let long = format!("http://a/{}", "x".repeat(10_000));
        assert_eq!(decide("GET", &long, &[]).refused, Some((414, CloseReason::TooLarge)));
    }

    #[test]
    fn what_comes_to_its_routes_limits_has_what_they_go_by() {
        let by = |by| RateLimit { requests: 1, by, ..RateLimit::default() };
        let limits = vec![by(RateKey::Header("x-key".into())), by(RateKey::Client), by(RateKey::Header("x-b".into()))];
        let api = Route {
            listener: "web".into(),
            cluster: Some("api".into()),
            deny: vec!["192.0.2.0/24".parse().unwrap()],
            rate_limits: limits,
            ..Route::default()
        };
        let http = compiled(vec![("api", api)]);
        let key = |value: &str| ("X-Key".to_owned(), value.to_owned());
        let metered = |client: &str, fields: &[(String, String)]| {
            let client = client.parse().unwrap();
            http.decide(&Imagined { client, method: "GET", url: "http://a/", fields }).metered
        };
        let found = metered("198.51.100.7", &[key(" b ")]).unwrap();
        assert_eq!(found.values, [vec![b"b".to_vec()], vec![], vec![]]);
        assert!(metered("198.51.100.7", &[key("a"), key("b")]).is_none(), "nor who says twice who it is");
        assert_eq!((found.client, found.workers), ("198.51.100.7".parse().unwrap(), 3));
        assert!(metered("192.0.2.7", &[]).is_none(), "who may not pass counts nowhere");
        let client = "192.0.2.7".parse().unwrap();
        assert!(http.decide_head(client, b"GET / HTTP/1.0\r\n\r\n").metered.is_none());
        assert!(decide("GET", "http:///", &[]).metered.is_none(), "there are no limits");
    }
}
