//! What computes TLS in simulations: real ciphers and signatures, but randomness from a seed and a key exchange that is
//! anybody's to break, so that a seed replays to the bit. Never part of the program.

use std::cell::RefCell;
use std::sync::Arc;

use fastrand::Rng;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, aws_lc_rs,
};
use rustls::{Error, NamedGroup};

thread_local! {
    static RNG: RefCell<Rng> = const { RefCell::new(Rng::with_seed(0)) };
}

/// From here on everything random follows from this seed, on this thread.
pub(crate) fn seed(seed: u64) {
    RNG.with(|rng| *rng.borrow_mut() = Rng::with_seed(seed));
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![&Toy], secure_random: &Seeded, ..aws_lc_rs::default_provider() })
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        RNG.with(|rng| rng.borrow_mut().fill(buffer));
        Ok(())
    }
}

/// Diffie and Hellman's exchange modulo a prime that is far too small.
#[derive(Debug)]
struct Toy;

const PRIME: u128 = (1 << 61) - 1;
const LENGTH: usize = 32;

struct Half {
    secret: u64,
    public: [u8; LENGTH],
}

fn power(base: u128, mut exponent: u64) -> u64 {
    let (mut base, mut result) = (base % PRIME, 1u128);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = result * base % PRIME;
        }
        base = base * base % PRIME;
        exponent /= 2;
    }
    result as u64
}

fn spread(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

impl SupportedKxGroup for Toy {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = RNG.with(|rng| rng.borrow_mut().u64(2..1 << 60));
        Ok(Box::new(Half { secret, public: spread(power(3, secret)) }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Half {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let number = peer.first_chunk::<8>().ok_or(Error::General("a half is too short".into()))?;
        let shared = power(u64::from_be_bytes(*number).into(), self.secret);
        Ok(SharedSecret::from(&spread(shared)[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
