//! Hashes of passwords: made for people, and compared with what a client says, which takes milliseconds. Knows neither
//! users nor routes.

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use kakei_proxy::seam::{Verdict, Verify};
use rustix::rand::{GetRandomFlags, getrandom};

/// argon2's version where a hash says none (its first one, which said none).
const FIRST_VERSION: u32 = 0x10;
/// The rounds of bcrypt, as a power of two: a tenth of a second or less.
const BCRYPT_COST: u32 = 10;

/// How a hash is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// argon2id (RFC 9106) with 19 MiB and two passes.
    Argon2id,
    /// bcrypt, for passwords of at most 72 bytes.
    Bcrypt,
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// A password that says nothing.
    #[error("the password is empty")]
    Empty,
    /// RFC 7617, 2: neither user nor password has any.
    #[error("the password has a control character, which HTTP's Basic scheme doesn't carry (RFC 7617)")]
    Control,
    /// What is behind these bytes would count for nothing.
    #[error("the password has more than 72 bytes, and bcrypt reads no more; argon2id does")]
    Long,
    /// The kernel gave no randomness, or the library refused.
    #[error("the hash can't be made: {0}")]
    Failed(String),
}

/// The hash of a password with a salt of its own, as a document's `auth.basic.users` takes it.
pub fn hash(algorithm: Algorithm, password: &str) -> Result<String, HashError> {
    match password {
        "" => return Err(HashError::Empty),
        _ if password.chars().any(char::is_control) => return Err(HashError::Control),
        _ if algorithm == Algorithm::Bcrypt && password.len() > 72 => return Err(HashError::Long),
        _ => {}
    }
    let mut salt = [0; 16];
    let failed = |why: &dyn std::fmt::Display| HashError::Failed(why.to_string());
    // The kernel gives so few bytes whole or not at all.
    getrandom(&mut salt, GetRandomFlags::empty()).map_err(|why| failed(&why))?;
    match algorithm {
        Algorithm::Argon2id => {
            let made = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            made.map(|hash: PasswordHash| hash.to_string()).map_err(|why| failed(&why))
        }
        Algorithm::Bcrypt => {
            let made = bcrypt::hash_with_salt(password, BCRYPT_COST, salt);
            made.map(|parts| parts.format_for_version(bcrypt::Version::TwoB)).map_err(|why| failed(&why))
        }
    }
}

/// Whether a password is the one of a hash. Compared in constant time by either library.
pub(crate) fn find_out(verify: &Verify) -> Verdict {
    let (password, hash) = (&verify.password.0[..], &*verify.hash);
    if !hash.starts_with("$argon2") {
        return match bcrypt::verify(password, hash) {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Undone,
        };
    }
    let Ok(mut hash) = PasswordHash::new(hash) else { return Verdict::Undone };
    hash.version.get_or_insert(FIRST_VERSION);
    match Argon2::default().verify_password(password, &hash) {
        Ok(()) => Verdict::Right,
        Err(argon2::password_hash::Error::PasswordInvalid) => Verdict::Wrong,
        Err(_) => Verdict::Undone,
    }
}

#[cfg(test)]
mod tests {
    use kakei_proxy::seam::{Job, Password};

    use super::*;

    fn found(password: &str, hash: &str) -> Verdict {
        find_out(&Verify { job: Job(1), password: Password(password.into()), hash: hash.into() })
    }

    #[test]
    fn passwords_are_compared_with_the_hashes_that_other_programs_make() {
        // By Python's bcrypt 5.0.0 and argon2-cffi 25.1.0; the third with the letter that htpasswd writes, the last with
        // what argon2's first version wrote.
        let hashes = [
            "$2b$04$FTbGRagJOVcg/zcQPEesj.7ogYuBFfG6UM7p1BF8Xeq9A7gPY4Y9.",
            "$2a$05$IgI.zhwJMssBnKxND.I1BuvHahsaps0KVojTTY/SaKwV4rNlaTdwi",
            "$2y$04$FTbGRagJOVcg/zcQPEesj.7ogYuBFfG6UM7p1BF8Xeq9A7gPY4Y9.",
            "$argon2id$v=19$m=64,t=2,p=2$qVE/kjnhIpRyLYMW+kgHzw$M/n77wJonjevbIwM3JPLH/nGCUKtGQfulrs0pz5aOTE",
            "$argon2i$v=19$m=64,t=2,p=2$nlIUSlHNk4ZHHRf10TAcuw$l3knxCH6rUwF5g4HlMmd8jNmIFE/LJZOjdRLfLZyqEg",
            "$argon2d$v=19$m=64,t=2,p=2$CNwgF/WAsV4HZ7V6gc+/tA$V2u1NXIolSnh7ArDEKHP6evXIRY3DaRVYJGq3DumBOE",
            "$argon2i$v=16$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$pYGiorOulP17VZFOBTEaBknB/fVXauA01z5djsAJMts",
            "$argon2i$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$pYGiorOulP17VZFOBTEaBknB/fVXauA01z5djsAJMts",
        ];
        for hash in hashes {
            assert_eq!(found("correct horse", hash), Verdict::Right, "{hash}");
            for wrong in ["correct hors", "correct horse ", "", "Correct horse", "correct\0horse"] {
                assert_eq!(found(wrong, hash), Verdict::Wrong, "{hash} {wrong:?}");
            }
        }
    }

    #[test]
    fn a_hash_that_was_made_is_that_of_its_password_alone_and_no_two_are_alike() {
        for (algorithm, begins) in
            [(Algorithm::Argon2id, "$argon2id$v=19$m=19456,t=2,p=1$"), (Algorithm::Bcrypt, "$2b$10$")]
        {
            let made = hash(algorithm, "pässword: 1").unwrap();
            assert!(made.starts_with(begins), "{made}");
            assert_eq!((found("pässword: 1", &made), found("pässword: 2", &made)), (Verdict::Right, Verdict::Wrong));
            assert_ne!(hash(algorithm, "pässword: 1").unwrap(), made);
        }
    }

    #[test]
    fn what_could_not_be_shown_or_would_not_be_read_whole_has_no_hash() {
        let refused = |algorithm, password: &str| hash(algorithm, password).unwrap_err().to_string();
        assert!(refused(Algorithm::Argon2id, "").contains("empty"));
        assert!(refused(Algorithm::Argon2id, "a\tb").contains("control"));
        assert!(refused(Algorithm::Bcrypt, &"x".repeat(73)).contains("72 bytes"));
        let most = hash(Algorithm::Bcrypt, &"x".repeat(72)).unwrap();
        assert_eq!((found(&"x".repeat(72), &most), found(&"x".repeat(71), &most)), (Verdict::Right, Verdict::Wrong));
    }

    #[test]
    fn what_is_no_hash_says_nothing() {
        for hash in ["", "secret", "$2b$", "$argon2id$", "$2b$99$a", "$5$a$b"] {
            assert_eq!(found("secret", hash), Verdict::Undone, "{hash}");
        }
    }
}
