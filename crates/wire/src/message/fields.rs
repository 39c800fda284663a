//! A message's fields: where each lies in the bytes that hold the head, and which of those that the proxy knows it is.

/// A field whose name and value lie in a head's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where its line begins: at its name.
    pub start: u32,
    /// Length of its name.
    pub name: u16,
    /// Which one it is, where that matters to a proxy.
    pub known: Option<Known>,
    /// Where its value begins, without the whitespace around it.
    pub value: u32,
    /// Length of its value.
    pub value_len: u32,
    /// Where its line ends: behind its CRLF.
    pub end: u32,
}

/// The fields of a message, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    list: &'a [Field],
    /// Which of those that are known are among them: one that isn't there is not looked for.
    present: Present,
}

/// A set of known fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Present(u32);

const _: () = assert!(Known::ALL.len() <= u32::BITS as usize, "each has its bit");

impl Present {
    fn of(list: &[Field]) -> Self {
        let bits = list.iter().filter_map(|field| field.known).map(|known| 1 << known as u32);
        Present(bits.fold(0, |set, bit| set | bit))
    }

    fn has(self, known: Known) -> bool {
        self.0 & 1 << known as u32 != 0
    }
}

impl<'a> Fields<'a> {
    /// No field.
    pub const EMPTY: Fields<'static> = Fields { bytes: &[], list: &[], present: Present(0) };

    /// Those that lie in `bytes` where `list` says.
    pub fn new(bytes: &'a [u8], list: &'a [Field]) -> Self {
        Fields { bytes, list, present: Present::of(list) }
    }

    /// The bytes that they lie in: the whole head.
    pub fn head(&self) -> &'a [u8] {
        self.bytes
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = &'a Field> + use<'a> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A field's name, as it was written.
    pub fn name(&self, field: &Field) -> &'a [u8] {
        &self.bytes[field.start as usize..field.start as usize + field.name as usize]
    }

    /// A field's value.
    pub fn value(&self, field: &Field) -> &'a [u8] {
        &self.bytes[field.value as usize..field.value as usize + field.value_len as usize]
    }

    /// The bytes from where one field's line begins to where another's ends.
    pub fn lines(&self, first: &Field, last: &Field) -> &'a [u8] {
        &self.bytes[first.start as usize..last.end as usize]
    }

    /// Whether there is one that is known.
    pub fn has(&self, known: Known) -> bool {
        self.present.has(known)
    }

    /// The values of one that is known.
    pub fn known(&self, known: Known) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let of = *self;
        let list = if self.present.has(known) { self.list } else { &[] };
        list.iter().filter(move |field| field.known == Some(known)).map(move |field| of.value(field))
    }

    /// The first value of one that is known.
    pub fn first(&self, known: Known) -> Option<&'a [u8]> {
        self.known(known).next()
    }

    /// The values of the field of this name, in any case.
    pub fn named<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let of = *self;
        let is_it =
            move |field: &&Field| field.name as usize == name.len() && of.name(field).eq_ignore_ascii_case(name);
        self.list.iter().filter(is_it).map(move |field| of.value(field))
    }
}

macro_rules! known {
    ($($variant:ident: $name:literal,)*) => {
        /// Fields that mean something to a proxy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Known { $(#[doc = $name] $variant,)* }

        impl Known {
            /// Every one.
            pub const ALL: &[Known] = &[$(Known::$variant,)*];

            /// Its name, in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Known::$variant => $name,)* }
            }
        }
    };
}

known! {
    Host: "host",
    Connection: "connection",
    KeepAlive: "keep-alive",
    ProxyConnection: "proxy-connection",
    Te: "te",
    Trailer: "trailer",
    TransferEncoding: "transfer-encoding",
    Upgrade: "upgrade",
    ContentLength: "content-length",
    Expect: "expect",
    Http2Settings: "http2-settings",
    Forwarded: "forwarded",
    XForwardedFor: "x-forwarded-for",
    XForwardedProto: "x-forwarded-proto",
    XForwardedHost: "x-forwarded-host",
    XForwardedPort: "x-forwarded-port",
    XRequestId: "x-request-id",
    Via: "via",
    Authorization: "authorization",
    ProxyAuthorization: "proxy-authorization",
    Cookie: "cookie",
    Accept: "accept",
    Date: "date",
    StrictTransportSecurity: "strict-transport-security",
    Traceparent: "traceparent",
    Tracestate: "tracestate",
    EarlyData: "early-data",
    ClientCert: "client-cert",
    ClientCertChain: "client-cert-chain",
    XClientCertSubject: "x-client-cert-subject",
    XClientCertSan: "x-client-cert-san",
    XClientCertFingerprint: "x-client-cert-fingerprint",
}

/// A name as it is written in small letters, and which one it is.
type Spelling = (&'static [u8], Known);

/// No name is this long.
const LONGEST: usize = 32;

/// As many names as there are of one length.
const OF_A_LENGTH: usize = 4;

/// The names above by their length: most names of a message have another one, and are looked at no further.
static BY_LENGTH: [[Option<Spelling>; OF_A_LENGTH]; LONGEST] = {
    let (mut table, mut at) = ([[None; OF_A_LENGTH]; LONGEST], 0);
    while at < Known::ALL.len() {
        let (name, mut place) = (Known::ALL[at].name().as_bytes(), 0);
        while table[name.len()][place].is_some() {
            place += 1;
        }
        table[name.len()][place] = Some((name, Known::ALL[at]));
        at += 1;
    }
    table
};

impl Known {
    /// Which one a name is, in any case.
    pub fn of(name: &[u8]) -> Option<Known> {
        let first = name.first()? | 0x20;
        for entry in BY_LENGTH.get(name.len())? {
            let (small, known) = (*entry)?;
            if small[0] == first && is_spelt(name, small) {
                return Some(known);
            }
        }
        None
    }

    /// Which one a name with `_` is to programs that read `-` there, as those do that put fields into variables of an
    /// environment (RFC 3875 4.1.18).
    pub fn disguised(name: &[u8]) -> Option<Known> {
        let mut plain = [0; LONGEST];
        let plain = plain.get_mut(..name.len()).filter(|_| name.contains(&b'_'))?;
        for (plain, byte) in plain.iter_mut().zip(name) {
            *plain = if *byte == b'_' { b'-' } else { *byte };
        }
        Known::of(plain)
    }

    /// Whether it says who vouched for whom in TLS: RFC 9440, and what this proxy says itself.
    pub fn is_client_certificate(self) -> bool {
        matches!(
            self,
            Known::ClientCert
                | Known::ClientCertChain
                | Known::XClientCertSubject
                | Known::XClientCertSan
                | Known::XClientCertFingerprint
        )
    }

    /// Whether it is about one connection and never goes on to the next (RFC 9110 7.6.1, and what older clients send).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Http2Settings
        )
    }
}

/// Whether a name may be taken for this one, which is written in small letters: in any case, and with `_` for `-`.
pub fn is_taken_for(name: &[u8], small: &[u8]) -> bool {
    let is_like = |(byte, small): (&u8, &u8)| byte.eq_ignore_ascii_case(small) || (*byte == b'_' && *small == b'-');
    name.len() == small.len() && name.iter().zip(small).all(is_like)
}

/// Whether a name is one of those by which proxies tell of a client, as it is or as it may be taken for one: all of
/// `X-Forwarded-…`.
pub fn is_of_forwarded(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    name.get(..PREFIX.len()).is_some_and(|begin| is_taken_for(begin, PREFIX))
}

/// Whether a name is this one, which is as long and written in small letters, in any case. Eight bytes at a time, or four.
fn is_spelt(name: &[u8], small: &[u8]) -> bool {
    let eight = |bytes: &[u8]| Some([*bytes.first_chunk()?, *bytes.last_chunk()?].map(u64::from_ne_bytes));
    let four =
        |bytes: &[u8]| Some([*bytes.first_chunk()?, *bytes.last_chunk()?].map(u32::from_ne_bytes).map(u64::from));
    let ends = |[first, last]: [u64; 2], small: [u64; 2]| are_spelt(first, small[0]) && are_spelt(last, small[1]);
    if let (Some(name_ends), Some(small_ends)) = (eight(name), eight(small)) {
        let mut middle = name.as_chunks().0.iter().zip(small.as_chunks().0).skip(1);
        let mut is_like = |(a, b): (&[u8; 8], &[u8; 8])| are_spelt(u64::from_ne_bytes(*a), u64::from_ne_bytes(*b));
        return ends(name_ends, small_ends) && middle.all(&mut is_like);
    }
    match (four(name), four(small)) {
        (Some(name), Some(small)) => ends(name, small),
        _ => name.iter().zip(small).all(|(byte, small)| are_spelt((*byte).into(), (*small).into())),
    }
}

/// In ASCII what has the bit 0x40 among letters, digits and the hyphen is a letter, and its bit 0x20 says that it is small.
fn are_spelt(name: u64, small: u64) -> bool {
    name | (small & 0x4040_4040_4040_4040) >> 1 == small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &known in Known::ALL {
            assert_eq!(Known::of(known.name().as_bytes()), Some(known));
            assert_eq!(Known::of(known.name().to_ascii_uppercase().as_bytes()), Some(known));
            assert_eq!(Known::of(&known.name().as_bytes()[1..]), None);
        }
        assert_eq!(Known::of(b"x-forwarded-foo"), None);
        for &known in Known::ALL {
            // Every byte in every place: in none but its own, and as a capital, is the name still that one.
            let name = known.name().as_bytes();
            for (at, other) in (0..name.len()).flat_map(|at| (0..=u8::MAX).map(move |other| (at, other))) {
                let mut changed = name.to_vec();
                changed[at] = other;
                let is_it = other.eq_ignore_ascii_case(&name[at]);
                assert_eq!(Known::of(&changed) == Some(known), is_it, "{}", changed.escape_ascii());
            }
        }
        assert_eq!(Known::of(b""), None);
        assert_eq!(Known::of(&[b'x'; 300]), None);
    }

    #[test]
    fn a_name_with_underscores_is_known_by_what_it_may_be_taken_for() {
        for &known in Known::ALL {
            let with = |name: &str| name.replace('-', "_").into_bytes();
            let disguised = Some(known).filter(|known| known.name().contains('-'));
            assert_eq!(Known::disguised(&with(known.name())), disguised);
            assert_eq!(Known::disguised(&with(&known.name().to_ascii_uppercase())), disguised);
            assert_eq!(Known::disguised(known.name().as_bytes()), None, "it is no disguise");
        }
        assert_eq!(Known::disguised(b"X-Forwarded_For"), Some(Known::XForwardedFor));
        for name in [&b""[..], b"_", b"x_custom", b"x__forwarded_for", b"_host", &[b'_'; 31], &[b'_'; 32], &[b'_'; 300]]
        {
            assert_eq!(Known::disguised(name), None, "{}", name.escape_ascii());
        }
        for (name, is_taken) in
            [(&b"X-User"[..], true), (b"x_uSER", true), (b"x.user", false), (b"x-users", false), (b"-_user", false)]
        {
            assert_eq!(is_taken_for(name, b"x-user"), is_taken);
        }
        assert!(!is_taken_for(b"x-user", b"x_user") && is_taken_for(b"X_User", b"x_user"));
        assert!(
            is_of_forwarded(b"X_Forwarded-Prefix")
                && is_of_forwarded(b"x-forwarded-")
                && !is_of_forwarded(b"x-forwarded")
        );
    }
}
