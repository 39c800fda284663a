//! The options that only HTTP has, each section beside the values that only it knows.

mod fields;
mod paths;
mod text;

mod auth;
mod backends;
mod listener;
mod route;
mod strict;

pub(super) use auth::{AUTH, BASIC, FORWARD};
pub(super) use backends::{HTTP_CHECK, HTTP_KNOBS, STICKY, Statuses};
pub(super) use fields::{FIELD_MATCHES, PARAMETER_MATCHES};
pub(super) use listener::{ERRORS, HTTP_LISTENER};
pub(super) use paths::PathOf;
pub(crate) use paths::patterns_bytes;
pub(crate) use route::ACTIONS;
pub(super) use route::{RATE_LIMIT, REDIRECT, REQUEST, RESPOND, RESPONSE, RETRY, SPLIT, TIMEOUTS, settle};
pub(super) use strict::{HSTS, TLS_REDIRECT};
pub(super) use text::{HostMatch, Method};
