//! The options of the operator's side doors. Nothing is opened here, and nobody is let in.

use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use super::network::Address;
use super::tls::PemOf;
use super::values::{self, Path, Reference, Time, text};
use super::{At, Codec, ListOf, Maybe, Section, Shape, Sparse, Table, field};
use crate::diagnostics::{Collector, quoted};
use crate::model::{Admin, AdminPeers, AdminTcp, ClientId, PeerId};
use crate::tree::Value;

pub(super) const ADMIN: Section<Admin> = Section {
    blank: Admin::default,
    fields: &[
        // 107 bytes are what a Unix socket's address holds.
        field!(socket: Maybe(Path { what: "a Unix socket's path, at most 107 bytes", longest: 107 }),
            "the socket that speaks HTTP and JSON, mode 0600 unless `peers` names somebody; left out: none"),
        field!(metrics: Maybe(Address::Bind), "the address of `/metrics`, `/healthz` and `/readyz`; left out: on the socket only"),
        field!(state: Maybe(Path { what: "a directory's path", longest: 4_096 }),
            "where generations are kept; left out: in memory only"),
        field!(audit_log: Maybe(Path { what: "a file's path", longest: 4_096 }),
            "a file that gets a JSON line for every change that is asked for; left out: it stands in the log only"),
        field!(watch_files: Maybe(Time { min: Duration::from_millis(100), max: values::LONGEST }),
            "how often the files that certificates (`chain`, `key`, `ocsp`), `ca` and `crls` name are looked at, and read again where they changed; left out: with a change or a reload only"),
        field!(peers: Sparse(Table(&PEERS)), "who may use the socket besides the process's own user and root"),
        field!(tcp: Maybe(OverTcp), "the same API over TCP, in TLS, for clients that show a certificate; left out: on the socket only"),
    ],
    later: &[],
    finish: super::independent,
};

pub(super) const PEERS: Section<AdminPeers> = Section {
    blank: AdminPeers::default,
    fields: &[
        field!(read_only: ListOf { of: PEER, filled: false }, "who may look, and change nothing"),
        field!(read_write: ListOf { of: PEER, filled: false }, "who may do everything"),
    ],
    later: &[],
    finish: |peers, at, problems| one_role(&peers.read_only, &peers.read_write, at, problems),
};

pub(super) const TCP: Section<AdminTcp> = Section {
    blank: AdminTcp::default,
    fields: &[
        field!(bind: Address::Bind, "where it is", required),
        field!(certificate: Reference("certificate"), "what it proves by who it is", required),
        field!(ca: PemOf, "the certificates of those who may vouch for clients; without one nobody could tell who asks", required),
        field!(crls: ListOf { of: PemOf, filled: false }, "revocation lists; with any of them, a client whose issuer has none is refused"),
        field!(read_only: ListOf { of: CLIENT, filled: false }, "clients who may look, and change nothing"),
        field!(read_write: ListOf { of: CLIENT, filled: false }, "clients who may do everything; who is in neither list is refused"),
    ],
    later: &[],
    finish: |tcp, at, problems| {
        if tcp.read_only.is_empty() && tcp.read_write.is_empty() {
            at.report_key(format!("{} lets nobody in: it names no client", at.subject()), problems)
                .help("name some in `read_only` or `read_write`, as `\"CN=ann\"` or `\"DNS:ci.example.com\"`");
        }
        one_role(&tcp.read_only, &tcp.read_write, at, problems);
    },
};

/// The door over TCP: a table, never an address alone.
struct OverTcp;

impl Codec for OverTcp {
    type Of = AdminTcp;

    fn describe(&self) -> String {
        Table(&TCP).describe()
    }

    fn shape(&self) -> Shape {
        TCP.shape()
    }

    fn has_key(&self, key: &str) -> bool {
        Table(&TCP).has_key(key)
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<AdminTcp> {
        if matches!(at.node.value, Value::Text(_)) {
            let message = format!("{} is an address alone: whoever reaches it could change everything", at.subject());
            at.report(message, problems).help(
                "give it `bind`, a `certificate`, the `ca` of its clients, and who of them is in `read_only` and `read_write`",
            );
            return None;
        }
        Table(&TCP).read(at, problems)
    }

    fn write(&self, value: &AdminTcp) -> Option<Value> {
        Table(&TCP).write(value)
    }
}

/// Nobody has two roles.
fn one_role<T: PartialEq + ToString>(lookers: &[T], changers: &[T], at: &At<'_>, problems: &mut Collector) {
    for both in lookers.iter().filter(|who| changers.contains(who)) {
        let message = format!("{}: `{}` is in both lists", at.subject(), quoted(&both.to_string()));
        at.report_key(message, problems).help("leave it in one of `read_only` and `read_write`");
    }
}

/// Somebody, by a kind of name.
struct Somebody<T> {
    what: &'static str,
    of: PhantomData<fn() -> T>,
}

const PEER: Somebody<PeerId> = Somebody { what: "`uid:NUMBER` or `gid:NUMBER`", of: PhantomData };
const CLIENT: Somebody<ClientId> =
    Somebody { what: "`CN=NAME`, `DNS:NAME`, `URI:NAME` or `email:NAME`", of: PhantomData };
/// The longest name.
const LONGEST: usize = 1_024;

impl<T: FromStr + ToString> Codec for Somebody<T> {
    type Of = T;

    fn describe(&self) -> String {
        self.what.into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<T> {
        let written = text(at, self.what, problems)?;
        let wrong = match written.parse() {
            _ if written.len() > LONGEST => format!("is longer than {LONGEST} bytes"),
            _ if written.chars().any(char::is_control) => "has a control character".to_owned(),
            Ok(read) => return Some(read),
            Err(_) => "names nobody".to_owned(),
        };
        let message = format!("{}: `{}` {wrong}", at.subject(), quoted(written));
        at.report(message, problems).help(format!("it is {}", self.what));
        None
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}
