//! HTTP/1.0 and HTTP/1.1 (RFC 9112): where a head ends, what it says, how a body is framed. Strict: what two programs
//! could read in two ways is refused. Holds no bytes but a chunked body's trailers; what it reads it only points into.
//!
//! [`Scan`] finds the end of a head that may come in pieces, at linear cost; [`Heads`] reads a complete one; [`Body`]
//! says of each piece of a body what is content, and when it has ended. Writing is plain: [`chunk_head`] and friends.

mod body;
mod chunked;
mod glance;
mod head;
mod quick;
mod request;
mod response;
mod scan;

pub use self::body::{Body, Piece};
pub use self::chunked::{BodyError, Chunked, LAST_CHUNK, TrailerBytes, chunk_head};
pub use self::glance::glance;
pub use self::head::{Connection, HeadError, Heads, Limits, MAX_FIELDS, Named, Version};
pub use self::request::RequestHead;
pub use self::response::ResponseHead;
pub use self::scan::Scan;
