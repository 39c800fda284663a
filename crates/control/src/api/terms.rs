//! What a change is asked under: by whom and why, against which generation, only as a question, or until it is confirmed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use kakei_proxy::snapshot::Generation;
use schemars::JsonSchema;
use serde::Deserialize;

use super::guard::{self, Attempt};
use super::problem::Problem;
use crate::access::{Peer, Role};
use crate::handle::{Asked, Change, Confirm, What};
use crate::traffic::LOOKED_AT;

/// The longest reason that is written down, in bytes.
const MESSAGE: usize = 1024;
/// The longest time in which a change may be confirmed.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// See the module's words.
pub(super) struct Terms {
    asked: Asked,
    peer: Peer,
    attempt: Arc<Attempt>,
    expected: Option<Vec<Generation>>,
    dry_run: bool,
    confirm: Option<Confirm>,
    traffic: Option<usize>,
}

/// What the query of a change may say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TermsQuery {
    /// `1` or `true`: only say what would change.
    dry_run: Option<String>,
    /// Why: one line, at most 1,024 bytes.
    message: Option<String>,
    /// The time in which it has to be confirmed, as `2m`; at most 7 days.
    confirm_within: Option<String>,
    /// With `confirm_within`: it is taken back sooner when more than so many of a hundred requests fail.
    #[schemars(range(max = 100))]
    guard_errors: Option<u8>,
    /// With `confirm_within`: it is taken back sooner when more than so many of a hundred checked backends are down.
    #[schemars(range(max = 100))]
    guard_unhealthy: Option<u8>,
    /// How many requests, connections and flows are to be tried.
    traffic: Option<usize>,
}

/// What the query of a confirmation may say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct MessageQuery {
    /// Why: one line, at most 1,024 bytes.
    message: Option<String>,
}

/// Why, as far as it can be read: for the audit line of what is refused already.
pub(super) fn message_of(uri: &Uri) -> Option<String> {
    let Query(MessageQuery { message }) = Query::try_from_uri(uri).ok()?;
    message.filter(|message| is_message(message))
}

/// What of the query says whether anything is to be done.
#[derive(Debug, Default, Deserialize)]
struct DryRun {
    dry_run: Option<String>,
}

/// Whether it is only asked what a change would be, as far as that can be read.
pub(super) fn is_question(uri: &Uri) -> bool {
    let asked = Query::<DryRun>::try_from_uri(uri).map(|Query(DryRun { dry_run })| dry_run);
    asked.is_ok_and(|dry_run| is_yes(dry_run.as_deref()) == Ok(true))
}

/// What a switch in a query says; or what it says that is neither yes nor no.
fn is_yes(said: Option<&str>) -> Result<bool, &str> {
    match said {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(other) => Err(other),
    }
}

fn is_message(text: &str) -> bool {
    text.len() <= MESSAGE && !text.contains(char::is_control)
}

impl TermsQuery {
    fn dry_run(&self) -> Result<bool, Problem> {
        is_yes(self.dry_run.as_deref())
            .map_err(|other| Problem::bad_request(format!("dry_run is 1 or 0, not {other:?}")))
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
            Some(text) if !is_message(&text) => {
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
        let known = parts.extensions.get::<Peer>().cloned().zip(parts.extensions.get::<Arc<Attempt>>().cloned());
        let (peer, attempt) =
            known.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "forbidden", "nobody said who asks"))?;
        let (dry_run, confirm, traffic) = (query.dry_run()?, query.confirm()?, query.traffic()?);
        let asked = Asked { message: query.message()?, ..guard::asked(&peer, parts.method.as_str(), &parts.uri) };
        Ok(Terms { asked, peer, attempt, expected: if_match(&parts.headers)?, dry_run, confirm, traffic })
    }
}

impl Terms {
    /// Who asks, and why, of what is no change.
    pub(super) fn only_asked(self) -> Result<Asked, Problem> {
        if self.expected.is_some() || self.dry_run || self.confirm.is_some() || self.traffic.is_some() {
            return Err(Problem::bad_request("a confirmation takes a message, and no other terms of a change"));
        }
        self.hand_over()?;
        Ok(self.asked)
    }

    /// This change, under these terms, for the owner: from now on it is being done. The rules may be others than when the
    /// request began.
    pub(super) fn change(self, what: What) -> Result<Change, Problem> {
        self.hand_over()?;
        let Terms { asked, expected, dry_run, confirm, traffic, .. } = self;
        Ok(Change { what, asked, expected, dry_run, confirm, traffic })
    }

    fn hand_over(&self) -> Result<(), Problem> {
        if self.peer.role() < Some(Role::ReadWrite) {
            return Err(guard::forbidden(&self.peer, Role::ReadWrite));
        }
        self.attempt.hand_over();
        self.peer.guest.serve(true);
        Ok(())
    }
}

/// RFC 9110 section 13.1.1: `*`, or entity tags, of which a weak one never matches. One of them at least is a generation's.
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
    if !any && generations.is_empty() {
        // It could match nothing, whatever runs.
        return Err(Problem::bad_request(
            "If-Match is a generation in quotes, as \"7\", and not a weak one (W/\"7\"); or *",
        ));
    }
    Ok((!any).then_some(generations))
}
