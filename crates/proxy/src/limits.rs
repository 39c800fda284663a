//! Every bound of the data plane, in one place, with the relations that must hold between them.

use std::time::Duration;

/// Events a machine may hand to one step.
pub const EVENTS_PER_STEP: usize = 512;
/// Deadlines handled in one step; the rest is due again at once.
pub const TIMERS_PER_STEP: usize = 256;
/// Flows, and connections, that one step visits because something under them was changed; the rest follows in the
/// next steps.
pub const SWEPT_PER_STEP: usize = 256;
/// Flows or connections in one answer to a command that lists them.
pub const PER_LISTING: usize = 10_000;
/// Room that a table of flows, sockets or deadlines has from the beginning. It costs no memory before it is used, and
/// an allocator gives so much pages of its own: the table grows by being mapped anew, so it is never copied and leaves
/// no holes among what is small.
pub const TABLE_BYTES: usize = 512 << 10;
/// The longest UDP payload over IPv4: 65,535 less the IP and UDP headers.
pub const MAX_DATAGRAM: u32 = 65_507;
/// Sockets in a cluster's shared pool of one address family.
pub const SHARED_SOCKETS: usize = 32_768;
/// How long a (shared socket, backend) pair rests after an answered flow, so that a reply that the network doubled
/// can't reach the next flow.
pub const SHARED_REST_ANSWERED: Duration = Duration::from_millis(100);
/// The same after a flow that may still be owed a reply.
pub const SHARED_REST_OWED: Duration = Duration::from_secs(5);
/// Runs of datagrams that wait in a worker for sockets asked for in the same step.
pub const STASH_RUNS: usize = 1_024;
/// Their bytes.
pub const STASH_BYTES: usize = 4 << 20;
/// Addresses of its machine that a worker knows, of those that clients dialled.
pub const OWN_ADDRESSES: usize = 64;
/// Flows that ended by what they sent, and of which a worker still knows what a failed send is to be counted on.
pub const ENDED_FLOWS: usize = 4_096;
/// Sockets of one-way flows that ended by their last datagram, which a worker keeps for what the network says of it.
pub const PARTED_SOCKETS: usize = 64;
/// For how long.
pub const PARTED_FOR: Duration = Duration::from_millis(100);
/// Bytes of a stream in one event: what one direction of a connection may have to keep in the worker.
pub const STREAM_READ: usize = 64 << 10;
/// From as many bytes on a read of a stream is a bulky one.
pub const BULKY_READ: usize = 16 << 10;
/// Bulky reads of a stream in a row after which the machine is asked to move its bytes by itself.
pub const PIPE_AFTER: u8 = 4;
/// Fewer bytes than these moved in one go are a small move.
pub const SMALL_MOVE: u64 = 4 << 10;
/// Small moves in a row after which the worker looks at the bytes itself again: that costs less for few.
pub const UNPIPE_AFTER: u8 = 16;
/// Waiting connections of a cluster that one step connects.
pub const QUEUE_TRIES_PER_STEP: usize = 256;
/// TLS handshakes that go on in one step: each may cost some hundred microseconds, in which nothing else moves.
pub const HANDSHAKES_PER_STEP: usize = 4;
/// Bytes of a client in which its TLS handshake must be over.
pub const HANDSHAKE_BYTES: usize = 128 << 10;
/// Bytes that a client may send before its TLS handshake is over, and that may wait for its end.
pub const EARLY_DATA: u32 = 16 << 10;
/// Bytes of a connection that are looked through for its ClientHello.
pub const CLIENT_HELLO: usize = 16 << 10;
/// Requests of one connection that are begun in one go; the next ones follow in the next step.
pub const PIPELINED: usize = 16;
/// Bytes of the proxy's own answers on one connection beyond which its next request waits for the next step: by then it is
/// known whether the client takes them.
pub const ANSWERED: usize = 64 << 10;
/// Bytes that a step has to write beyond which nobody's next request is begun in it.
pub const WRITTEN: usize = 1 << 20;
/// Bytes that are kept for what the next step has to write. A step that had a large answer may have had far more.
pub const WRITTEN_KEPT: usize = 4 << 20;
/// Bytes of a client's next requests up to which it is heard on while one is under way: one that goes is to be known.
pub const PIPELINED_BYTES: usize = 16 << 10;
/// Bytes of a request that are kept so that it can be sent again.
pub const REPLAY: usize = 16 << 10;
/// Pieces of a body up to this size are copied to stand in one piece with what frames them.
pub const COPIED_CHUNK: usize = 2 << 10;
/// Interim responses to one request.
pub const INTERIM_RESPONSES: u8 = 16;
/// Bytes of a response's head.
pub const RESPONSE_HEAD: usize = 64 << 10;
/// How long a client that sends nothing has to read what it was told last, before its connection is closed.
pub const LINGER: Duration = Duration::from_secs(2);
/// The same of one that goes on sending: what it was in the middle of is passed over for so long.
pub const LINGER_IN_ALL: Duration = Duration::from_secs(30);
/// Buffers of ended exchanges that are kept for the next ones.
pub const SPARE_BUFFERS: usize = 256;
/// The largest one that is kept.
pub const SPARE_BUFFER: usize = 16 << 10;
/// Passwords of which a worker has the machine find out at one time whether they are right.
pub const VERIFYING: usize = 64;
/// Requests that wait for one such answer.
pub const VERIFY_WAITERS: usize = 1_024;
/// How long a request waits for it.
pub const VERIFY_FOR: Duration = Duration::from_secs(10);
/// After how long an answer that didn't come is waited for no longer.
pub const VERIFY_LOST: Duration = Duration::from_secs(60);
/// Credentials that a worker knows to be right.
pub const CREDENTIALS: usize = 1_024;
/// For how long.
pub const CREDENTIALS_FOR: Duration = Duration::from_secs(300);
/// Credentials that a worker knows to be wrong: a client that shows the same ones again and again costs no computing.
pub const WRONG_CREDENTIALS: usize = 256;
/// For how long.
pub const WRONG_CREDENTIALS_FOR: Duration = Duration::from_secs(60);
/// Bytes of the body of a service's answer that are read for its connection's sake.
pub const PASSED_OVER: u64 = 64 << 10;
/// Rates that are kept apart by client or header, half of them of one limit; beyond that the unknown ones of a limit share
/// one.
pub const RATES: usize = 200_000;
/// After how long it is looked again which of them are no longer in use, while there is little room.
pub const SWEEP_AFTER: Duration = Duration::from_secs(1);
/// Routes, and clusters, whose requests' times are counted one by one; those of all others are counted together.
pub const TIMED: usize = 200;
/// With more routes of a listener than these, what a request needs of them is in no cache, and is read ahead.
pub const MANY_ROUTES: usize = 4_096;
/// Steps in which a slow start raises a backend's weight.
pub const SLOW_START_STEPS: u32 = 10;

const _: () = assert!(VERIFY_LOST.as_secs() > VERIFY_FOR.as_secs(), "who waits is not forgotten");
const _: () = assert!(LINGER_IN_ALL.as_secs() >= LINGER.as_secs(), "who sends has no less time than who doesn't");
const _: () = assert!(PIPELINED_BYTES <= STREAM_READ, "what waits is about one read");
const _: () = assert!(COPIED_CHUNK < STREAM_READ, "large pieces are not copied");
const _: () = assert!(HANDSHAKE_BYTES >= 2 * STREAM_READ, "what comes behind a handshake's end is not held against it");
const _: () = assert!(HANDSHAKE_BYTES > 4 * EARLY_DATA as usize, "early data is not held against a handshake");
const _: () = assert!(BULKY_READ <= STREAM_READ, "a read can be bulky");
const _: () = assert!(MAX_DATAGRAM <= u16::MAX as u32, "a datagram's length fits a segment length");
const _: () = assert!(SHARED_SOCKETS <= 1 << 16, "a shared socket's number fits 16 bits");
const _: () = assert!(SLOW_START_STEPS > 0, "a slow start has steps");
const _: () = assert!(STASH_RUNS >= EVENTS_PER_STEP, "a step of nothing but new flows is stashed whole");
const _: () = assert!(ENDED_FLOWS >= EVENTS_PER_STEP, "a step whose sends all end their flows is known whole");
const _: () = assert!(SWEPT_PER_STEP <= 4 * EVENTS_PER_STEP, "a sweep costs no more than a full step");
