//! Every bound of this crate, so that no document costs more than its length. Nothing here is about traffic.

/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 128 << 20;

/// How many diagnostics are kept; further ones are counted only.
pub const MAX_DIAGNOSTICS: usize = 100;

/// How deeply brackets may nest, and how many dots a key may have.
pub(crate) const MAX_DEPTH: usize = 16;

/// How many pairs of words one document may have compared for "did you mean".
pub(crate) const MAX_COMPARISONS: u32 = 100_000;

/// The longest name of an object, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// The longest probe payload and expectation, in bytes: fits every path's MTU.
pub(crate) const MAX_PROBE_BYTES: usize = 1_400;

/// The longest payload of a datagram over IPv4, in bytes.
pub(crate) const MAX_DATAGRAM_BYTES: u32 = 65_507;

/// The most fields of a request's head that a listener can be told to take: so many are read of any.
pub const MAX_FIELDS: u32 = 256;

/// The most workers.
pub(crate) const MAX_WORKERS: u16 = 1_024;

/// How long an ejection lasts at most, where nothing is said.
pub(crate) const EJECT_MAX: std::time::Duration = std::time::Duration::from_secs(300);

/// How many hosts, methods and sources of routes that are otherwise alike are compared with each other.
pub(crate) const MAX_OVERLAPS: usize = 20_000_000;

/// The most memory that one compiled regular expression may take, in bytes.
pub(crate) const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The most memory that all of a document's regular expressions may take together, in bytes.
pub(crate) const MAX_PATTERNS_BYTES: usize = 256 << 20;

/// The largest weight of a backend.
pub(crate) const MAX_WEIGHT: u32 = 256;

/// How much of a text from the document is quoted in a message, in characters.
pub(crate) const MAX_QUOTED: usize = 64;

/// The longest source line that is drawn under a message, in bytes.
pub(crate) const MAX_DRAWN_LINE: usize = 400;

/// The longest stretch of source between two places that are drawn together, in bytes.
pub(crate) const MAX_DRAWN_PIECE: usize = 4_000;

const _: () = assert!(MAX_DEPTH >= 8, "the deepest option is clusters.NAME.health.udp.expect.exact_hex");
const _: () = assert!(MAX_PROBE_BYTES < MAX_DATAGRAM_BYTES as usize, "a probe is one datagram");
