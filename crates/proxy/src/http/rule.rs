//! A route of an HTTP listener, compiled: what becomes of a request, what is changed in it. Matches nothing itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kakei_config::template::{Piece, pieces};
use kakei_config::{
    ClientCertificateMode, FieldEdits, Name, OnChange, PathMatch, Redirect, Respond, Retry, Route, RouteTimeouts,
    TlsRedirect,
};
use kakei_wire::message::{encode_path, is_safe, is_taken_for};

use super::credentials::Users;
use super::pattern::Pattern;
use super::strict::Strict;
use crate::snapshot::Target;

/// What becomes of a request that matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It goes to a cluster.
    Forward(Name),
    /// It goes to one of several, by weight.
    Split(Box<[(Name, u32)]>),
    /// The client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// The proxy answers.
    Respond(Box<Respond>),
}

/// Which of the clusters that its route names a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The one at this place among those that the route leads to.
    Led(usize),
    /// That of the service that says who may pass.
    Service,
}

/// A compiled route. What every request reads of it stands here, in few bytes, and what few routes have, elsewhere: among
/// very many routes what a request reads of its own is in no cache.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which; none: what the listener does with everything else.
    pub route: Option<Name>,
    /// As the operator wrote it: not for what every request asks.
    pub spec: Arc<Route>,
    pub(crate) action: Action,
    extras: Option<Box<Extras>>,
    /// Whether it keeps nobody out: no address, no client without a certificate, no one too many.
    pub(super) is_open: bool,
    /// Whether requests may be upgraded.
    pub(super) may_upgrade: bool,
    /// Whether the times of its requests are counted by themselves.
    pub(crate) is_timed: bool,
}

/// What few routes have, or have otherwise than the rest.
#[derive(Clone, Debug)]
pub(crate) struct Extras {
    pub(super) timeouts: RouteTimeouts,
    /// Further tries in a hundred requests.
    pub(super) retry_budget: u32,
    pub(super) request: Edits,
    pub(super) response: Edits,
    /// What clients that come over TLS are told of coming otherwise.
    pub(super) strict: Strict,
    /// The host and the path to go on with.
    pub(super) host: Option<Box<str>>,
    pub(super) path: Option<Template>,
    /// Who may pass by a password.
    pub(super) users: Option<Users>,
    /// The cluster of the service that says who may pass.
    pub(super) service: Option<Name>,
    regex: Option<Pattern>,
}

/// Those of a route that asks for none of it.
pub(super) static NO_EXTRAS: Extras = Extras {
    timeouts: RouteTimeouts::DEFAULT,
    retry_budget: Retry::DEFAULT_BUDGET,
    request: Edits::NONE,
    response: Edits::NONE,
    strict: Strict::AsListener,
    host: None,
    path: None,
    users: None,
    service: None,
    regex: None,
};

impl PartialEq for Rule {
    /// Everything else follows from these.
    fn eq(&self, other: &Self) -> bool {
        self.route == other.route
            && (Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec)
            && self.is_timed == other.is_timed
    }
}

impl Rule {
    /// Compile a route of a validated document.
    pub(crate) fn compile(route: Option<&Name>, spec: impl Into<Arc<Route>>) -> Self {
        let spec: Arc<Route> = spec.into();
        let action = match (&spec.cluster, &spec.redirect, &spec.respond) {
            (Some(cluster), _, _) => Action::Forward(cluster.clone()),
            (_, Some(redirect), _) => Action::Redirect(redirect.clone()),
            (_, _, Some(respond)) => Action::Respond(respond.clone()),
            _ => Action::Split(spec.split.iter().map(|(cluster, weight)| (cluster.clone(), *weight)).collect()),
        };
        Rule {
            route: route.cloned(),
            action,
            is_open: spec.allow.is_empty()
                && spec.deny.is_empty()
                && spec.rate_limits.is_empty()
                && spec.client_certificates != Some(ClientCertificateMode::Required),
            may_upgrade: spec.upgrade,
            is_timed: false,
            extras: Extras::of(&spec),
            spec,
        }
    }

    /// Whether the times of its requests are counted by themselves.
    pub(crate) fn timed(self, is_timed: bool) -> Self {
        Rule { is_timed, ..self }
    }

    /// What a listener does with what no route matches.
    pub(crate) fn default_of(cluster: Name) -> Self {
        let spec = Route { cluster: Some(cluster), on_change: OnChange::Keep, ..Route::default() };
        Rule::compile(None, spec)
    }

    /// What a listener does with what no route matches and came without TLS.
    pub(crate) fn redirect_to_tls(to: &TlsRedirect) -> Self {
        let redirect = Redirect {
            status: to.status,
            scheme: Some("https".into()),
            port: (to.port != 443).then_some(to.port),
            ..Redirect::default()
        };
        let spec = Route { redirect: Some(redirect.into()), on_change: OnChange::Keep, ..Route::default() };
        Rule::compile(None, spec)
    }

    /// Whether a request of this method may go on before its client's TLS handshake is over (RFC 8470, section 4).
    pub fn takes_early(&self, method: &str) -> bool {
        self.spec.early_data && is_safe(method)
    }

    /// What few routes have, or have otherwise than the rest.
    pub(super) fn extras(&self) -> &Extras {
        self.extras.as_deref().unwrap_or(&NO_EXTRAS)
    }

    /// What becomes of a request that matches.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// A path made by one of its templates from the path that matched, which is normalised.
    pub(crate) fn render(&self, template: &Template, path: &[u8], out: &mut Vec<u8>) {
        if template.0.is_empty() {
            return;
        }
        let prefix = match &self.spec.path {
            PathMatch::Prefix(prefix) if prefix != "/" => prefix.len(),
            _ => 0,
        };
        let mut captures = None;
        for part in &template.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Path => encode_path(path, out),
                Part::Rest => encode_path(path.get(prefix..).unwrap_or_default(), out),
                Part::Capture(number) => {
                    let Some(regex) = &self.extras().regex else { continue };
                    let captures = captures.get_or_insert_with(|| regex.captures(path));
                    if let Some(Some(group)) = captures.get(*number) {
                        encode_path(&path[group.clone()], out);
                    }
                }
            }
        }
    }

    /// Whether the path that is made of this one has `.` or `..` in it: what is a part of a name there (`a..`) can be all of
    /// one here, and leads somewhere else than the route's path says.
    pub(super) fn climbs(&self, path: &[u8]) -> bool {
        let is_capture = |part: &Part| matches!(part, Part::Capture(_));
        let Some(template) = self.extras().path.as_ref().filter(|made| made.0.iter().any(is_capture)) else {
            return false;
        };
        let mut made = Vec::new();
        self.render(template, path, &mut made);
        made.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."))
    }

    /// What is changed in the fields of a request with that path, and in those of its response.
    pub(super) fn edits(&self, path: &[u8]) -> [FieldEdits; 2] {
        let filled = |fields: &BTreeMap<String, String>| {
            let fields = fields.iter().map(|(name, value)| {
                let mut out = Vec::new();
                self.render(&Template::new(value), path, &mut out);
                (name.clone(), String::from_utf8_lossy(&out).into_owned())
            });
            fields.collect()
        };
        let Route { request, response, .. } = &*self.spec;
        let of =
            |set, add, remove: &[String]| FieldEdits { set: filled(set), add: filled(add), remove: remove.to_vec() };
        [of(&request.set, &request.add, &request.remove), of(&response.set, &response.add, &response.remove)]
    }

    /// Whether a client of that address may pass: `deny` goes before `allow`.
    pub fn admits(&self, client: IpAddr) -> bool {
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
        !within(&self.spec.deny) && (self.spec.allow.is_empty() || within(&self.spec.allow))
    }

    /// Whether it sends clients to a host that only the request could name, which doesn't.
    pub(super) fn lacks_host(&self, host: &str) -> bool {
        matches!(&self.action, Action::Redirect(redirect) if host.is_empty() && redirect.needs_host())
    }

    /// Whether it asks who the client is.
    pub fn is_guarded(&self) -> bool {
        let Extras { users, service, .. } = self.extras();
        users.is_some() || service.is_some()
    }

    /// The clusters that it leads to.
    fn clusters(&self) -> impl Iterator<Item = &Name> {
        let (one, several) = match &self.action {
            Action::Forward(cluster) => (Some(cluster), &[][..]),
            Action::Split(split) => (None, &split[..]),
            Action::Redirect(_) | Action::Respond(_) => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().map(|(cluster, _)| cluster))
    }

    /// The cluster that is meant.
    pub(super) fn cluster(&self, goal: Goal) -> Option<&Name> {
        match (goal, &self.action) {
            (Goal::Led(_), Action::Forward(cluster)) => Some(cluster),
            (Goal::Led(at), Action::Split(split)) => split.get(at).map(|(cluster, _)| cluster),
            (Goal::Led(_), Action::Redirect(_) | Action::Respond(_)) => None,
            (Goal::Service, _) => self.extras().service.as_ref(),
        }
    }

    /// What a request means that goes to this cluster, or is held and asks its service there; none: it leads to no such
    /// cluster.
    pub(super) fn goal(&self, cluster: &Name, is_held: bool) -> Option<Goal> {
        match is_held {
            true => (self.extras().service.as_ref()? == cluster).then_some(Goal::Service),
            false => self.clusters().position(|known| known == cluster).map(Goal::Led),
        }
    }

    /// What a change of the route does to what goes there. To a question about a client it does nothing.
    pub(super) fn on_change(&self, goal: Goal) -> OnChange {
        match goal {
            Goal::Led(_) => self.spec.on_change,
            Goal::Service => OnChange::Keep,
        }
    }

    /// Where one that it leads to is, and what a change of the route does to what goes there.
    pub fn target(&self, cluster: &Name) -> Target {
        Target { route: self.route.clone(), cluster: cluster.clone(), on_change: self.spec.on_change }
    }

    /// Whether it leads where that target does.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        self.route == target.route && self.clusters().any(|cluster| *cluster == target.cluster)
    }
}

impl Extras {
    /// None: the route has nothing of them.
    fn of(spec: &Route) -> Option<Box<Self>> {
        let regex = match &spec.path {
            PathMatch::Regex(text) => Pattern::compile(text),
            _ => None,
        };
        let Route { request, response, .. } = spec;
        // What only the service says of a client, no client says of itself.
        let copied = spec.auth.forward.as_ref().map_or(&[][..], |forward| &forward.copy);
        let extras = Extras {
            timeouts: spec.timeouts.clone(),
            retry_budget: spec.retry.budget,
            request: Edits::new(&[&request.remove[..], copied].concat(), &request.set, &request.add),
            response: Edits::new(&response.remove, &response.set, &response.add),
            strict: Strict::of(spec),
            host: request.host.as_deref().map(Box::from),
            path: request.path.as_deref().map(Template::new),
            users: spec.auth.basic.as_deref().map(Users::compile),
            service: spec.auth.forward.as_ref().map(|forward| forward.cluster.clone()),
            regex,
        };
        (!extras.is_empty()).then(|| Box::new(extras))
    }

    fn is_empty(&self) -> bool {
        let Extras { timeouts, retry_budget, request, response, strict, host, path, users, service, regex } = self;
        *timeouts == RouteTimeouts::DEFAULT
            && *retry_budget == Retry::DEFAULT_BUDGET
            && request.is_empty()
            && response.is_empty()
            && *strict == Strict::AsListener
            && host.is_none()
            && path.is_none()
            && users.is_none()
            && service.is_none()
            && regex.is_none()
    }
}

/// Changes of fields, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Names of those that go, in lower case.
    removed: Vec<Box<[u8]>>,
    /// Those that come, as lines.
    pub(crate) lines: Template,
}

impl Edits {
    const NONE: Edits = Edits { removed: Vec::new(), lines: Template(Vec::new()) };

    fn new<'a>(
        remove: &[String],
        set: impl IntoIterator<Item = (&'a String, &'a String)> + Clone,
        add: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let lower = |name: &String| name.to_ascii_lowercase().into_bytes().into_boxed_slice();
        let removed = remove.iter().chain(set.clone().into_iter().map(|(name, _)| name)).map(lower).collect();
        let mut lines = Template::default();
        for (name, value) in set.into_iter().chain(add) {
            lines.push_text(&format!("{name}: "));
            lines.push(value);
            lines.push_text("\r\n");
        }
        Edits { removed, lines }
    }

    /// Whether a field of this name goes, or of one that may be taken for it.
    pub(crate) fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| is_taken_for(name, removed))
    }

    /// Whether nothing is changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.lines.0.is_empty()
    }
}

/// A text with places for parts of the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path,
    Rest,
    Capture(usize),
}

impl Template {
    /// From a text that validation has seen.
    pub(crate) fn new(text: &str) -> Self {
        let mut template = Template::default();
        template.push(text);
        template
    }

    fn push(&mut self, text: &str) {
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => self.push_text(text),
                Piece::Place("path") => self.0.push(Part::Path),
                Piece::Place("rest") => self.0.push(Part::Rest),
                Piece::Place(number) => self.0.push(Part::Capture(number.parse().unwrap_or(usize::MAX))),
            }
        }
    }

    fn push_text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.0.push(Part::Text(text.to_owned())),
        }
    }

    /// Whether what comes of it depends on the path.
    pub(crate) fn has_places(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Text(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kakei_config::{Auth, BasicAuth, ForwardAuth, Hsts, RateLimit, RequestEdits};

    use super::*;

    /// A service that says who may pass.
    fn asked(cluster: &str) -> ForwardAuth {
        ForwardAuth {
            cluster: cluster.into(),
            path: "/".into(),
            headers: Vec::new(),
            copy: Vec::new(),
            user: None,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_route_is_open_until_it_may_keep_somebody_out() {
        let network = || vec!["192.0.2.0/24".parse().unwrap()];
        let required = Some(ClientCertificateMode::Required);
        for (route, is_open) in [
            (Route::default(), true),
            (Route { client_certificates: Some(ClientCertificateMode::Optional), ..Route::default() }, true),
            (Route { client_certificates: required, ..Route::default() }, false),
            (Route { allow: network(), ..Route::default() }, false),
            (Route { deny: network(), ..Route::default() }, false),
            (Route { rate_limits: vec![RateLimit::default()], ..Route::default() }, false),
        ] {
            assert_eq!(Rule::compile(None, route.clone()).is_open, is_open, "{route:?}");
        }
    }

    #[test]
    fn a_goal_names_its_cluster_and_is_found_again_by_it() {
        let route = Route {
            split: [("a".into(), 1), ("b".into(), 2)].into(),
            auth: Auth { forward: Some(asked("who").into()), ..Auth::default() },
            on_change: OnChange::Close,
            ..Route::default()
        };
        let rule = Rule::compile(Some(&"r".into()), route);
        for (goal, cluster, is_held, on_change) in [
            (Goal::Led(0), "a", false, OnChange::Close),
            (Goal::Led(1), "b", false, OnChange::Close),
            (Goal::Service, "who", true, OnChange::Keep),
        ] {
            let cluster = Name::new(cluster);
            assert_eq!(rule.cluster(goal), Some(&cluster));
            assert_eq!(rule.goal(&cluster, is_held), Some(goal));
            assert_eq!(rule.goal(&cluster, !is_held), None, "{cluster}");
            assert_eq!(rule.on_change(goal), on_change, "a change is nothing to a question");
            assert_eq!(rule.leads_to(&rule.target(&cluster)), !is_held);
        }
        assert_eq!(rule.cluster(Goal::Led(2)), None);
    }

    #[test]
    fn whatever_a_route_has_alone_is_kept() {
        let edits = || FieldEdits { remove: vec!["server".into()], ..FieldEdits::default() };
        let request = |change: fn(&mut RequestEdits)| {
            let mut request = RequestEdits::default();
            change(&mut request);
            Route { request, ..Route::default() }
        };
        let (basic, forward) = (BasicAuth { realm: String::new(), users: BTreeMap::new() }, asked("who"));
        let later = RouteTimeouts { idle: Duration::from_secs(61), ..RouteTimeouts::default() };
        let tried = Retry { budget: 21, ..Retry::default() };
        type Has = fn(&Extras) -> bool;
        let all: [(Route, Has); 10] = [
            (Route { timeouts: later, ..Route::default() }, |has| has.timeouts.idle == Duration::from_secs(61)),
            (Route { retry: tried, ..Route::default() }, |has| has.retry_budget == 21),
            (request(|request| request.remove = vec!["server".into()]), |has| has.request.removes(b"server")),
            (Route { response: edits(), ..Route::default() }, |has| has.response.removes(b"server")),
            (Route { hsts: Some(Hsts::default()), ..Route::default() }, |has| matches!(has.strict, Strict::Line(_))),
            (request(|request| request.host = Some("b".into())), |has| has.host.as_deref() == Some("b")),
            (request(|request| request.path = Some("/v2{rest}".into())), |has| has.path.is_some()),
            (Route { auth: Auth { basic: Some(basic.into()), forward: None }, ..Route::default() }, |has| {
                has.users.is_some()
            }),
            (Route { auth: Auth { forward: Some(forward.into()), basic: None }, ..Route::default() }, |has| {
                has.service.is_some()
            }),
            (Route { path: PathMatch::Regex("/a".into()), ..Route::default() }, |has| has.regex.is_some()),
        ];
        let plain = Rule::compile(None, Route::default());
        assert!(plain.extras.is_none());
        for (route, has) in all {
            assert!(has(Rule::compile(None, route.clone()).extras()) && !has(plain.extras()), "{route:?}");
        }
    }

    #[test]
    fn templates_put_the_parts_of_a_path_elsewhere() {
        let rule = |path: PathMatch| Rule::compile(None, Route { path, ..Route::default() });
        let render = |rule: &Rule, template: &str, path: &str| {
            let mut out = Vec::new();
            rule.render(&Template::new(template), path.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let prefix = rule(PathMatch::Prefix("/api".into()));
        assert_eq!(render(&prefix, "/v2{rest}", "/api/x y"), "/v2/x%20y");
        assert_eq!(render(&prefix, "/v2{rest}", "/api"), "/v2");
        assert_eq!(render(&prefix, "/new{path}", "/api/x"), "/new/api/x");
        let regex = rule(PathMatch::Regex("/u/([a-z]+)/([0-9]+)".into()));
        assert_eq!(render(&regex, "/{2}/of/{1}{3}", "/u/bob/7"), "/7/of/bob");
        let root = rule(PathMatch::Prefix("/".into()));
        assert_eq!(render(&root, "/v2{rest}", "/a"), "/v2/a");
    }

    #[test]
    fn fields_are_filled_in_by_the_path_and_no_path_ends_one() {
        let set = [("x-a", "of {rest}!"), ("x-nel", "{\"a\":{\"b\":{{rest}}}}")];
        let add = [("x-a", "too"), ("x-b", "{path}{rest}")];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let response =
            FieldEdits { set: set.map(owned).into(), add: add.map(owned).into(), remove: vec!["server".into()] };
        let path = PathMatch::Prefix("/api".into());
        let rule = Rule::compile(None, Route { path, response, ..Route::default() });
        assert!(rule.extras().response.lines.has_places() && !rule.extras().request.lines.has_places());
        let edits = &rule.extras().response;
        assert!(edits.removes(b"X-A") && edits.removes(b"x_a") && edits.removes(b"Server") && !edits.removes(b"x-b"));
        let render = |path: &[u8]| {
            let mut out = Vec::new();
            rule.render(&rule.extras().response.lines, path, &mut out);
            String::from_utf8(out).unwrap()
        };
        let nel = "x-nel: {\"a\":{\"b\":{rest}}}\r\n";
        assert_eq!(render(b"/api/x"), format!("x-a: of /x!\r\n{nel}x-a: too\r\nx-b: /api/x/x\r\n"));
        assert_eq!(render(b"/api"), format!("x-a: of !\r\n{nel}x-a: too\r\nx-b: /api\r\n"));
        let mut every = b"/api".to_vec();
        every.extend(0..=u8::MAX);
        let lines = render(&every);
        assert!(
            lines.contains("of %00%01")
                && lines.contains("%0A")
                && lines.contains("%0D%0E")
                && lines.contains("%7F%80")
        );
        assert!(lines.is_ascii() && lines.matches(['\r', '\n']).count() == 8 && !lines.contains('\0'), "{lines}");
        let [request, response] = rule.edits(b"/api/\xff");
        assert_eq!(
            (request, &*response.set["x-a"], &*response.add["x-b"]),
            (FieldEdits::default(), "of /%FF!", "/api/%FF/%FF")
        );
    }
}
