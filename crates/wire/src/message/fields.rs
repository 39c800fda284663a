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
}

impl<'a> Fields<'a> {
    /// No field.
    pub const EMPTY: Fields<'static> = Fields { bytes: &[], list: &[] };

    /// Those that lie in `bytes` where `list` says.
    pub fn new(bytes: &'a [u8], list: &'a [Field]) -> Self {
        Fields { bytes, list }
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

    /// The values of one that is known.
    pub fn known(&self, known: Known) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Fields { bytes, list } = *self;
        let of = Fields { bytes, list };
        list.iter().filter(move |field| field.known == Some(known)).map(move |field| of.value(field))
    }

    /// The first value of one that is known.
    pub fn first(&self, known: Known) -> Option<&'a [u8]> {
        self.known(known).next()
    }

    /// The values of the field of this name, in any case.
    pub fn named<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let Fields { bytes, list } = *self;
        let of = Fields { bytes, list };
        let is_it =
            move |field: &&Field| field.name as usize == name.len() && of.name(field).eq_ignore_ascii_case(name);
        list.iter().filter(is_it).map(move |field| of.value(field))
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
    ClientCert: "client-cert",
    ClientCertChain: "client-cert-chain",
    XClientCertSubject: "x-client-cert-subject",
    XClientCertSan: "x-client-cert-san",
    XClientCertFingerprint: "x-client-cert-fingerprint",
}

/// The lengths of the names above: most names of a message have another one, and are looked at no further.
const LENGTHS: u32 = {
    let (mut set, mut at) = (0u32, 0);
    while at < Known::ALL.len() {
        set |= 1 << Known::ALL[at].name().len();
        at += 1;
    }
    set
};

impl Known {
    /// Which one a name is, in any case.
    pub fn of(name: &[u8]) -> Option<Known> {
        if name.len() > 31 || LENGTHS & 1 << name.len() == 0 {
            return None;
        }
        let candidates: &[Known] = match name.first()?.to_ascii_lowercase() {
            b'a' => &[Known::Accept, Known::Authorization],
            b'c' => {
                &[Known::Connection, Known::Cookie, Known::ContentLength, Known::ClientCert, Known::ClientCertChain]
            }
            b'd' => &[Known::Date],
            b'e' => &[Known::Expect],
            b'f' => &[Known::Forwarded],
            b'h' => &[Known::Host, Known::Http2Settings],
            b'k' => &[Known::KeepAlive],
            b'p' => &[Known::ProxyConnection, Known::ProxyAuthorization],
            b's' => &[Known::StrictTransportSecurity],
            b't' => &[Known::Te, Known::Trailer, Known::TransferEncoding, Known::Traceparent, Known::Tracestate],
            b'u' => &[Known::Upgrade],
            b'v' => &[Known::Via],
            b'x' => &[
                Known::XForwardedFor,
                Known::XForwardedProto,
                Known::XForwardedHost,
                Known::XForwardedPort,
                Known::XRequestId,
                Known::XClientCertSubject,
                Known::XClientCertSan,
                Known::XClientCertFingerprint,
            ],
            _ => return None,
        };
        candidates.iter().copied().find(|known| name.eq_ignore_ascii_case(known.name().as_bytes()))
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
        assert_eq!(Known::of(b""), None);
        assert_eq!(Known::of(&[b'x'; 300]), None);
    }
}
