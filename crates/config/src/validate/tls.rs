//! What TLS of a listener or a cluster asks of other objects: certificates that exist, a protocol that comes over streams,
//! backends that can be asked for by name.

use std::collections::BTreeSet;

use super::Check;
use crate::diagnostics::quoted;
use crate::model::{BackendAddress, ClientCertificateMode, Cluster, Listener, Name, Protocol, Route};
use crate::schema::{Step, listed};

impl Check<'_, '_> {
    pub(super) fn admin(&mut self) {
        if let Some(tcp) = &self.document.admin.tcp {
            let way = [Step::Key("admin"), Step::Key("tcp"), Step::Key("certificate")];
            self.exists("certificate", &tcp.certificate, &way);
        }
    }

    pub(super) fn tls(&mut self, name: &Name, listener: &Listener) {
        self.redirects_to_tls(name, listener);
        self.is_strict_over_tls(name, listener);
        let Some(tls) = &listener.tls else { return };
        let way = |rest: &[Step<'static>]| {
            let mut way = vec![Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("tls")];
            way.extend_from_slice(rest);
            way
        };
        let protocol = self.spoken(name);
        if protocol == Some(Protocol::Udp) {
            let message = format!("listener `{name}`: `tls` is for TCP and HTTP; it speaks UDP");
            self.report(message, &way(&[]));
        }
        let mut seen = BTreeSet::new();
        for (n, certificate) in tls.certificates.named().iter().enumerate() {
            let way = way(&[Step::Key("certificates"), Step::Item(n)]);
            self.exists("certificate", certificate, &way);
            if !seen.insert(certificate) && !certificate.as_str().is_empty() {
                self.report(format!("listener `{name}`: certificate `{certificate}` stands twice"), &way);
            }
        }
        if let Some(default) = &tls.default {
            self.exists("certificate", default, &way(&[Step::Key("default")]));
        }
        if protocol == Some(Protocol::Http) {
            for (n, _) in tls.alpn.iter().enumerate().filter(|(_, protocol)| *protocol != "http/1.1") {
                let message = format!("listener `{name}`: HTTP is spoken as `http/1.1` only");
                self.report(message, &way(&[Step::Key("alpn"), Step::Item(n)]));
            }
        }
    }

    /// A plain listener, and nothing else, sends to TLS what it has no other place for.
    fn redirects_to_tls(&mut self, name: &Name, listener: &Listener) {
        if listener.redirect_to_tls.is_none() {
            return;
        }
        let (message, help) = match (self.spoken(name), &listener.tls, &listener.cluster) {
            (Some(Protocol::Udp | Protocol::Tcp), ..) => (
                format!("listener `{name}`: `redirect_to_tls` is for HTTP, which it doesn't speak"),
                "give it `protocol = \"http\"`, or leave it out",
            ),
            (_, Some(_), _) => (
                format!("listener `{name}`: `redirect_to_tls` is for a listener without `tls`"),
                "it belongs to a listener of its own, at the port that clients come to without TLS",
            ),
            (.., Some(_)) => (
                format!(
                    "listener `{name}` has both `cluster` and `redirect_to_tls`; one says what becomes of what no route matches"
                ),
                "leave out one of the two; routes may lead to clusters in either case",
            ),
            _ => return,
        };
        let way = ["listeners", name.as_str(), "redirect_to_tls"].map(Step::Key);
        self.report(message, &way).help(help);
    }

    /// Only who came over TLS is told to go on so: from others nobody may believe it (RFC 6797 7.2).
    fn is_strict_over_tls(&mut self, name: &Name, listener: &Listener) {
        if listener.protocol == Protocol::Http && listener.tls.is_none() && listener.http.hsts.is_some() {
            let way = ["listeners", name.as_str(), "http", "hsts"].map(Step::Key);
            let message = format!("listener `{name}`: `hsts` is told over TLS only, and it has no `tls`");
            self.report(message, &way).help("give it `tls`; a listener without it has `redirect_to_tls`");
        }
    }

    pub(super) fn is_strict_by_tls(&mut self, name: &Name, route: &Route) {
        let listener = self.document.listeners.get(&route.listener);
        if route.hsts.is_some() && listener.is_some_and(|listener| listener.tls.is_none()) {
            let way = ["routes", name.as_str(), "hsts"].map(Step::Key);
            let message =
                format!("route `{name}`: `hsts` is told over TLS only, and listener `{}` has no `tls`", route.listener);
            self.report(message, &way).help("give the listener `tls`; one without it has `redirect_to_tls`");
        }
    }

    /// Early data comes by a session that is resumed, and before anybody could show a certificate.
    pub(super) fn may_come_early(&mut self, name: &Name, route: &Route) {
        let Some(listener) = self.document.listeners.get(&route.listener).filter(|_| route.early_data) else { return };
        let (message, help) = match &listener.tls {
            None => (
                format!("route `{name}`: early data comes in TLS, and listener `{}` has no `tls`", route.listener),
                "give the listener `tls`, or leave it out",
            ),
            Some(tls) if tls.client_certificates.is_some() => (
                format!(
                    "route `{name}`: early data comes before its client is known, and listener `{}` asks for certificates",
                    route.listener
                ),
                "let another listener ask for certificates, or leave it out",
            ),
            Some(tls) if !tls.tickets => (
                format!("route `{name}`: early data comes by a ticket, and listener `{}` gives none", route.listener),
                "let the listener's `tls` have `tickets`, or leave it out",
            ),
            Some(_) => return,
        };
        let way = ["routes", name.as_str(), "early_data"].map(Step::Key);
        self.report(message, &way).help(help);
    }

    /// Where a listener ends TLS its routes go by what was agreed on, and that is one of its own protocols, if it has any.
    pub(super) fn is_agreed_on(&mut self, name: &Name, route: &Route) {
        let tls = self.document.listeners.get(&route.listener).and_then(|listener| listener.tls.as_ref());
        let Some(tls) = tls.filter(|tls| !tls.alpn.is_empty()) else { return };
        for (n, protocol) in route.alpn.iter().enumerate().filter(|(_, protocol)| !tls.alpn.contains(protocol)) {
            let message =
                format!("route `{name}`: `{}` is never agreed on by listener `{}`", quoted(protocol), route.listener);
            let way = [Step::Key("routes"), Step::Key(name.as_str()), Step::Key("alpn"), Step::Item(n)];
            let known = listed(tls.alpn.iter().map(String::as_str));
            self.report(message, &way).help(format!("its `tls.alpn` has {known}"));
        }
    }

    /// A route can only insist on what its listener asks for.
    pub(super) fn asks_for_certificates(&mut self, name: &Name, route: &Route) {
        let tls = self.document.listeners.get(&route.listener).and_then(|listener| listener.tls.as_ref());
        let of_listener = tls.and_then(|tls| tls.client_certificates.as_ref()).map(|clients| clients.mode);
        let (message, help) = match (route.client_certificates, of_listener) {
            (Some(_), None) => (
                format!("route `{name}`: listener `{}` asks nobody for a certificate", route.listener),
                "give its `tls` `client_certificates` with `mode = \"optional\"`",
            ),
            (Some(ClientCertificateMode::Optional), Some(ClientCertificateMode::Required)) => (
                format!("route `{name}`: listener `{}` lets nobody in without a certificate", route.listener),
                "let the listener say `optional`, and the other routes `required`",
            ),
            _ => return,
        };
        let way = [Step::Key("routes"), Step::Key(name.as_str()), Step::Key("client_certificates")];
        self.report(message, &way).help(help);
    }

    pub(super) fn cluster_tls(&mut self, name: &Name, cluster: &Cluster) {
        let Some(tls) = &cluster.tls else { return };
        let way = |key| [Step::Key("clusters"), Step::Key(name.as_str()), Step::Key("tls"), Step::Key(key)];
        if let Some(certificate) = &tls.certificate {
            self.exists("certificate", certificate, &way("certificate"));
        }
        if tls.server_name.is_some() {
            return;
        }
        for (n, backend) in cluster.backends.iter().enumerate() {
            if matches!(backend.address, BackendAddress::Unix(_)) {
                let message = format!("cluster `{name}`: a Unix socket has no name that could be asked for in TLS");
                let way = [Step::Key("clusters"), Step::Key(name.as_str()), Step::Key("backends"), Step::Item(n)];
                self.report(message, &way).help("say in `tls.server_name` what the backend must prove to be");
            }
        }
    }
}
