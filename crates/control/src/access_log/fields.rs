//! What a line of the access log may say: every field once, with whose it is and where its value comes from. Every format
//! is made of these. Writes nothing.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use kakei_proxy::record::{ClientCertificate, ConnectionDetail, Detail, ExchangeDetail, Record, TlsDetail};

use crate::wall;

/// A record, and when what it is about ended.
#[derive(Debug)]
pub struct Line<'a> {
    pub(super) record: &'a Record,
    pub(super) ended: SystemTime,
}

/// What a field says.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Nothing.
    None,
    /// A name, an address, or a word of a closed vocabulary.
    Word(Cow<'a, str>),
    /// What a client wrote: anything.
    Sent(&'a str),
    Number(u64),
    Flag(bool),
}

/// Whose field it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Everything,
    Flows,
    Connections,
    Requests,
    /// Of those that went on before their client's TLS handshake was over.
    Early,
    /// Of those that waited until it was known whether they may pass.
    Checked,
    /// Of connections and requests.
    Streams,
    /// Of those of them that came by TLS.
    Secured,
    /// Of those whose TLS came to nothing.
    Refused,
    /// Of those whose client showed a certificate.
    Shown,
    /// Of those whose backend was spoken to in TLS, on a connection that was opened for them.
    Backend,
}

/// A field.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) of: Of,
    pub(super) value: for<'a> fn(&'a Line<'_>) -> Value<'a>,
}

impl Field {
    /// Whether lines of this kind have it.
    pub(super) fn is_of(&self, detail: &Detail) -> bool {
        match self.of {
            Of::Everything => true,
            Of::Flows => matches!(detail, Detail::Flow { .. }),
            Of::Connections => matches!(detail, Detail::Connection(_)),
            Of::Requests => matches!(detail, Detail::Exchange(_)),
            Of::Early => matches!(detail, Detail::Exchange(of) if of.early),
            Of::Checked => matches!(detail, Detail::Exchange(of) if of.checked.is_some()),
            Of::Streams => !matches!(detail, Detail::Flow { .. }),
            Of::Secured => detail.tls().is_some(),
            Of::Shown => detail.tls().is_some_and(|tls| tls.client.is_some()),
            Of::Backend => detail.backend_tls().is_some(),
            Of::Refused => detail.tls().is_some_and(|tls| tls.error.is_some()),
        }
    }
}

macro_rules! fields {
    ($($of:ident $key:literal: $value:expr;)*) => {
        /// Every field, in the order in which they are written.
        pub(super) const FIELDS: &[Field] = &[$(Field { key: $key, of: Of::$of, value: $value },)*];
    };
}

fields! {
    Everything "time": |line| Value::Word(wall::rfc3339(line.ended).into());
    Everything "listener": |line| word(line.record.listener.as_str());
    Everything "route": |line| or_none(line.record.route.as_ref().map(|name| name.as_str()), word);
    Everything "cluster": |line| or_none(line.record.cluster.as_ref().map(|name| name.as_str()), word);
    Everything "backend": |line| or_none(line.record.backend.as_ref().map(|name| name.as_str()), word);
    Everything "backend_address": |line| or_none(line.record.backend_address.as_ref(), |at| Value::Word(at.to_string().into()));
    Everything "client": |line| Value::Word(line.record.client.to_string().into());
    Everything "local": |line| Value::Word(line.record.local.to_string().into());
    Everything "duration_ms": |line| millis(line.record.duration);
    Flows "requests": |line| or_none(line.record.datagrams(), |(requests, _)| Value::Number(requests));
    Everything "request_bytes": |line| Value::Number(line.record.request_bytes);
    Flows "responses": |line| or_none(line.record.datagrams(), |(_, responses)| Value::Number(responses));
    Everything "response_bytes": response_bytes;
    Everything "reason": |line| word(line.record.reason.name());
    Everything "by": |line| word(line.record.reason.by().name());
    Requests "method": method;
    Requests "host": |line| or_none(exchange(line), |of| Value::Sent(&of.host));
    Requests "target": target;
    Requests "version": version;
    Requests "status": status;
    Requests "user_agent": user_agent;
    Requests "referer": referer;
    Requests "user": user;
    Requests "request_id": |line| sent(line, |of| of.request_id.as_deref());
    Requests "trace_id": |line| or_none(exchange(line).and_then(|of| of.trace_id.as_deref()), word);
    Connections "sni": |line| or_none(connection(line).and_then(|of| of.sni.as_deref()), word);
    Streams "attempts": |line| timing(line, |of| Value::Number(of.attempts.into()), |of| Value::Number(of.attempts.into()));
    Requests "reused": |line| or_none(exchange(line), |of| Value::Flag(of.reused));
    Checked "auth_ms": |line| or_none(exchange(line).and_then(|of| of.checked), millis);
    Streams "queued_ms": |line| timing(line, |of| millis(of.queued), |of| millis(of.queued));
    Streams "connect_ms": |line| timing(line, |of| or_none(of.connect, millis), |of| or_none(of.connect, millis));
    Requests "first_byte_ms": |line| or_none(exchange(line).and_then(|of| of.first_byte), millis);
    Secured "tls_version": |line| or_none(tls(line).and_then(|of| of.version.as_deref()), word);
    Secured "tls_cipher": |line| or_none(tls(line).and_then(|of| of.cipher.as_deref()), word);
    Secured "tls_sni": |line| or_none(tls(line).and_then(|of| of.sni.as_deref()), word);
    Secured "tls_alpn": |line| or_none(tls(line).and_then(|of| of.alpn.as_deref()), Value::Sent);
    Secured "tls_resumed": |line| or_none(tls(line), |of| Value::Flag(of.resumed));
    Early "early": |line| or_none(exchange(line), |of| Value::Flag(of.early));
    Secured "tls_certificate": |line| or_none(tls(line).and_then(|of| of.certificate.as_ref()), |name| word(name.as_str()));
    Shown "tls_client_subject": |line| or_none(client(line), |of| Value::Sent(&of.subject));
    Shown "tls_client_names": |line| or_none(client(line), |of| Value::Sent(&of.names));
    Shown "tls_client_fingerprint": |line| or_none(client(line), |of| word(&of.fingerprint));
    Refused "tls_error": |line| or_none(tls(line).and_then(|of| of.error.as_deref()), Value::Sent);
    Refused "tls_offered_versions": |line| offered(tls(line).map(|of| &*of.offered_versions));
    Refused "tls_offered_alpn": |line| offered(tls(line).map(|of| &*of.offered_alpn));
    Backend "backend_tls_version": |line| or_none(backend_tls(line).and_then(|of| of.version.as_deref()), word);
    Backend "backend_tls_cipher": |line| or_none(backend_tls(line).and_then(|of| of.cipher.as_deref()), word);
    Backend "backend_tls_alpn": |line| or_none(backend_tls(line).and_then(|of| of.alpn.as_deref()), Value::Sent);
    Backend "backend_tls_resumed": |line| or_none(backend_tls(line), |of| Value::Flag(of.resumed));
    Backend "backend_tls_error": |line| or_none(backend_tls(line).and_then(|of| of.error.as_deref()), Value::Sent);
}

pub(super) fn method<'a>(line: &'a Line<'_>) -> Value<'a> {
    or_none(exchange(line), |of| Value::Sent(&of.method))
}

pub(super) fn target<'a>(line: &'a Line<'_>) -> Value<'a> {
    or_none(exchange(line), |of| Value::Sent(&of.target))
}

pub(super) fn version<'a>(line: &'a Line<'_>) -> Value<'a> {
    or_none(exchange(line), |of| word(&of.version))
}

pub(super) fn status<'a>(line: &'a Line<'_>) -> Value<'a> {
    or_none(exchange(line).and_then(|of| of.status), |status| Value::Number(status.into()))
}

pub(super) fn user<'a>(line: &'a Line<'_>) -> Value<'a> {
    sent(line, |of| of.user.as_deref())
}

pub(super) fn user_agent<'a>(line: &'a Line<'_>) -> Value<'a> {
    sent(line, |of| of.user_agent.as_deref())
}

pub(super) fn referer<'a>(line: &'a Line<'_>) -> Value<'a> {
    sent(line, |of| of.referer.as_deref())
}

pub(super) fn response_bytes<'a>(line: &'a Line<'_>) -> Value<'a> {
    Value::Number(line.record.response_bytes)
}

fn exchange<'a>(line: &Line<'a>) -> Option<&'a ExchangeDetail> {
    match &line.record.detail {
        Detail::Exchange(detail) => Some(detail),
        Detail::Flow { .. } | Detail::Connection(_) => None,
    }
}

fn connection<'a>(line: &Line<'a>) -> Option<&'a ConnectionDetail> {
    match &line.record.detail {
        Detail::Connection(detail) => Some(detail),
        Detail::Flow { .. } | Detail::Exchange(_) => None,
    }
}

fn tls<'a>(line: &Line<'a>) -> Option<&'a TlsDetail> {
    line.record.detail.tls()
}

fn client<'a>(line: &Line<'a>) -> Option<&'a ClientCertificate> {
    tls(line).and_then(|of| of.client.as_deref())
}

fn backend_tls<'a>(line: &Line<'a>) -> Option<&'a TlsDetail> {
    line.record.detail.backend_tls()
}

/// A list of what a client offered.
fn offered<'a>(list: Option<&[String]>) -> Value<'a> {
    or_none(list.filter(|list| !list.is_empty()), |list| Value::Word(list.join(",").into()))
}

fn timing<'a>(
    line: &Line<'a>,
    of_connection: fn(&'a ConnectionDetail) -> Value<'a>,
    of_exchange: fn(&'a ExchangeDetail) -> Value<'a>,
) -> Value<'a> {
    match &line.record.detail {
        Detail::Connection(detail) => of_connection(detail),
        Detail::Exchange(detail) => of_exchange(detail),
        Detail::Flow { .. } => Value::None,
    }
}

fn sent<'a>(line: &Line<'a>, of: fn(&'a ExchangeDetail) -> Option<&'a str>) -> Value<'a> {
    or_none(exchange(line).and_then(of), Value::Sent)
}

fn word(text: &str) -> Value<'_> {
    Value::Word(text.into())
}

fn millis<'a>(time: Duration) -> Value<'a> {
    Value::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn or_none<'a, T>(value: Option<T>, made: impl FnOnce(T) -> Value<'a>) -> Value<'a> {
    value.map_or(Value::None, made)
}
