//! `kakei hash-password`: the hash of a password, for a document. The password is on no command line, where others see it.

use std::io::{self, BufRead, IsTerminal, Read};
use std::thread;

use kakei::control::passwords::{self, Algorithm, HashError};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{HashPassword, Hashing};
use crate::say::{self, Failure};

/// The longest line that is read.
const LONGEST: usize = 64 << 10;

pub(super) fn hash(how: &HashPassword) -> Result<(), Failure> {
    let algorithm = match how.algorithm {
        Hashing::Argon2id => Algorithm::Argon2id,
        Hashing::Bcrypt => Algorithm::Bcrypt,
    };
    let password = if io::stdin().is_terminal() { ask()? } else { line()? };
    let hash = passwords::hash(algorithm, &password).map_err(|why| match why {
        HashError::Failed(_) => Failure::refused(why),
        _ => Failure::usage(why),
    })?;
    say::out(&format!("{hash}\n"));
    Ok(())
}

/// Asked for twice, and not shown.
fn ask() -> Result<String, Failure> {
    let _hidden =
        Hidden::begin().map_err(|why| Failure::refused(format!("the terminal can't hide a password: {why}")))?;
    let hidden = |prompt| {
        say::err(prompt);
        let typed = line();
        say::err("\n");
        typed
    };
    let password = hidden("Password: ")?;
    match hidden("Again: ")? == password {
        true => Ok(password),
        false => Err(Failure::usage("these are two different passwords; try again")),
    }
}

/// The next line of standard input.
fn line() -> Result<String, Failure> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(LONGEST as u64 + 1).read_until(b'\n', &mut line);
    read.map_err(|why| Failure::refused(format!("the password can't be read from standard input: {why}")))?;
    if line.len() > LONGEST {
        return Err(Failure::usage(format!(
            "the password is the first line of standard input, which is longer than {LONGEST} bytes"
        )));
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8(line.to_vec());
    text.map_err(|_| {
        Failure::usage("the password is not UTF-8, as what browsers send is; set the terminal or the file to it")
    })
}

/// A terminal that doesn't show what is typed, until this is dropped or a signal ends the process.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Hidden> {
        let shown = tcgetattr(io::stdin())?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let hidden = Hidden(shown.clone());
        let mut silent = shown.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                show(&shown);
                // It ends the process as if nobody had listened.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        Ok(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        show(&self.0);
    }
}

/// A terminal that is gone shows nothing anyway.
fn show(shown: &Termios) {
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, shown);
}
