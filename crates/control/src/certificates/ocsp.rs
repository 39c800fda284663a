//! The answer of an OCSP responder (RFC 6960), as far as it takes to know whose certificate it is about. Whether it is
//! signed, and still fresh, is for those to see who are shown it.

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::prelude::X509Certificate;

/// The responder said something (RFC 6960 4.2.1).
const SUCCESSFUL: [u8; 1] = [0];
/// The only kind of answer there is, `id-pkix-ocsp-basic`: 1.3.6.1.5.5.7.48.1.1.
const BASIC: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// The answer, if it is one about this certificate.
///
/// # Errors
/// What is wrong with it.
pub(super) fn staple(der: Vec<u8>, leaf: &[u8]) -> Result<Vec<u8>, String> {
    let serials = serials(&der).ok_or("it is no answer of an OCSP responder in DER, or one that says nothing")?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    match serials.contains(&leaf.raw_serial()) {
        true => Ok(der),
        false => Err(format!(
            "it is the answer about another certificate: this one's number is {}",
            leaf.raw_serial_as_string()
        )),
    }
}

/// The numbers of the certificates that an answer is about; none: it is none.
fn serials(der: &[u8]) -> Option<Vec<&[u8]>> {
    let ([], response) = one(der, Tag::Sequence)? else { return None };
    let (rest, status) = one(response, Tag::Enumerated)?;
    let (_, bytes) = explicit(rest, 0)?;
    let (_, bytes) = one(bytes, Tag::Sequence)?;
    let (rest, kind) = one(bytes, Tag::Oid)?;
    let (_, basic) = one(rest, Tag::OctetString)?;
    if status != SUCCESSFUL || kind != BASIC {
        return None;
    }
    let (_, basic) = one(basic, Tag::Sequence)?;
    let (_, signed) = one(basic, Tag::Sequence)?;
    // The version, where it isn't the only one that there is.
    let signed = explicit(signed, 0).map_or(signed, |(rest, _)| rest);
    let (rest, _responder) = any(signed)?;
    let (rest, _at) = one(rest, Tag::GeneralizedTime)?;
    let (_, mut answers) = one(rest, Tag::Sequence)?;
    let mut serials = Vec::new();
    while !answers.is_empty() {
        let (rest, answer) = one(answers, Tag::Sequence)?;
        serials.push(serial(answer)?);
        answers = rest;
    }
    Some(serials)
}

/// The number of the certificate that one of its answers is about.
fn serial(answer: &[u8]) -> Option<&[u8]> {
    let (_, about) = one(answer, Tag::Sequence)?;
    let (rest, _hash) = one(about, Tag::Sequence)?;
    let (rest, _name) = one(rest, Tag::OctetString)?;
    let (rest, _key) = one(rest, Tag::OctetString)?;
    one(rest, Tag::Integer).map(|(_, serial)| serial)
}

/// What comes next, and what is behind it.
fn any(der: &[u8]) -> Option<(&[u8], Any<'_>)> {
    Any::from_der(der).ok()
}

fn one(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(_, any)| any.header.is_universal() && any.header.tag() == tag).map(|(rest, any)| (rest, any.data))
}

/// What stands in a place that has a number.
fn explicit(der: &[u8], number: u32) -> Option<(&[u8], &[u8])> {
    let is_it = |any: &Any<'_>| any.header.is_contextspecific() && any.header.tag() == Tag(number);
    any(der).filter(|(_, any)| is_it(any)).map(|(rest, any)| (rest, any.data))
}

#[cfg(test)]
mod tests;
