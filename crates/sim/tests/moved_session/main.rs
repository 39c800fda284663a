//! A live TLS session carried to another process, as far as the library lets it: a client that knows nothing of it goes
//! on, in both directions, with a record layer that was given nothing but bytes. A prototype, and no part of the program
//! (docs/TLS.md has what was found). A seed replays to the bit.

#[cfg(test)]
#[path = "../secured/provider.rs"]
mod provider;
#[cfg(test)]
mod record;
#[cfg(test)]
mod server;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use fastrand::Rng;
    use kakei_proxy::secure::{Anybody, Materials};
    use rustls::client::{ClientConfig, ClientConnection, Resumption};
    use rustls::pki_types::ServerName;

    use crate::provider::{provider, seed};
    use crate::record::{Taken, suite};
    use crate::server::Server;

    /// `TLS_AES_256_GCM_SHA384` and `TLS_CHACHA20_POLY1305_SHA256`.
    const SUITES: [u16; 2] = [0x1302, 0x1303];

    /// The side that moves.
    enum Side {
        First(Box<Server>),
        Taken(Taken),
    }

    impl Side {
        fn hear(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
            match self {
                Side::First(server) => server.hear(bytes),
                Side::Taken(taken) => taken.hear(bytes),
            }
        }

        fn say(&mut self, bytes: &[u8], send: &mut Vec<u8>) {
            match self {
                Side::First(server) => server.say(bytes, send),
                Side::Taken(taken) => taken.say(bytes, send),
            }
        }

        /// What took it up, and what is to be sent first.
        fn moved(self, materials: &Materials) -> (Self, Vec<u8>) {
            let (bytes, send) = match self {
                Side::First(server) => server.leave(),
                Side::Taken(taken) => (taken.leave(), Vec::new()),
            };
            (Side::Taken(Taken::read(materials, &bytes)), send)
        }
    }

    /// A client, and both directions of its line.
    struct Scene {
        client: ClientConnection,
        side: Side,
        /// What went over the line.
        wire: Vec<u8>,
        /// What each side was told so far.
        client_heard: Vec<u8>,
        side_heard: Vec<u8>,
    }

    fn client() -> ClientConnection {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let verifier = Arc::new(Anybody(provider()));
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = Resumption::disabled();
        ClientConnection::new(Arc::new(config), ServerName::try_from("echo.test").unwrap()).unwrap()
    }

    impl Scene {
        fn begin(materials: &Materials, number: u16) -> Self {
            let side = Side::First(Box::new(Server::new(suite(materials, number))));
            let (wire, client_heard, side_heard) = (Vec::new(), Vec::new(), Vec::new());
            let mut scene = Scene { client: client(), side, wire, client_heard, side_heard };
            while scene.client.is_handshaking() {
                let bytes = scene.flush_client();
                scene.side_hears(&bytes);
            }
            let bytes = scene.flush_client();
            scene.side_hears(&bytes);
            scene
        }

        fn flush_client(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            self.wire.extend(&bytes);
            bytes
        }

        fn side_hears(&mut self, bytes: &[u8]) {
            let (heard, send) = self.side.hear(bytes);
            self.side_heard.extend(heard);
            self.client_hears(&send);
        }

        fn client_hears(&mut self, mut bytes: &[u8]) {
            self.wire.extend(bytes);
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                let state = self.client.process_new_packets().unwrap();
                let mut heard = vec![0; state.plaintext_bytes_to_read()];
                self.client.reader().read_exact(&mut heard).unwrap();
                self.client_heard.extend(heard);
            }
        }

        fn move_it(self, materials: &Materials) -> Self {
            let (side, send) = self.side.moved(materials);
            let mut scene = Scene { side, ..self };
            scene.client_hears(&send);
            scene
        }
    }

    /// What a run came to: what went over the line, moves in the middle of a record, updates of keys behind a move.
    fn run(number: u16, seed_of_run: u64) -> (Vec<u8>, usize, u32) {
        seed(seed_of_run);
        let mut rng = Rng::with_seed(seed_of_run);
        let materials = Materials { provider: Some(provider()), ..Materials::default() };
        let mut scene = Scene::begin(&materials, number);
        let (mut by_client, mut by_side, mut within): (Vec<u8>, Vec<u8>, usize) = (Vec::new(), Vec::new(), 0);
        let mut updates = 0;
        for _ in 0..rng.usize(5..30) {
            let text: Vec<u8> = (0..rng.usize(1..40_000)).map(|_| rng.u8(..)).collect();
            match rng.u8(..6) {
                0 | 1 => {
                    scene.client.writer().write_all(&text).unwrap();
                    by_client.extend(&text);
                    let bytes = scene.flush_client();
                    // It may be moved anywhere: between records, and in the middle of one.
                    let cut = if rng.bool() { rng.usize(..=bytes.len()) } else { bytes.len() };
                    scene.side_hears(&bytes[..cut]);
                    if cut < bytes.len() || rng.u8(..4) == 0 {
                        within += usize::from(cut < bytes.len());
                        scene = scene.move_it(&materials);
                    }
                    scene.side_hears(&bytes[cut..]);
                }
                2 | 3 => {
                    let mut send = Vec::new();
                    scene.side.say(&text, &mut send);
                    by_side.extend(&text);
                    scene.client_hears(&send);
                }
                4 => {
                    scene.client.refresh_traffic_keys().unwrap();
                    let bytes = scene.flush_client();
                    scene.side_hears(&bytes);
                    updates += u32::from(matches!(scene.side, Side::Taken(_)));
                }
                _ => {
                    let mut send = Vec::new();
                    if let Side::Taken(taken) = &mut scene.side {
                        taken.refresh(rng.bool(), &mut send);
                        updates += 1;
                    }
                    scene.client_hears(&send);
                    let bytes = scene.flush_client();
                    scene.side_hears(&bytes);
                }
            }
            assert!(scene.side_heard == by_client && scene.client_heard == by_side, "seed {seed_of_run}");
        }
        scene = scene.move_it(&materials);
        scene.client.send_close_notify();
        let bytes = scene.flush_client();
        scene.side_hears(&bytes);
        let (mut send, Side::Taken(taken)) = (Vec::new(), &mut scene.side) else { panic!("it was moved") };
        assert!(taken.has_ended, "seed {seed_of_run}");
        taken.end(&mut send);
        scene.client.read_tls(&mut &send[..]).unwrap();
        assert!(scene.client.process_new_packets().unwrap().peer_has_closed(), "seed {seed_of_run}");
        (scene.wire, within, updates)
    }

    #[test]
    fn a_session_goes_on_where_nobody_saw_its_handshake() {
        for number in SUITES {
            let (mut within, mut updates) = (0, 0);
            for seed in 0..60 {
                let (_, cut, updated) = run(number, seed);
                within += cut;
                updates += updated;
            }
            assert!(within > 20 && updates > 20, "{within} moves within a record, {updates} updates behind a move");
        }
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        for number in SUITES {
            assert!(run(number, 7).0 == run(number, 7).0);
        }
    }
}
