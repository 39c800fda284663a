//! `kakei hash-password`: the hash of a password, for a document. The password is on no command line, where others see it.

use std::io::{self, BufRead, IsTerminal, Read};

use kakei::control::passwords::{self, Algorithm};

use crate::cli::{HashPassword, Hashing};
use crate::say::{self, Failure};

/// The longest line that is read.
const LONGEST: u64 = 64 << 10;

pub(super) fn hash(how: &HashPassword) -> Result<(), Failure> {
    let algorithm = match how.algorithm {
        Hashing::Argon2id => Algorithm::Argon2id,
        Hashing::Bcrypt => Algorithm::Bcrypt,
    };
    let password = if io::stdin().is_terminal() { ask()? } else { read()? };
    let hash = passwords::hash(algorithm, &password).map_err(Failure::usage)?;
    say::out(&format!("{hash}\n"));
    Ok(())
}

/// Asked for twice, and not shown.
fn ask() -> Result<String, Failure> {
    let hidden =
        |prompt| rpassword::prompt_password(prompt).map_err(|why| Failure::refused(format!("the terminal: {why}")));
    let password = hidden("Password: ")?;
    match hidden("Again: ")? == password {
        true => Ok(password),
        false => Err(Failure::usage("these are two different passwords; try again")),
    }
}

/// The first line of standard input.
fn read() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().take(LONGEST).read_line(&mut line);
    read.map_err(|why| Failure::usage(format!("the password can't be read from standard input: {why}")))?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
