//! Routes that ask who the client is, in the worlds that have any: what clients claim, what comes of that, what the
//! machine says of passwords and a service of tickets. All of it is told by the claims alone, not by the proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Auth, BasicAuth, Cluster, Document, ForwardAuth, Name, PathMatch, RequestEdits, Route};
use kakei_proxy::record::{CloseReason, ExchangeDetail, Record};
use kakei_proxy::seam::{Instant, Job, Verdict, Verify};

use super::message::Head;

/// Where the service is asked.
pub(super) const GATE: &str = "/may";
/// The field by which the service says who the client is, and which no client may say.
pub(super) const WHO: &str = "x-who";

/// Where a guarded request goes in the end.
const BEHIND: &str = "one";
/// Two users. The second one is taken out and put back.
const ANN: (&str, &str) = ("ann", "$2b$04$AnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAnnAn");
const BOB: (&str, &str) = ("bob", "$2b$04$BobBobBobBobBobBobBobBobBobBobBobBobBobBobBobBobBobBo");

/// What a client shows of passwords: in `Authorization`, and whether that is right; none: as long as it is.
const SHOWN: [(&[&str], Option<bool>); 10] = [
    // ann:apple
    (&["Basic YW5uOmFwcGxl"], Some(true)),
    (&["basic  YW5uOmFwcGxl"], Some(true)),
    // bob:banana
    (&["Basic Ym9iOmJhbmFuYQ=="], None),
    // ann:banana, bob:apple, eve:apple, eve:banana
    (&["Basic YW5uOmJhbmFuYQ=="], Some(false)),
    (&["Basic Ym9iOmFwcGxl"], Some(false)),
    (&["Basic ZXZlOmFwcGxl"], Some(false)),
    (&["Basic ZXZlOmJhbmFuYQ=="], Some(false)),
    (&[], Some(false)),
    (&["Basic YW5uOmFwcGxl="], Some(false)),
    (&["Basic YW5uOmJhbmFuYQ==", "Basic YW5uOmFwcGxl"], Some(false)),
];

/// What a client claims, and what must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// Whether its password is right; none: while the second user is there.
    password: Option<bool>,
    /// What its ticket says; none: none is asked for.
    ticket: Option<&'static str>,
    shown: usize,
    spoofs: bool,
}

impl Claims {
    pub(super) fn draw(place: &str, rng: &mut Rng) -> Option<Self> {
        let by_password = matches!(place, "locked" | "both");
        let by_ticket = matches!(place, "vouched" | "both");
        if !by_password && !by_ticket {
            return None;
        }
        let shown = if rng.bool() { rng.usize(0..3) } else { rng.usize(0..SHOWN.len()) };
        let ticket = ["good", "good", "good", "bad", "away"][rng.usize(0..5)];
        let password = if by_password { SHOWN[shown].1 } else { Some(true) };
        Some(Claims { password, ticket: by_ticket.then_some(ticket), shown, spoofs: rng.bool() })
    }

    /// The fields that say so.
    pub(super) fn write(&self, place: &str) -> String {
        let mut out = format!("X-Place: {place}\r\nX-Ticket: {}\r\n", self.ticket.unwrap_or("none"));
        if place != "vouched" {
            SHOWN[self.shown].0.iter().for_each(|value| out.push_str(&format!("Authorization: {value}\r\n")));
        }
        if self.spoofs {
            out.push_str("X-Who: root\r\nX_Forwarded-Uri: /root\r\nx-forwarded-method: ROOT\r\nX_Who: root\r\n");
        }
        out
    }

    /// Whether no backend may see it.
    pub(super) fn must_not_pass(&self) -> bool {
        self.password == Some(false) || self.ticket.is_some_and(|ticket| ticket != "good")
    }

    /// Whether it depends on the second user.
    pub(super) fn is_by_second(&self) -> bool {
        self.password.is_none()
    }

    /// Whether an error is the answer to it that it must be.
    pub(super) fn may_get(&self, status: u16) -> bool {
        match status {
            401 => self.password != Some(true),
            403 => self.ticket == Some("bad"),
            302 => self.ticket == Some("away"),
            _ => false,
        }
    }

    /// Whether an error is one that can't come of it, whatever fails.
    pub(super) fn cant_get(&self, status: u16) -> bool {
        matches!(status, 401 | 403 | 302) && !self.may_get(status)
    }

    /// Whether its password is that user's, or may be: a service may refuse who has the right one.
    pub(super) fn knows(&self, user: &str) -> bool {
        self.password == Some(true) && user == ANN.0 || self.password.is_none() && user == BOB.0
    }

    /// Who the access log must say that it is.
    pub(super) fn user(&self, id: u64) -> String {
        match (self.ticket, self.password) {
            (Some(_), _) => format!("who-{id}"),
            (None, None) => BOB.0.to_owned(),
            (None, Some(_)) => ANN.0.to_owned(),
        }
    }
}

/// Routes that ask, and the service.
pub(super) fn add(document: &mut Document, (route, gate): (Route, Cluster), rng: &mut Rng, is_peaceful: bool) {
    let users = [ANN, BOB].map(|(user, hash)| (user.to_owned(), hash.to_owned()));
    let basic = BasicAuth { realm: "here".into(), users: users.into() };
    let within = if is_peaceful { 600_000 } else { rng.u64(200..3_000) };
    let forward = |headers: &[&str]| ForwardAuth {
        cluster: "gate".into(),
        path: GATE.into(),
        headers: headers.iter().map(|name| (*name).to_owned()).collect(),
        copy: vec![WHO.into()],
        user: Some(WHO.into()),
        timeout: Duration::from_millis(within),
    };
    let kinds = [
        ("locked", Auth { basic: Some(basic.clone().into()), forward: None }),
        ("vouched", Auth { basic: None, forward: Some(forward(&[]).into()) }),
        ("both", Auth { basic: Some(basic.into()), forward: Some(forward(&["x-id", "x-ticket"]).into()) }),
    ];
    for (place, auth) in kinds {
        let route = Route {
            listener: "web".into(),
            path: PathMatch::Prefix(format!("/{place}")),
            request: RequestEdits { path: Some(format!("/{BEHIND}{{rest}}")), ..RequestEdits::default() },
            auth,
            ..route.clone()
        };
        document.routes.insert(place.into(), route);
    }
    document.clusters.insert("gate".into(), gate);
}

/// What may be taken away of the service, to be put back.
#[derive(Debug, Default)]
pub(super) struct Aside {
    routes: BTreeMap<Name, Route>,
    gate: Option<Cluster>,
}

/// The second user goes or comes back; or, where something may fail, the service with the routes that ask it.
pub(super) fn edit(document: &mut Document, aside: &mut Aside, rng: &mut Rng, is_peaceful: bool) {
    if rng.bool() || is_peaceful {
        for route in ["locked", "both"] {
            let Some(route) = document.routes.get_mut(&Name::new(route)) else { continue };
            let Some(basic) = &mut route.auth.basic else { continue };
            if basic.users.remove(BOB.0).is_none() {
                basic.users.insert(BOB.0.to_owned(), BOB.1.to_owned());
            }
        }
        return;
    }
    if aside.routes.is_empty() {
        let routes = ["vouched", "both"].map(Name::new);
        aside.routes =
            routes.into_iter().filter_map(|name| Some((name.clone(), document.routes.remove(&name)?))).collect();
        aside.gate = document.clusters.remove(&Name::new("gate"));
        return;
    }
    document.routes.extend(std::mem::take(&mut aside.routes));
    document.clusters.extend(aside.gate.take().map(|gate| (Name::new("gate"), gate)));
    // The second user may have gone, or come, meanwhile.
    let basic = document.routes.get(&Name::new("locked")).and_then(|route| route.auth.basic.clone());
    if let Some(both) = document.routes.get_mut(&Name::new("both")) {
        both.auth.basic = basic;
    }
}

/// How long the service may be asked, where there is one.
pub(super) fn waits(document: &Document) -> Option<Duration> {
    let vouched = document.routes.get(&Name::new("vouched"))?;
    vouched.auth.forward.as_ref().map(|forward| forward.timeout)
}

/// Whether the second user is there.
pub(super) fn has_second(document: &Document) -> bool {
    let locked = document.routes.get(&Name::new("locked")).and_then(|route| route.auth.basic.as_ref());
    locked.is_some_and(|basic| basic.users.contains_key(BOB.0))
}

/// A request behind a guard came to its backend: what it must carry, and what not.
pub(super) fn judge(head: &Head, id: u64) -> Result<(), String> {
    let Some(place) = head.field("x-place") else { return Ok(()) };
    let said: Vec<&str> = head.taken_for(WHO).collect();
    let wanted = format!("who-{id}");
    match place {
        "locked" => Ok(()),
        _ if said == [&wanted] => Ok(()),
        _ => Err(format!("request {id} to {place} says that it is of {said:?}")),
    }
}

/// What a service is asked must be asked so.
pub(super) fn judge_question(head: &Head, id: u64) -> Result<(), String> {
    let one = |name: &str| {
        let mut all = head.taken_for(name);
        all.next().filter(|_| all.next().is_none()).ok_or_else(|| format!("a question without one {name}: {head:?}"))
    };
    if head.line != format!("GET {GATE} HTTP/1.1") || one("host")? != "a.test" {
        return Err(format!("another question: {head:?}"));
    }
    let (method, uri) = (one("x-forwarded-method")?, one("x-forwarded-uri")?);
    let is_uri = uri == format!("/vouched/{id}?id={id}") || uri == format!("/both/{id}?id={id}");
    if !["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&method) || !is_uri {
        return Err(format!("a question about something else: {head:?}"));
    }
    one("x-forwarded-for")?;
    one("x-forwarded-host")?;
    let forbidden = ["content-length", "transfer-encoding", "connection", "upgrade", "expect"];
    if let Some(field) = head.fields.iter().find(|(name, _)| forbidden.contains(&name.as_str())) {
        return Err(format!("a question with {field:?}"));
    }
    match uri.starts_with("/both") && head.fields.iter().any(|(name, _)| name == "x-key") {
        true => Err(format!("a question with more than its route lets be heard: {head:?}")),
        false => Ok(()),
    }
}

/// What a record says of the time in which it was not known whether its request may pass: nothing where nobody asks for
/// it; where a service is asked always; and what follows comes behind it.
pub(super) fn judge_wait(record: &Record, detail: &ExchangeDetail, is_asked: bool) -> Result<(), String> {
    let passed = matches!(record.reason, CloseReason::Completed | CloseReason::Upgraded);
    let by_service = ["vouched", "both"].map(Name::new);
    let is_due = passed && record.route.as_ref().is_some_and(|route| by_service.contains(route));
    match detail.checked {
        Some(waited) if !is_asked => Err(format!("waited {waited:?} for leave where nobody asks: {record:?}")),
        None if is_due => Err(format!("passed without having been asked about: {record:?}")),
        Some(waited) => {
            let rest = if passed { detail.queued.max(detail.connect.unwrap_or_default()) } else { Duration::ZERO };
            let fits = waited + rest <= record.duration;
            let is_first = !passed || detail.first_byte.is_none_or(|first| waited <= first);
            if fits && is_first { Ok(()) } else { Err(format!("waited {waited:?} for leave: {record:?}")) }
        }
        None => Ok(()),
    }
}

/// Passwords that a machine looks at.
#[derive(Debug, Default)]
pub(super) struct Passwords {
    under_way: Vec<(Instant, Job, Verdict)>,
    jobs: BTreeMap<u64, u32>,
}

impl Passwords {
    pub(super) fn ask(
        &mut self,
        now: Instant,
        verify: &Verify,
        (rng, is_peaceful): (&mut Rng, bool),
    ) -> Result<(), String> {
        let times = self.jobs.entry(verify.job.0).or_default();
        *times += 1;
        if *times > 1 {
            return Err(format!("{:?} is asked twice", verify.job));
        }
        let is_right = matches!((&*verify.hash, &verify.password.0[..]), (hash, b"apple") if hash == ANN.1)
            || matches!((&*verify.hash, &verify.password.0[..]), (hash, b"banana") if hash == BOB.1);
        let verdict = if is_right { Verdict::Right } else { Verdict::Wrong };
        let (odds, millis) = (rng.u8(0..12), rng.u64(0..400));
        let (verdict, millis) = match odds {
            _ if is_peaceful => (verdict, millis),
            0 => (Verdict::Undone, millis),
            1 => (verdict, millis * 50),
            _ => (verdict, millis),
        };
        self.under_way.push((now + Duration::from_millis(millis), verify.job, verdict));
        Ok(())
    }

    /// What is known by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Job, Verdict)> {
        let (due, rest) = std::mem::take(&mut self.under_way).into_iter().partition(|(at, ..)| *at <= now);
        self.under_way = rest;
        let due: Vec<(Instant, Job, Verdict)> = due;
        due.into_iter().map(|(_, job, verdict)| (job, verdict)).collect()
    }
}
