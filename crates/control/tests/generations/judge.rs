//! What clients saw, held against the documents of the generations that their workers ran: whatever rules a request, a stream
//! or a flow met, they are those of one generation, and what no change touched never notices one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kakei_config::{BackendAddress, Cluster, Document, Listener, Name, PathMatch, Protocol, Route};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::author::{CERTIFICATES, LISTENERS, NAMED, SECURED};
use crate::client::{Answer, Asked, Seen, What};
use crate::model::Model;
use crate::run::Run;

/// How often what happened: so that a test can tell that anything did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) lives: u64,
    pub(crate) generations: u64,
    pub(crate) applied: u64,
    pub(crate) refused: u64,
    pub(crate) mismatches: u64,
    /// Changes that nothing came between.
    pub(crate) alone: u64,
    pub(crate) confirmed: u64,
    pub(crate) taken_back: u64,
    pub(crate) panics: u64,
    pub(crate) stalls: u64,
    pub(crate) binds: u64,
    /// Flows, streams and requests that were looked at.
    pub(crate) flows: u64,
    pub(crate) streams: u64,
    pub(crate) requests: u64,
    pub(crate) certificates: u64,
    /// What ended because it was touched.
    pub(crate) touched: u64,
    /// Objects that went, and were looked for.
    pub(crate) gone: u64,
}

impl Counters {
    pub(crate) fn all(&self) -> [u64; 17] {
        [
            self.lives,
            self.generations,
            self.applied,
            self.refused,
            self.mismatches,
            self.alone,
            self.confirmed,
            self.taken_back,
            self.panics,
            self.stalls,
            self.binds,
            self.flows,
            self.streams,
            self.requests,
            self.certificates,
            self.touched,
            self.gone,
        ]
    }
}

/// See the module's words.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) counters: Counters,
    waiting: Vec<Seen>,
}

/// Where a client's traffic goes by a document.
struct Place<'a> {
    name: &'a Name,
    listener: &'a Listener,
    route: Option<(&'a Name, &'a Route)>,
    /// None: nowhere, or the route answers.
    cluster: Option<(&'a Name, &'a Cluster)>,
}

fn place<'a>(document: &'a Document, seen: &Seen, asked: Option<&Asked>) -> Option<Place<'a>> {
    let (_, protocol, is_secured) = LISTENERS[seen.number];
    let is_udp = |listener: &Listener| listener.protocol == Protocol::Udp;
    let mut listeners = document.listeners.iter();
    let (name, listener) =
        listeners.find(|(_, l)| l.bind.contains(&seen.dials) && is_udp(l) == (protocol == Protocol::Udp))?;
    let matches = |route: &Route| match asked {
        Some(asked) => {
            let host = route.host.iter().any(|host| host.covers(asked.host));
            host && matches!(&route.path, PathMatch::Prefix(prefix) if covers(prefix, asked.path))
        }
        None => is_secured && route.sni.iter().any(|sni| sni.covers(SECURED)),
    };
    let of = document.routes.iter().filter(|(_, route)| route.listener == *name && matches(route));
    let length = |route: &Route| match &route.path {
        PathMatch::Prefix(prefix) => prefix.len(),
        _ => 0,
    };
    let route = of.max_by_key(|(_, route)| length(route));
    let cluster = match route {
        Some((_, route)) => route.cluster.as_ref(),
        None => listener.cluster.as_ref(),
    };
    let cluster = cluster.and_then(|name| document.clusters.get_key_value(name));
    Some(Place { name, listener, route, cluster })
}

fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn addresses(cluster: &Cluster, usable: bool) -> BTreeSet<SocketAddr> {
    let all = cluster.backends.iter().filter(|backend| !usable || backend.weight > 0);
    let of = |address: &BackendAddress| match address {
        BackendAddress::Ip(address) => vec![*address],
        // Its addresses change by themselves.
        BackendAddress::Host(host, port) if **host == *NAMED => {
            (1..=3).map(|last| SocketAddr::from((IpAddr::from([10, 9, 9, last]), *port))).collect()
        }
        _ => Vec::new(),
    };
    all.flat_map(|backend| of(&backend.address)).collect()
}

/// Whether the backends of a cluster speak what clients of a listener do: a change that met another one may lead it elsewhere.
fn speaks(cluster: &Name, seen: &Seen) -> bool {
    let kind = match LISTENERS[seen.number].1 {
        Protocol::Udp => 'u',
        Protocol::Tcp => 't',
        Protocol::Http => 'h',
    };
    cluster.as_str().starts_with(kind)
}

/// Whether what stood there by `before` is another thing by `after`.
fn is_touched(stood: &Place<'_>, seen: &Seen, after: &Document, backend: Option<SocketAddr>) -> bool {
    let Some(listener) = after.listeners.get(stood.name) else { return true };
    if !listener.bind.contains(&seen.dials) || listener.tls != stood.listener.tls {
        return true;
    }
    match stood.route {
        Some((name, route)) if after.routes.get(name) != Some(route) => return true,
        None if listener.cluster != stood.listener.cluster => return true,
        _ => {}
    }
    let Some((name, cluster)) = stood.cluster else { return false };
    let Some(now) = after.clusters.get(name) else { return true };
    match backend {
        // The addresses of a host name come and go by themselves.
        _ if cluster.backends.iter().any(|backend| backend.address.ip().is_none()) => true,
        Some(backend) => !addresses(now, false).contains(&backend),
        None => now != cluster,
    }
}

/// The documents of the generations between, where all are known.
fn between<'a>(model: &'a Model, seen: &Seen) -> Vec<&'a Document> {
    let range = seen.from.generation..=seen.until.generation;
    model.documents.range(range).map(|(_, document)| document).collect()
}

impl Run {
    /// Look at what clients saw, as far as the generations are known; without a view, the rest never will be.
    pub(crate) fn judge(&self, view: Option<&kakei_control::View>) {
        let mut judge = self.judge.borrow_mut();
        let seen = std::mem::take(&mut self.world.borrow_mut().seen);
        judge.waiting.extend(seen);
        let model = self.model.borrow();
        let mut later = Vec::new();
        for seen in std::mem::take(&mut judge.waiting) {
            if seen.until.generation > model.newest() {
                later.extend(view.is_some().then_some(seen));
                continue;
            }
            if let Err(wrong) = self.judge_one(&model, &seen, &mut judge.counters) {
                self.violate(format!("{wrong}: {seen:?}"));
            }
        }
        judge.waiting = later;
    }

    fn was_down(&self, cluster: &Cluster, seen: &Seen) -> bool {
        self.world.borrow().outside.was_down(&addresses(cluster, false), seen.when)
    }

    fn judge_one(&self, model: &Model, seen: &Seen, counters: &mut Counters) -> Result<(), String> {
        if let What::Wrong(wrong) = &seen.what {
            return Err(wrong.clone());
        }
        // A worker that fell took with it whatever it had; a fresh one knows nothing for a moment.
        if seen.from.life != seen.until.life || seen.from.generation == 0 {
            return Ok(());
        }
        let documents = between(model, seen);
        if documents.is_empty() {
            return Ok(());
        }
        match &seen.what {
            What::Flow { before, backend } => {
                counters.flows += 1;
                self.leads_there(&documents, seen, *backend)?;
                match before {
                    Some(before) => self.may_end(&documents, seen, (None, Some(*before)), counters),
                    None => Ok(()),
                }
            }
            What::Unanswered { backend } => self.may_end(&documents, seen, (None, *backend), counters),
            What::Greeted { backend } => {
                counters.streams += 1;
                self.leads_there(&documents, seen, *backend)
            }
            What::Ended { backend, .. } => self.may_end(&documents, seen, (None, *backend), counters),
            What::Closed => {
                let stood = place(documents[0], seen, None).ok_or("it was accepted where nobody listens")?;
                let alone = Place { route: None, cluster: None, ..stood };
                let touched = documents.iter().any(|after| is_touched(&alone, seen, after, None));
                if touched {
                    Ok(())
                } else {
                    Err("its connection was closed, and its listener is as it was".to_owned())
                }
            }
            What::Answered { asked, answer } => {
                counters.requests += 1;
                self.judge_answered(&documents, seen, (asked, answer), counters)
            }
            What::Broken { asked, silent } => {
                let ended = self.may_end(&documents, seen, (Some(asked), None), counters);
                ended.map_err(|wrong| format!("{asked:?} was broken off (silently: {silent}): {wrong}"))
            }
            What::Shown { certificate } => {
                counters.certificates += 1;
                let held = |document: &&Document| {
                    let spec = document.certificates.get(&"k".into());
                    spec.is_some_and(|spec| {
                        let which =
                            CERTIFICATES.iter().find(|pem| spec.key == kakei_config::Pem::Text((**pem).to_owned()));
                        which.is_some_and(|pem| {
                            CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| der.as_ref() == certificate)
                        })
                    })
                };
                match documents.iter().any(held) {
                    true => Ok(()),
                    false => Err("it was shown a certificate of another time".to_owned()),
                }
            }
            What::Refused => match place(documents[0], seen, None) {
                Some(_) => Err("it could not connect, and there is a listener".to_owned()),
                None => Ok(()),
            },
            What::Wrong(wrong) => Err(wrong.clone()),
        }
    }

    /// Whether some generation leads this client to this backend. What came by a listener that is gone since moves within
    /// its cluster, as that is from then on.
    fn leads_there(&self, documents: &[&Document], seen: &Seen, backend: SocketAddr) -> Result<(), String> {
        let placed = documents.iter().filter_map(|document| place(document, seen, None));
        let clusters: BTreeSet<&Name> = placed.filter_map(|place| Some(place.cluster?.0)).collect();
        let leads = |document: &&Document| {
            let place = place(document, seen, None);
            let has = |cluster: &Cluster| addresses(cluster, true).contains(&backend);
            match place {
                Some(place) => place.cluster.is_some_and(|(_, cluster)| has(cluster)),
                None => clusters.iter().any(|name| document.clusters.get(name).is_some_and(has)),
            }
        };
        match documents.iter().any(leads) {
            true => Ok(()),
            false => Err(format!("it was led to {backend}, where no generation of that time leads it")),
        }
    }

    /// Whether something ended, or was not answered, by rights.
    fn may_end(
        &self,
        documents: &[&Document],
        seen: &Seen,
        (asked, backend): (Option<&Asked>, Option<SocketAddr>),
        counters: &mut Counters,
    ) -> Result<(), String> {
        let fits = |place: &Place<'_>| match (backend, place.cluster) {
            (Some(backend), Some((_, cluster))) => addresses(cluster, false).contains(&backend),
            (Some(_), None) => false,
            (None, _) => true,
        };
        // Where it was led by the generation that ran as it came, or by the one that was published while it did.
        let begun = documents.iter().take(2).enumerate();
        let stood: Vec<_> = begun.filter_map(|(at, led)| Some((at, place(led, seen, asked).filter(fits)?))).collect();
        let Some((_, first)) = stood.first().filter(|(at, _)| *at == 0) else {
            // It stood nowhere, or where it was led by an earlier one.
            counters.touched += 1;
            return Ok(());
        };
        let has_backends = |place: &Place<'_>| {
            place
                .cluster
                .is_some_and(|(_, cluster)| !addresses(cluster, true).is_empty() && !self.was_down(cluster, seen))
        };
        if first.cluster.is_some_and(|(name, _)| !speaks(name, seen)) {
            return Ok(());
        }
        let by_rights = stood.iter().any(|(at, stood)| {
            let touched = documents[*at..].iter().any(|after| is_touched(stood, seen, after, backend));
            let led_nowhere = backend.is_none() && !has_backends(stood);
            let was_down = stood.cluster.is_some_and(|(_, cluster)| self.was_down(cluster, seen));
            touched || led_nowhere || was_down
        });
        if by_rights {
            counters.touched += 1;
            return Ok(());
        }
        let (name, on) =
            (first.name, first.cluster.map(|(name, cluster)| (name, addresses(cluster, true), &cluster.health)));
        Err(format!("nothing that it stands on was touched: listener {name}, cluster {on:?}, backend {backend:?}"))
    }

    fn judge_answered(
        &self,
        documents: &[&Document],
        seen: &Seen,
        (asked, answer): (&Asked, &Answer),
        counters: &mut Counters,
    ) -> Result<(), String> {
        let first = if asked.is_first { documents } else { &documents[..1] };
        let mut wrongs = Vec::new();
        for (at, document) in first.iter().enumerate() {
            match self.answered_by(document, (seen, asked, answer), &documents[at..]) {
                Ok(touched) => {
                    counters.touched += u64::from(touched);
                    return Ok(());
                }
                Err(wrong) => wrongs.push(wrong),
            }
        }
        Err(format!("{asked:?} got {answer:?}: {}", wrongs.join("; or ")))
    }

    /// Whether a document's rules make this answer; whether what it stands on was touched then.
    fn answered_by(
        &self,
        document: &Document,
        (seen, asked, answer): (&Seen, &Asked, &Answer),
        later: &[&Document],
    ) -> Result<bool, String> {
        let Some(place) = place(document, seen, Some(asked)) else { return Ok(true) };
        let route = place.route.map(|(name, _)| name);
        if let Some(respond) = place.route.and_then(|(_, route)| route.respond.as_ref()) {
            return match answer.status == respond.status && answer.body == respond.body {
                true => Ok(false),
                false => Err(format!("route {route:?} answers {:?}", respond.body)),
            };
        }
        if place.cluster.is_some_and(|(name, _)| !speaks(name, seen)) {
            return Ok(true);
        }
        let Some((name, cluster)) = place.cluster else {
            return if answer.status == 404 { Ok(false) } else { Err("no route takes it".to_owned()) };
        };
        let touched = later.iter().any(|after| is_touched(&place, seen, after, None));
        if answer.status != 200 {
            // A host name may have no address yet.
            let is_none = later.iter().any(|after| {
                let sure = |backend: &kakei_config::Backend| backend.weight > 0 && backend.address.ip().is_some();
                after.clusters.get(name).is_none_or(|cluster| !cluster.backends.iter().any(sure))
            });
            return match answer.status >= 500 && (is_none || touched || self.was_down(cluster, seen)) {
                true => Ok(touched),
                false => Err(format!("cluster {name} has backends")),
            };
        }
        let mark = place.route.and_then(|(_, route)| route.request.set.get("x-mark")).cloned();
        let (backend, heard) = answer.body.split_once(' ').ok_or("nobody's answer")?;
        let backend: SocketAddr = backend.parse().map_err(|_| "nobody's answer")?;
        let has = |document: &&Document| {
            let cluster = document.clusters.get(name);
            cluster.is_some_and(|cluster| addresses(cluster, true).contains(&backend))
        };
        if !later.iter().any(has) {
            return Err(format!("cluster {name} of route {route:?} has no backend {backend}"));
        }
        if heard != mark.as_deref().unwrap_or_default() || answer.mark != mark {
            return Err(format!("route {route:?} marks it as {mark:?}"));
        }
        Ok(touched)
    }
}
