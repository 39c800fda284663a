//! HTTP messages without a version: fields, methods, targets, what a body is like (RFC 9110). Each version's codec reads
//! its bytes into these and writes them out again. Nothing here knows how a message is framed on a connection.

mod authority;
mod basic;
mod date;
mod fields;
mod path;
mod trace;

pub use self::authority::{Authority, WrongAuthority};
pub use self::basic::Basic;
pub use self::date::{DATE_LEN, civil, date};
pub use self::fields::{Field, Fields, Known, is_of_forwarded, is_taken_for};
pub use self::path::{
    WrongPath, encode as encode_path, is_ambiguous as is_ambiguous_path, normalise as normalise_path,
};
pub use self::trace::{Trace, trace};

/// What is known of a body before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// It has so many bytes.
    Sized(u64),
    /// It says itself where it ends.
    Unknown,
}

/// A request's head: a view of bytes that somebody else holds.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method: a token, case-sensitive (RFC 9110 9.1).
    pub method: &'a str,
    /// Host and port as the client wrote them; empty: it named none.
    pub authority: &'a str,
    /// The path as it came: begins with `/`, or is `*`; empty for CONNECT.
    pub path: &'a str,
    /// What stands behind the first `?`.
    pub query: Option<&'a str>,
    /// The header fields, in order, those about this one connection included.
    pub fields: Fields<'a>,
    /// The body.
    pub length: Length,
}

/// A response's head.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// 100 to 999.
    pub status: u16,
    /// What a person reads; may be empty.
    pub reason: &'a str,
    /// The header fields.
    pub fields: Fields<'a>,
    /// The body.
    pub length: Length,
}

/// Whether a request of this method changes nothing if it is carried out twice (RFC 9110 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether a request of this method asks for nothing but to be told something (RFC 9110 9.2.1).
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// The tokens of a comma-separated field value (RFC 9110 5.6.1); empty ones are left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a byte may stand in a token (RFC 9110 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    let is_mark = matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    );
    byte.is_ascii_alphanumeric() || is_mark
}

/// What a person reads of a status (RFC 9110 15).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
