//! Messages in WebSocket frames (RFC 6455), after the upgrade. One length, one mask, no fragments.

use crate::bench::generator::messages::{Dialect, LENGTH};

/// A last binary frame's first byte; the bit that says a mask follows.
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(super) struct WebSocket;

impl Dialect for WebSocket {
    /// The key and its answer are those of RFC 6455 1.3.
    const GREETING: Option<(&'static [u8], &'static [u8])> = Some((
        b"GET /p0/echo HTTP/1.1\r\nHost: h00000.bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ));
    const GREETED: &'static [u8] = b"HTTP/1.1 101 ";
    const LENGTHS: (usize, usize) = (2 + MASK.len() + LENGTH, 2 + LENGTH);

    fn ask(message: &[u8; LENGTH], out: &mut Vec<u8>) {
        out.extend_from_slice(&[BINARY, MASKED | LENGTH as u8]);
        out.extend_from_slice(&MASK);
        out.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    fn echo(asked: &[u8], out: &mut Vec<u8>) {
        let Some((head, masked)) = asked.split_at_checked(2 + MASK.len()) else { return };
        let (first, mask) = head.split_at(2);
        out.extend_from_slice(&[first[0], first[1] & !MASKED]);
        out.extend(masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    fn is_echo(got: &[u8], message: &[u8; LENGTH]) -> bool {
        got.strip_prefix(&[BINARY, LENGTH as u8]).is_some_and(|payload| payload == message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::generator::messages::message;

    #[test]
    fn an_echo_is_the_message_unmasked_and_no_other() {
        let (mut asked, mut echoed) = (Vec::new(), Vec::new());
        WebSocket::ask(&message(3, 4), &mut asked);
        WebSocket::echo(&asked, &mut echoed);
        assert_eq!((asked.len(), echoed.len()), WebSocket::LENGTHS);
        assert!(WebSocket::is_echo(&echoed, &message(3, 4)) && !WebSocket::is_echo(&echoed, &message(3, 5)));
    }
}
