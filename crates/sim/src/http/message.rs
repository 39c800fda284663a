//! A parser of HTTP/1.1 that is nobody else's: slow, simple, over whole buffers. Shares no code with the proxy.

/// A head that was read.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The first line.
    pub(super) line: String,
    /// Names in lower case.
    pub(super) fields: Vec<(String, String)>,
    /// Where the body begins.
    pub(super) len: usize,
}

/// What there is of a body.
pub(super) enum Body {
    /// All of it, and where the message ends.
    Whole(Vec<u8>, usize),
    /// Not all of it.
    Part,
}

impl Head {
    /// The head at the begin of some bytes; none: it isn't there yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, String> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        // Values may hold bytes that are no text of any kind (RFC 9110 5.5): each is a letter here.
        let text: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("a field without a colon: {line:?}"))?;
            Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        };
        let fields = lines.map(field).collect::<Result<Vec<_>, String>>()?;
        Ok(Some(Head { line, fields, len: end + 4 }))
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none() || name != "content-length", "two lengths: {self:?}");
        first
    }

    /// The values of all fields that a program may take for this one that reads `_` as `-`.
    pub(super) fn taken_for(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(known, _)| known.replace('_', "-") == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.field("transfer-encoding") == Some("chunked")
    }

    pub(super) fn length(&self) -> Result<Option<usize>, String> {
        let length = self.field("content-length").map(|text| text.parse().map_err(|_| format!("a length of {text:?}")));
        let length = length.transpose()?;
        if length.is_some() && self.is_chunked() {
            return Err(format!("two framings: {self:?}"));
        }
        Ok(length)
    }

    pub(super) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|options| options.contains("close"))
    }
}

/// A body in chunks that begins at `at`.
pub(super) fn chunked(bytes: &[u8], mut at: usize) -> Result<Body, String> {
    let mut body = Vec::new();
    loop {
        let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(Body::Part);
        };
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "a size that isn't text")?;
        let size = usize::from_str_radix(size, 16).map_err(|_| format!("a chunk's size of {size:?}"))?;
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return Ok(Body::Part);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk without an end".to_owned());
        }
        at += size + 2;
        if size == 0 {
            return Ok(Body::Whole(body, at));
        }
    }
}

/// A body of so many bytes that begins at `at`.
pub(super) fn sized(bytes: &[u8], at: usize, len: usize) -> Body {
    match bytes.len() >= at + len {
        true => Body::Whole(bytes[at..at + len].to_vec(), at + len),
        false => Body::Part,
    }
}

/// The body of whoever has this number: unlike everybody else's.
pub(super) fn pattern(id: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((at ^ id << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A body in chunks of any size.
pub(super) fn in_chunks(body: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let len = match rng.u8(0..3) {
            0 => rng.usize(1..=rest.len().min(20)),
            _ => rng.usize(1..=rest.len()),
        };
        out.extend_from_slice(format!("{len:X}\r\n").as_bytes());
        out.extend_from_slice(&rest[..len]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[len..];
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}
