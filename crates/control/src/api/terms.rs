//! What a change is asked under: by whom and why, against which generation, only as a question, or until it is confirmed.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use kakei_proxy::snapshot::Generation;
use serde::Deserialize;

use super::problem::Problem;
use crate::handle::{Asked, Change, Confirm, What};
use crate::serve::Peer;
use crate::traffic::LOOKED_AT;

const ORIGIN: &str = "api";
/// The longest reason that is written down, in bytes.
const MESSAGE: usize = 1024;
/// The longest time in which a change may be confirmed.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// See the module's words.
#[derive(Debug)]
pub(super) struct Terms {
    asked: Asked,
    expected: Option<Vec<Generation>>,
    dry_run: bool,
    confirm: Option<Confirm>,
    traffic: Option<usize>,
}

/// What the query of a change may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsQuery {
    /// `1` or `true`: only say what would change.
    dry_run: Option<String>,
    /// Why.
    message: Option<String>,
    /// The time in which it has to be confirmed.
    confirm_within: Option<String>,
    /// Of a hundred.
    guard_errors: Option<u8>,
    /// Of a hundred.
    guard_unhealthy: Option<u8>,
    /// How many requests, connections and flows are to be tried.
    traffic: Option<usize>,
}

impl TermsQuery {
    fn dry_run(&self) -> Result<bool, Problem> {
        match self.dry_run.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!("dry_run is 1 or 0, not {other:?}"))),
        }
    }

    fn confirm(&self) -> Result<Option<Confirm>, Problem> {
        let (errors, unhealthy) = (self.guard_errors, self.guard_unhealthy);
        if errors.into_iter().chain(unhealthy).any(|share| share > 100) {
            return Err(Problem::bad_request("a guard is a share of a hundred, from 0 to 100"));
        }
        let Some(text) = &self.confirm_within else {
            return match errors.or(unhealthy) {
                None => Ok(None),
                Some(_) => Err(Problem::bad_request(
                    "a guard watches over a change until it is confirmed: it needs confirm_within",
                )),
            };
        };
        let within = kakei_config::parse_duration(text).filter(|within| !within.is_zero() && *within <= LONGEST);
        let wrong = || Problem::bad_request(format!("confirm_within is a duration as 2m, at most 7d, not {text:?}"));
        Ok(Some(Confirm { within: within.ok_or_else(wrong)?, errors, unhealthy }))
    }

    fn traffic(&self) -> Result<Option<usize>, Problem> {
        match self.traffic {
            Some(_) if !self.dry_run()? => Err(Problem::bad_request("traffic is tried on a plan: it needs dry_run")),
            Some(limit) if limit == 0 || limit > LOOKED_AT => {
                Err(Problem::bad_request(format!("traffic is a number from 1 to {LOOKED_AT}")))
            }
            traffic => Ok(traffic),
        }
    }

    fn message(self) -> Result<Option<String>, Problem> {
        match self.message {
            Some(text) if text.len() > MESSAGE || text.contains(char::is_control) => {
                Err(Problem::bad_request(format!("a message is one line of at most {MESSAGE} bytes")))
            }
            message => Ok(message),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Terms {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<TermsQuery>::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        let by = parts.extensions.get::<Peer>().and_then(|peer| peer.0.clone());
        let (dry_run, confirm, traffic) = (query.dry_run()?, query.confirm()?, query.traffic()?);
        let asked = Asked { origin: ORIGIN, by, message: query.message()? };
        Ok(Terms { asked, expected: if_match(&parts.headers)?, dry_run, confirm, traffic })
    }
}

impl Terms {
    /// Who asks, and why, of what is no change.
    pub(super) fn only_asked(self) -> Result<Asked, Problem> {
        match self {
            Terms { asked, expected: None, dry_run: false, confirm: None, traffic: None } => Ok(asked),
            _ => Err(Problem::bad_request("a confirmation takes a message, and no other terms of a change")),
        }
    }

    /// This change, under these terms.
    pub(super) fn change(self, what: What) -> Change {
        let Terms { asked, expected, dry_run, confirm, traffic } = self;
        Change { what, asked, expected, dry_run, confirm, traffic }
    }
}

/// RFC 9110 section 13.1.1: `*`, or entity tags, of which a weak one never matches.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<Generation>>, Problem> {
    let mut generations = Vec::new();
    let mut any = headers.get(header::IF_MATCH).is_none();
    for value in headers.get_all(header::IF_MATCH) {
        let value = value.to_str().map_err(|_| Problem::bad_request("If-Match is not text"))?;
        for tag in value.split(',').map(str::trim) {
            any |= tag == "*";
            generations.extend(tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')?.parse().ok()).map(Generation));
        }
    }
    Ok((!any).then_some(generations))
}
