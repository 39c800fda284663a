//! Version 1 of the PROXY protocol as it drips in.

use std::net::SocketAddr;

use kakei_wire::proxy_protocol::{Addresses, parse_stream, v1};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_prefix_of_a_line_asks_for_more(source in any::<([u8; 4], u16)>(), to in any::<([u16; 8], u16)>(), six in any::<bool>()) {
        let v6 = SocketAddr::from(to);
        let addresses = Addresses { source: if six { v6 } else { source.into() }, destination: if six { v6 } else { source.into() } };
        let mut line = [0; v1::MAX];
        let len = v1::emit(Some(addresses), &mut line);
        for cut in 1..len {
            let read = parse_stream(&line[..cut]);
            prop_assert!(matches!(read, Ok(None)), "{:?} at {}", read, cut);
        }
        let header = parse_stream(&line[..len]).expect("a line that was emitted").expect("a whole one");
        prop_assert_eq!((header.len, header.addresses), (len, Some(addresses)));
    }
}
