//! The decision about a request that nobody sent: what `explain` shows. Changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use kakei_wire::message::{Authority, Fields, normalise_path};

use super::rule::Rule;
use super::table::{Mismatch, Wanted};
use crate::snapshot::HttpListener;

/// Where a request would go.
#[derive(Clone, Debug)]
pub struct Decided {
    /// By which route, or by the listener's default; none: by neither.
    pub rule: Option<Arc<Rule>>,
    /// Every route, and what of it the request lacks (none: it matches); the one that is taken first, then those that
    /// come nearest.
    pub considered: Vec<(Arc<Rule>, Option<Mismatch>)>,
}

impl HttpListener {
    /// Where a request of this client would go: by `method` for `url`, like `http://shop.example.com/api?q=1`, with no
    /// header fields but `Host`. None: the host or the path can't be one.
    pub fn decide(&self, client: IpAddr, method: &str, url: &str) -> Option<Decided> {
        let after = url.split_once("://").map_or(url, |(_, after)| after);
        let (authority, target) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = normalise_path(if path.is_empty() { "/" } else { path }).ok()?;
        let host = match authority {
            "" => "".into(),
            authority => Authority::parse(authority).ok()?.host,
        };
        let wanted = Wanted { client, host: &host, path: &path, method, fields: Fields::EMPTY, query };
        let found = self.table.find(&wanted).cloned();
        let mut considered: Vec<(Arc<Rule>, Option<Mismatch>)> =
            self.table.rules().map(|rule| (Arc::clone(rule), rule.mismatch(&wanted))).collect();
        let is_found = |rule: &Arc<Rule>| found.as_ref().is_some_and(|found| Arc::ptr_eq(found, rule));
        considered.sort_by_key(|(rule, mismatch)| {
            // The later a route is found not to match, the nearer it comes.
            (!is_found(rule), mismatch.map_or(0, |mismatch| 10 - mismatch as usize))
        });
        Some(Decided { rule: found.or_else(|| self.default.clone()), considered })
    }
}
