//! The two streams that people read, and the shape of a failure. Formats no data.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use crate::log;

/// Why a command ends with something else than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1: refused or failed; 2: wrong usage or an invalid document.
    pub(crate) code: u8,
    message: Message,
}

#[derive(Debug)]
enum Message {
    /// One sentence, that says what to do.
    Sentence(String),
    /// Text that is drawn already.
    Drawn(String),
}

impl Failure {
    /// The thing was refused or failed.
    pub(crate) fn refused(sentence: impl ToString) -> Self {
        Failure { code: 1, message: Message::Sentence(sentence.to_string()) }
    }

    /// The command line or a file is wrong.
    pub(crate) fn usage(sentence: impl ToString) -> Self {
        Failure { code: 2, message: Message::Sentence(sentence.to_string()) }
    }

    /// A document is wrong; its errors are drawn already.
    pub(crate) fn drawn(text: String) -> Self {
        Failure { code: 2, message: Message::Drawn(text) }
    }

    /// In one line.
    pub(crate) fn sentence(&self) -> String {
        match &self.message {
            Message::Sentence(sentence) => sentence.clone(),
            Message::Drawn(text) => text.lines().next().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        match &self.message {
            Message::Sentence(sentence) => format!("error: {sentence}\n"),
            Message::Drawn(text) => text.clone(),
        }
    }
}

/// Why something that was said did not arrive; the first such end.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// To standard output. A reader that went away ends nothing here; what it can't take for another reason is in [`lost`].
pub(crate) fn out(text: &str) {
    match written(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => drop(LOST.set(error)),
        _ => {}
    }
}

/// To standard output, by what goes on whether that takes it or not.
pub(crate) fn ready(text: &str) {
    let _ = written(text);
}

fn written(text: &str) -> io::Result<()> {
    let mut stream = io::stdout().lock();
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Whether standard output lacks something of what was said: nobody is to take a part for the whole.
pub(crate) fn lost() -> Result<(), Failure> {
    match LOST.get() {
        None => Ok(()),
        Some(error) => {
            let sentence = "is done, but what it said is cut off or lost: standard output can't be written";
            Err(Failure::refused(format!("the command {sentence}: {error}")))
        }
    }
}

/// To standard error.
pub(crate) fn err(text: &str) {
    log::write(text);
}

/// Whether standard error takes colour: a terminal, and nobody asked for none.
pub(crate) fn color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
