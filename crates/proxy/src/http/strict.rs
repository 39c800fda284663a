//! HTTP Strict Transport Security (RFC 6797): what a response over TLS tells its client of coming otherwise. How it is
//! written into a head is not known here.

use kakei_config::{Hsts, Route};
use kakei_wire::message::Known;

use super::exchange::Exchange;
use super::rule::Rule;
use super::session::Session;
use crate::snapshot::HttpListener;

/// What a route has its clients told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Strict {
    /// What the listener says.
    #[default]
    AsListener,
    /// This line.
    Line(Vec<u8>),
    /// What it changes by hand in responses, or says in its own.
    ByHand,
}

impl Strict {
    pub(crate) fn of(route: &Route) -> Self {
        match &route.hsts {
            Some(hsts) => Strict::Line(line(hsts)),
            None if route.says_of(Known::StrictTransportSecurity.name()).next().is_some() => Strict::ByHand,
            None => Strict::AsListener,
        }
    }
}

/// The whole line.
pub(crate) fn line(hsts: &Hsts) -> Vec<u8> {
    format!("Strict-Transport-Security: {hsts}\r\n").into_bytes()
}

/// What the client of this request is told. One that came without TLS is told nothing (RFC 6797 7.2).
pub(super) fn told<'a>(exchange: &'a Exchange, session: &Session) -> Option<&'a [u8]> {
    session.secured.as_ref()?;
    exchange.http.strict_line(exchange.rule.as_deref())
}

impl HttpListener {
    fn strict_line<'a>(&'a self, rule: Option<&'a Rule>) -> Option<&'a [u8]> {
        match rule.map(|rule| &rule.extras().strict) {
            Some(Strict::Line(line)) => Some(line),
            Some(Strict::ByHand) => None,
            Some(Strict::AsListener) | None => self.strict.as_deref(),
        }
    }

    /// What a client that came over TLS, and whose request takes this route, is told of coming otherwise.
    pub fn strict<'a>(&'a self, rule: &'a Rule) -> Option<&'a Hsts> {
        match (&rule.extras().strict, &rule.spec.hsts) {
            (Strict::ByHand, _) => None,
            (_, Some(hsts)) => Some(hsts),
            (_, None) => self.knobs.hsts.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kakei_config::{FieldEdits, Respond};

    use super::*;

    #[test]
    fn a_policy_is_one_line() {
        let hsts = Hsts::default();
        assert_eq!(line(&hsts), b"Strict-Transport-Security: max-age=31536000\r\n");
        let all = Hsts { include_subdomains: true, preload: true, ..hsts };
        assert_eq!(line(&all), b"Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n");
        let forgotten = Hsts { max_age: Duration::ZERO, ..Hsts::default() };
        assert_eq!(line(&forgotten), b"Strict-Transport-Security: max-age=0\r\n");
    }

    #[test]
    fn a_route_says_it_itself_or_leaves_it_to_its_listener() {
        assert_eq!(Strict::of(&Route::default()), Strict::AsListener);
        let own = Route { hsts: Some(Hsts::default()), ..Route::default() };
        assert_eq!(Strict::of(&own), Strict::Line(line(&Hsts::default())));
        let name = || "Strict-Transport-Security".to_owned();
        let removes = FieldEdits { remove: vec![name()], ..FieldEdits::default() };
        assert_eq!(Strict::of(&Route { response: removes, ..Route::default() }), Strict::ByHand);
        let headers = [(name(), "max-age=1".to_owned())].into();
        let respond = Some(Respond { status: 200, headers, ..Respond::default() });
        assert_eq!(Strict::of(&Route { respond: respond.map(Box::new), ..Route::default() }), Strict::ByHand);
    }
}
