//! What must be: which generation is which document, by whom it was asked for, and what waits to be confirmed. Kept from what
//! was asked and from what the program says of itself, and never from how it came to it.

use std::collections::BTreeMap;

use kakei_config::Document;
use kakei_control::View;
use kakei_control::history::{Entry, GENERATIONS_KEPT};

use crate::author::{Cannot, NOWHERE, Wish};

/// Milliseconds that a change may be taken back sooner, since the clock on the wall is read in seconds after a restart.
const EARLY: u64 = 1_100;

/// Something that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    wish: Wish,
    /// The time in which it has to be confirmed, in milliseconds.
    confirm: Option<u64>,
    at: u64,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No answer came so far.
    Asked,
    /// It runs, or ran.
    Became(u64),
    /// It was refused; whether the disk failed meanwhile, so that it may be there in spite of that.
    Refused { disk_failed: bool },
}

/// A generation that waits.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) generation: u64,
    before: Document,
    /// The time in which it has to be confirmed is over at some moment between these two.
    from: u64,
    pub(crate) until: u64,
    /// A confirmation was asked for, and nobody heard whether it came about.
    pub(crate) is_unsure: bool,
}

/// What must come of a change that nothing comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A refusal of one of these kinds.
    Refusal(&'static [&'static str]),
    /// There is nothing to change.
    Nothing,
    Change,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) documents: BTreeMap<u64, Document>,
    /// Confirmations that are under way, of whichever generation waits then.
    pub(crate) confirming: u32,
    /// Generations that ran, in their order.
    pub(crate) ran: Vec<u64>,
    /// Since when each of this process ran.
    pub(crate) since: BTreeMap<u64, u64>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) pending: Option<Pending>,
    /// What the process was started with, if that was a document.
    pub(crate) given: Option<Document>,
    pub(crate) taken_back: u64,
}

impl Model {
    pub(crate) fn newest(&self) -> u64 {
        self.ran.last().copied().unwrap_or(0)
    }

    pub(crate) fn document(&self) -> Document {
        self.documents.get(&self.newest()).cloned().unwrap_or_default()
    }

    /// Note a wish; its number.
    pub(crate) fn ask(&mut self, wish: Wish, confirm: Option<u64>, at: u64) -> usize {
        self.asked.push(Asked { wish, confirm, at, state: State::Asked });
        self.asked.len() - 1
    }

    /// What a wish makes of what runs.
    fn result(&self, wish: &Wish) -> Result<Document, Cannot> {
        let mut document = self.document();
        match wish {
            Wish::Whole(whole) => document = Document::clone(whole),
            Wish::Steps(steps) => steps.iter().try_for_each(|step| step.clone().model(&mut document))?,
            Wish::Back(to) => {
                let before = self.ran.iter().rev().nth(1).copied();
                let to = to.or(before).ok_or(Cannot::NotKept)?;
                document = self.documents.get(&to).cloned().ok_or(Cannot::NotKept)?;
            }
        }
        Ok(document)
    }

    /// What must come of a wish, if nothing comes between.
    pub(crate) fn expected(&self, wish: &Wish, terms: (Option<&[u64]>, bool, bool)) -> Expected {
        let (expected, dry_run, for_a_time) = terms;
        if expected.is_some_and(|expected| !expected.contains(&self.newest())) {
            return Expected::Refusal(&["generation-mismatch"]);
        }
        if self.pending.is_some() && !dry_run && (for_a_time || !matches!(wish, Wish::Back(_))) {
            return Expected::Refusal(&["unconfirmed"]);
        }
        let next = match self.result(wish) {
            Ok(next) => next,
            Err(Cannot::Unknown) => return Expected::Refusal(&["unknown-object"]),
            Err(Cannot::Taken) => return Expected::Refusal(&["object-exists"]),
            Err(Cannot::NotKept) => return Expected::Refusal(&["generation-not-kept"]),
        };
        if kakei_config::check(&next).is_err() {
            return Expected::Refusal(&["invalid-document"]);
        }
        if next.workers != self.document().workers {
            return Expected::Refusal(&["needs-restart"]);
        }
        match next == self.document() {
            true => Expected::Nothing,
            false if dry_run => Expected::Change,
            false if next.access_log.to.as_deref() == Some(NOWHERE) => Expected::Refusal(&["access-log"]),
            false => Expected::Change,
        }
    }

    /// What the whole validation says of what a wish makes.
    pub(crate) fn faults(&self, wish: &Wish) -> Option<String> {
        let next = self.result(wish).ok()?;
        kakei_config::check(&next).err().map(|errors| errors.to_string())
    }

    /// Whether this generation must be kept still.
    pub(crate) fn is_kept(&self, generation: u64) -> bool {
        self.ran.iter().rev().take(GENERATIONS_KEPT - 4).any(|ran| *ran == generation)
    }

    /// Take in what the program says of its generations, and compare.
    pub(crate) fn look(&mut self, view: &View, now: u64) -> Result<(), String> {
        for entry in view.history.entries() {
            if entry.generation.0 > self.newest() {
                self.ran_next(entry, now)?;
            }
        }
        let running = view.generation().0;
        if running == self.newest() && *view.document != self.document() {
            let (is, must) = (view.document.to_toml(), self.document().to_toml());
            return Err(format!("generation {running} is another document than was asked for:\n{is}\nmust be\n{must}"));
        }
        Ok(())
    }

    fn ran_next(&mut self, entry: &Entry, now: u64) -> Result<(), String> {
        let (number, message) = (entry.generation.0, entry.message.clone().unwrap_or_default());
        let wish = message.strip_prefix("wish ").and_then(|number| number.parse::<usize>().ok());
        let before = self.document();
        let mut pending = None;
        let document = match wish.and_then(|wish| self.asked.get(wish)) {
            Some(asked) => {
                match asked.state {
                    State::Asked | State::Refused { disk_failed: true } => {}
                    state => return Err(format!("generation {number} came of {message}, which {state:?}")),
                }
                if let Some(within) = asked.confirm {
                    let (generation, from, until) = (number, asked.at + within, now + within);
                    let is_unsure = self.confirming > 0;
                    pending = Some(Pending { generation, before, from, until, is_unsure });
                }
                let result = self.result(&asked.wish);
                result.map_err(|cannot| format!("generation {number} came of {message}, which is {cannot:?}"))?
            }
            None if entry.origin == "rollback" => self.take_back(entry, now)?,
            None if entry.origin == "start" => {
                let given = self.given.take();
                given.ok_or_else(|| format!("generation {number} came of a start that it was not given to"))?
            }
            None => return Err(format!("generation {number} was asked for by nobody: {entry:?}")),
        };
        if let Some(wish) = wish {
            self.asked[wish].state = State::Became(number);
        }
        self.pending = pending;
        self.since.insert(number, now);
        self.documents.insert(number, document);
        self.ran.push(number);
        Ok(())
    }

    fn take_back(&mut self, entry: &Entry, now: u64) -> Result<Document, String> {
        let (number, said) = (entry.generation.0, entry.message.as_deref().unwrap_or_default());
        let Some(pending) = self.pending.take() else {
            return Err(format!("generation {number} takes back what didn't wait: {said}"));
        };
        let is_guarded = said.contains("are down") || said.contains("failed");
        if !said.contains(&format!("generation {} ", pending.generation)) {
            return Err(format!("generation {number} takes another one back than {}: {said}", pending.generation));
        }
        if now + EARLY < pending.from && !is_guarded {
            return Err(format!("{said}, {} ms too early", pending.from - now));
        }
        self.taken_back += 1;
        Ok(pending.before)
    }

    /// A process was started: what it says has to be what was acknowledged, or what was under way.
    pub(crate) fn start(&mut self, view: &View, now: u64) -> Result<(), String> {
        let entries: Vec<u64> = view.history.entries().map(|entry| entry.generation.0).collect();
        let kept: Vec<u64> = self.ran.iter().copied().filter(|ran| self.is_kept(*ran)).collect();
        if let Some(lost) = kept.iter().find(|ran| !entries.contains(ran)) {
            return Err(format!("generation {lost} was acknowledged and is lost: there are {entries:?}"));
        }
        if let Some(pending) = &self.pending {
            let entry = view.history.entries().find(|entry| entry.generation.0 == pending.generation);
            match entry.and_then(|entry| entry.confirm_by) {
                None if pending.is_unsure => self.pending = None,
                None => return Err(format!("generation {} needs no confirmation any more", pending.generation)),
                Some(_) => {}
            }
        }
        self.look(view, now)?;
        self.since.clear();
        if view.generation().0 != self.newest() {
            return Err(format!("generation {} runs, and {} was the last", view.generation().0, self.newest()));
        }
        self.given = None;
        self.confirming = 0;
        Ok(())
    }
}
