//! A backend's reader: one request after another, nothing forgiven. Shares no code with the proxy, and cares for no speed.

use std::io::Read;

/// A request that a backend saw wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its first line.
    pub line: String,
    /// Its fields, as they came but for blanks around values.
    pub fields: Vec<(String, String)>,
    /// Its body, decoded.
    pub body: Vec<u8>,
}

impl Seen {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        first(&self.fields, name)
    }
}

/// A request whose body was not read yet.
#[derive(Clone, Debug)]
pub struct Head {
    line: String,
    fields: Vec<(String, String)>,
    /// The body's length; none: it comes in chunks.
    length: Option<usize>,
}

enum Stop {
    /// There is no more, wherever it stood.
    Ended,
    /// What came can't be read in one way only.
    Wrong(String),
}

/// The next request of a stream; none: it ended, and what there was of a request is none.
///
/// # Errors
/// What no proxy may send.
pub fn read(stream: &mut impl Read) -> Result<Option<Seen>, String> {
    match read_head(stream)? {
        Some(head) => head.read_body(stream),
        None => Ok(None),
    }
}

/// The head of the next request, for who answers before the body has come.
///
/// # Errors
/// What no proxy may send.
pub fn read_head(stream: &mut impl Read) -> Result<Option<Head>, String> {
    settle(head(stream))
}

impl Head {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        first(&self.fields, name)
    }

    /// The rest of the request.
    ///
    /// # Errors
    /// What no proxy may send.
    pub fn read_body(self, stream: &mut impl Read) -> Result<Option<Seen>, String> {
        let body = match self.length {
            Some(length) => exactly(stream, length),
            None => chunks(stream),
        };
        settle(body.map(|body| Seen { line: self.line, fields: self.fields, body }))
    }
}

fn first<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn settle<T>(read: Result<T, Stop>) -> Result<Option<T>, String> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Stop::Ended) => Ok(None),
        Err(Stop::Wrong(why)) => Err(why),
    }
}

fn wrong<T>(why: String) -> Result<T, Stop> {
    Err(Stop::Wrong(why))
}

fn head(stream: &mut impl Read) -> Result<Head, Stop> {
    let first = line(stream)?;
    let fields = fields(stream)?;
    let (mut length, mut chunked, mut hosts) = (None, 0, 0);
    for (name, value) in &fields {
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_some() => return wrong("two lengths".to_owned()),
            "content-length" => length = Some(number(value)?),
            "transfer-encoding" if value == "chunked" => chunked += 1,
            "transfer-encoding" => return wrong(format!("a coding of {value}")),
            "host" => hosts += 1,
            name if name.trim() != name => return wrong(format!("blanks around the name {name:?}")),
            _ => {}
        }
    }
    if hosts != 1 || chunked > 1 || chunked == 1 && length.is_some() || first.split(' ').count() != 3 {
        return wrong(format!("{first:?} has {hosts} hosts, {chunked} codings, the length {length:?}"));
    }
    Ok(Head { line: first, fields, length: if chunked == 1 { None } else { Some(length.unwrap_or(0)) } })
}

fn number(value: &str) -> Result<usize, Stop> {
    match value.bytes().all(|byte| byte.is_ascii_digit()) {
        true => value.parse().or_else(|_| wrong(format!("a length of {value}"))),
        false => wrong(format!("a length of {value}")),
    }
}

fn fields(stream: &mut impl Read) -> Result<Vec<(String, String)>, Stop> {
    let mut fields = Vec::new();
    loop {
        let field = line(stream)?;
        if field.is_empty() {
            return Ok(fields);
        }
        let Some((name, value)) = field.split_once(':') else { return wrong(format!("a strange field: {field:?}")) };
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn chunks(stream: &mut impl Read) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    loop {
        let size = line(stream)?;
        let Ok(size) = usize::from_str_radix(&size, 16) else { return wrong(format!("a size of {size:?}")) };
        body.extend(exactly(stream, size)?);
        if size == 0 {
            trailers(stream)?;
            return Ok(body);
        }
        if !line(stream)?.is_empty() {
            return wrong("no end of a chunk".to_owned());
        }
    }
}

fn trailers(stream: &mut impl Read) -> Result<(), Stop> {
    for (name, value) in fields(stream)? {
        if ["content-length", "transfer-encoding", "host"].contains(&name.to_ascii_lowercase().as_str()) {
            return wrong(format!("the trailer {name}: {value}"));
        }
    }
    Ok(())
}

fn exactly(stream: &mut impl Read, length: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).map_err(|_| Stop::Ended)?;
    if bytes.len() == length { Ok(bytes) } else { Err(Stop::Ended) }
}

/// A line without its end.
fn line(stream: &mut impl Read) -> Result<String, Stop> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let next = byte(stream)?;
        if next == b'\n' && line.last() != Some(&b'\r') {
            return wrong(format!("a bare line end behind {:?}", String::from_utf8_lossy(&line)));
        }
        line.push(next);
    }
    line.truncate(line.len() - 2);
    // Values may hold bytes that are no text of any kind (RFC 9110 5.5): each is a letter here.
    Ok(line.into_iter().map(char::from).collect())
}

fn byte(stream: &mut impl Read) -> Result<u8, Stop> {
    let mut one = [0];
    match stream.read(&mut one) {
        Ok(1) => Ok(one[0]),
        _ => Err(Stop::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Result<Vec<Seen>, String> {
        let mut seen = Vec::new();
        while let Some(request) = read(&mut bytes)? {
            seen.push(request);
        }
        Ok(seen)
    }

    #[test]
    fn it_reads_what_can_be_read_in_one_way() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST /b HTTP/1.1\r\nhost: a\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n";
        let seen = all(text.as_bytes()).unwrap();
        let said: Vec<_> = seen.iter().map(|seen| (seen.line.as_str(), seen.body.as_slice())).collect();
        assert_eq!(said, [("POST /a HTTP/1.1", b"hi".as_slice()), ("POST /b HTTP/1.1", b"abc")]);
    }

    #[test]
    fn it_forgives_nothing() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
        ] {
            assert!(all(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
