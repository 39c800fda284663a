//! That clients come over TLS: what those that do are told, and where those that don't are sent.

use std::time::Duration;

use super::route::{RedirectStatus, report_at};
use crate::diagnostics::Collector;
use crate::model::{Hsts, Route, TlsRedirect};
use crate::schema::values::{Flag, LONGEST, Time, Whole};
use crate::schema::{At, Section, field, independent};

/// What a host must say for as long as that before browsers take it up into their lists (hstspreload.org).
const PRELOADED: Duration = Duration::from_secs(365 * 86_400);

pub(in crate::schema) const HSTS: Section<Hsts> = Section {
    blank: Hsts::default,
    fields: &[
        field!(max_age: Time { min: Duration::ZERO, max: LONGEST },
            "how long a client remembers it, in whole seconds; `\"0s\"`: it forgets what it was told before"),
        field!(include_subdomains: Flag, "whether it holds for all names under the host too"),
        field!(preload: Flag, "whether the host may be put on the lists that browsers come with, which is hard to take back"),
    ],
    later: &[],
    finish: |hsts, at, problems| {
        if hsts.max_age.subsec_nanos() > 0 {
            at.report_key(format!("{}: `max_age` is told in whole seconds", at.subject()), problems);
        }
        if hsts.preload && !(hsts.include_subdomains && hsts.max_age >= PRELOADED) {
            let message = format!("{}: no list takes up this with `preload`", at.subject());
            at.report_key(message, problems)
                .help("it also needs `include_subdomains = true` and a `max_age` of at least `\"365d\"`");
        }
    },
};

pub(in crate::schema) const TLS_REDIRECT: Section<TlsRedirect> = Section {
    blank: TlsRedirect::default,
    fields: &[
        field!(port: Whole { min: 1_u16, max: u16::MAX, zero: None }, "the port that clients reach TLS at"),
        field!(status: RedirectStatus, "the answer's status"),
    ],
    later: &[],
    finish: independent,
};

const FIELD: &str = "strict-transport-security";

/// A route says what is told in one way.
pub(super) fn one_way(route: &Route, at: &At<'_>, problems: &mut Collector) {
    if route.hsts.is_none() {
        return;
    }
    for way in route.says_of(FIELD) {
        let message = format!("{}: `{}` names `{FIELD}`, which is what `hsts` says", at.subject(), way.join("."));
        report_at(&way, message, at, problems).help("leave out one of the two");
    }
}
