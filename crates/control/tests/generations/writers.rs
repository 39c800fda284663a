//! Those who ask for changes, several at once, each of whom knows what must come of it; and the one who only looks.

use std::time::Duration;

use kakei_control::handle::{Asked, Confirm};
use kakei_control::{Change, Handle, Outcome, Refusal};
use kakei_proxy::snapshot::Generation;
use tokio::time::sleep;

use crate::author::Wish;
use crate::disk::Trouble;
use crate::model::{Expected, State};
use crate::run::Run;
use crate::world::Wrongs;

/// Milliseconds in which what is not confirmed is taken back at the latest, where nothing is in the way.
const OVERDUE: u64 = 16_000;

/// A change as it was asked for.
pub(crate) struct Question {
    number: usize,
    wish: Wish,
    expected: Option<Vec<u64>>,
    dry_run: bool,
    must: Expected,
    /// What ran, and what had gone wrong, when it was asked.
    newest: u64,
    wrongs: Wrongs,
    failed: u64,
    /// Nothing else was under way; and how many changes had begun.
    is_alone: bool,
    begun: u64,
    faults: Option<String>,
}

impl Run {
    pub(crate) async fn pause(&self, most: u64) {
        let pause = self.rng.borrow_mut().u64(1..most);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Ask for one thing after the other.
    pub(crate) async fn write(&self, handle: &Handle, until: u64) {
        while self.now() < until {
            self.pause(1_200).await;
            let what = self.rng.borrow_mut().u8(0..8);
            match what {
                0 => self.confirm(handle).await,
                1 => self.kept(handle).await,
                _ => {
                    let question = self.question(handle);
                    self.change(handle, question).await;
                }
            }
            self.stir_disk();
        }
    }

    fn stir_disk(&self) {
        let (mut rng, world) = (self.rng.borrow_mut(), self.world.borrow());
        let mut disk = world.disk.borrow_mut();
        disk.trouble = match rng.u32(0..100) < world.weather.disk {
            true => [Trouble::Full, Trouble::ReadOnly, Trouble::NoFlush][rng.usize(0..3)],
            false if rng.u8(0..3) > 0 => Trouble::None,
            false => disk.trouble,
        };
    }

    fn question(&self, handle: &Handle) -> (Question, Change) {
        self.question_of(handle, None)
    }

    /// A change that is wished for, or any, and the terms of it.
    pub(crate) fn question_of(&self, handle: &Handle, wish: Option<Wish>) -> (Question, Change) {
        let (mut rng, mut model) = (self.rng.borrow_mut(), self.model.borrow_mut());
        let seen = handle.view().generation().0;
        let is_any = wish.is_none();
        let wish = wish.unwrap_or_else(|| self.author.borrow_mut().wish(&model.document(), &model.ran));
        let dry_run = is_any && rng.u8(0..8) == 0;
        let confirm = (is_any && rng.u8(0..5) == 0).then(|| Confirm {
            within: Duration::from_millis(rng.u64(2..12) * 500),
            errors: (rng.u8(0..3) == 0).then(|| rng.u8(0..60)),
            unhealthy: (rng.u8(0..3) == 0).then(|| rng.u8(0..60)),
        });
        let expected = match rng.u8(0..3) {
            _ if !is_any => None,
            0 => None,
            1 => Some(vec![seen]),
            _ => Some(vec![seen.saturating_sub(rng.u64(0..3)), seen])
                .filter(|_| rng.bool())
                .or(Some(vec![seen.saturating_sub(1)])),
        };
        let must = model.expected(&wish, (expected.as_deref(), dry_run, confirm.is_some()));
        let faults = model.faults(&wish);
        let what = wish.what();
        let number = model.ask(wish.clone(), confirm.map(|confirm| confirm.within.as_millis() as u64), self.now());
        let asked = Asked { origin: "api", message: Some(format!("wish {number}")), ..Asked::default() };
        let generations = expected.clone().map(|expected| expected.into_iter().map(Generation).collect());
        let change = Change { what, asked, expected: generations, dry_run, confirm, traffic: None };
        let (world, mut under_way) = (self.world.borrow(), self.under_way.borrow_mut());
        // What is seen of generations is behind what runs while one is being published.
        let is_alone = under_way.0 == 0 && seen == model.newest();
        *under_way = (under_way.0 + 1, under_way.1 + 1);
        let question = Question {
            number,
            wish,
            expected,
            dry_run,
            must,
            newest: model.newest(),
            wrongs: world.wrongs,
            failed: world.disk.borrow().failed,
            is_alone,
            begun: under_way.1,
            faults,
        };
        (question, change)
    }

    pub(crate) async fn change(&self, handle: &Handle, (question, change): (Question, Change)) {
        self.say(&format!("wish {}: {:?}{}", question.number, brief(&question.wish), terms(&change)));
        let result = handle.change(change).await;
        if self.world.borrow().is_over() {
            return;
        }
        self.under_way.borrow_mut().0 -= 1;
        self.say(&format!("wish {} came to {:?}", question.number, told(&result)));
        let disk_failed = self.world.borrow().disk.borrow().failed > question.failed;
        if let Err(refusal) = &result
            && !matches!(refusal, Refusal::Unacknowledged { .. })
        {
            let state = &mut self.model.borrow_mut().asked[question.number].state;
            if *state == State::Asked {
                *state = State::Refused { disk_failed };
            }
        }
        if !self.look(handle) {
            return;
        }
        if let Err(wrong) = self.judge_answer(handle, &question, &result, disk_failed) {
            self.violate(format!("wish {} ({:?}): {wrong}", question.number, brief(&question.wish)));
        }
    }

    /// Whether all is as the model has it.
    fn look(&self, handle: &Handle) -> bool {
        let looked = self.model.borrow_mut().look(&handle.view(), self.now());
        if let Err(wrong) = &looked {
            self.violate(wrong.clone());
        }
        looked.is_ok()
    }

    fn judge_answer(
        &self,
        handle: &Handle,
        question: &Question,
        result: &Result<Outcome, Refusal>,
        disk_failed: bool,
    ) -> Result<(), String> {
        let model = self.model.borrow();
        let state = model.asked[question.number].state;
        let is_alone = question.is_alone
            && self.under_way.borrow().1 == question.begun
            && model.ran.iter().all(|ran| *ran <= question.newest || state == State::Became(*ran));
        let wrongs = self.world.borrow().wrongs;
        match result {
            Ok(outcome) if outcome.applied => {
                let generation = outcome.generation.0;
                if state != State::Became(generation) {
                    return Err(format!("it is said to be generation {generation}, and is {state:?}"));
                }
                self.judge.borrow_mut().counters.applied += 1;
                let before = model.ran.iter().rev().skip_while(|ran| **ran != generation).nth(1);
                if let (Some(expected), Some(before)) = (&question.expected, before)
                    && !expected.contains(before)
                {
                    return Err(format!("it was made against {expected:?}, and became {generation} behind {before}"));
                }
                self.all_run(generation)?;
            }
            Ok(outcome) => {
                let ran = outcome.generation.0;
                if !question.dry_run && !outcome.changes.is_empty() {
                    return Err(format!("it would change {:?}, and was not applied", outcome.changes));
                }
                if !model.ran.contains(&ran) {
                    return Err(format!("generation {ran} is said to run, and never did"));
                }
            }
            Err(Refusal::Mismatch { running, .. }) => {
                self.judge.borrow_mut().counters.mismatches += 1;
                let expected = question.expected.as_deref().unwrap_or_default();
                if expected.contains(running) || expected.is_empty() {
                    return Err(format!("it was refused because {running} runs, and was made against {expected:?}"));
                }
            }
            Err(Refusal::Bind(_)) if wrongs.binds > question.wrongs.binds => {}
            Err(Refusal::Busy(_)) if wrongs.busy > question.wrongs.busy => {}
            Err(Refusal::State(_)) if disk_failed => {}
            Err(Refusal::Unacknowledged { .. })
                if (wrongs.stalls, wrongs.panics) != (0, 0) && matches!(state, State::Became(_)) => {}
            Err(
                Refusal::Bind(_)
                | Refusal::Busy(_)
                | Refusal::State(_)
                | Refusal::Unacknowledged { .. }
                | Refusal::Timeout,
            ) => return Err(format!("nothing is wrong, and it was refused: {result:?}")),
            Err(_) => {}
        }
        if is_alone {
            self.judge.borrow_mut().counters.alone += 1;
            let running = handle.view().generation().0;
            self.judge_alone(question, result, (&model, running))?;
        }
        Ok(())
    }

    /// Nothing came between: exactly this must come of it.
    fn judge_alone(
        &self,
        question: &Question,
        result: &Result<Outcome, Refusal>,
        (model, running): (&crate::model::Model, u64),
    ) -> Result<(), String> {
        let is_refused = result.as_ref().is_err_and(|refusal| !matches!(refusal, Refusal::Unacknowledged { .. }));
        if is_refused && running != question.newest {
            return Err(format!("it was refused, and generation {running} runs instead of {}", question.newest));
        }
        let injected = ["address-not-bound", "busy", "state-not-written", "not-acknowledged"];
        match (result, question.must) {
            (Err(refusal), _) if injected.contains(&refusal.word()) => Ok(()),
            (Err(refusal), Expected::Refusal(words)) if words.contains(&refusal.word()) => {
                if let (Refusal::Invalid(errors), Some(faults)) = (refusal, &question.faults)
                    && errors.to_string() != *faults
                {
                    return Err(format!("its errors are\n{errors}\nand must be\n{faults}"));
                }
                self.judge.borrow_mut().counters.refused += 1;
                Ok(())
            }
            // It may be too old.
            (Err(Refusal::NotKept(generation)), _) if !model.is_kept(*generation) => Ok(()),
            (Ok(outcome), Expected::Nothing) if outcome.changes.is_empty() && !outcome.applied => Ok(()),
            (Ok(outcome), Expected::Change) if !outcome.changes.is_empty() && outcome.applied != question.dry_run => {
                Ok(())
            }
            _ => Err(format!("it must come to {:?} and came to {:?}", question.must, told(result))),
        }
    }

    /// It was acknowledged: every worker runs it, or one behind it.
    fn all_run(&self, generation: u64) -> Result<(), String> {
        let world = self.world.borrow();
        for (number, machine) in world.machines.iter().enumerate() {
            let is_fresh = machine.rests_until.is_some() || machine.at.generation == 0;
            if machine.at.generation < generation && !is_fresh {
                let runs = machine.at.generation;
                return Err(format!("generation {generation} is acknowledged, and worker {number} runs {runs}"));
            }
        }
        Ok(())
    }

    async fn confirm(&self, handle: &Handle) {
        let waits = self.model.borrow().pending.as_ref().map(|pending| pending.generation);
        let named = self.rng.borrow_mut().bool().then(|| waits.unwrap_or(1));
        if let Some(pending) = &mut self.model.borrow_mut().pending {
            pending.is_unsure = true;
        }
        self.model.borrow_mut().confirming += 1;
        let failed = self.world.borrow().disk.borrow().failed;
        {
            let mut under_way = self.under_way.borrow_mut();
            *under_way = (under_way.0 + 1, under_way.1 + 1);
        }
        let result = handle.confirm(named.map(Generation), Asked { origin: "api", ..Asked::default() }).await;
        if self.world.borrow().is_over() {
            return;
        }
        self.model.borrow_mut().confirming -= 1;
        self.under_way.borrow_mut().0 -= 1;
        self.say(&format!("confirming {named:?} came to {:?}", result.as_ref().map_err(Refusal::word)));
        if !self.look(handle) {
            return;
        }
        let mut model = self.model.borrow_mut();
        let now = model.pending.as_ref().map(|pending| pending.generation);
        match result {
            Ok(confirmed) if now == Some(confirmed.0) => {
                model.pending = None;
                self.judge.borrow_mut().counters.confirmed += 1;
            }
            // What was said of it came to late: it is known that it goes on.
            Ok(confirmed) if !model.ran.contains(&confirmed.0) => {
                drop(model);
                self.violate(format!("generation {} is confirmed, which never ran", confirmed.0));
            }
            Ok(_) => {}
            Err(refusal) => {
                if let Some(pending) = &mut model.pending
                    && !matches!(refusal, Refusal::State(_))
                {
                    pending.is_unsure = false;
                }
                let is_wrong = match refusal {
                    Refusal::NothingToConfirm(_) => waits.is_some() && waits == now,
                    Refusal::State(_) => self.world.borrow().disk.borrow().failed == failed,
                    _ => true,
                };
                drop(model);
                if is_wrong {
                    self.violate(format!("generation {waits:?} waits to be confirmed, and can't be: {refusal}"));
                }
            }
        }
    }

    /// What a generation was is what was acknowledged as it.
    async fn kept(&self, handle: &Handle) {
        let some = {
            let (mut rng, model) = (self.rng.borrow_mut(), self.model.borrow());
            rng.choice(model.ran.iter().copied())
        };
        let Some(generation) = some else { return };
        let kept = handle.kept(Generation(generation)).await;
        if self.world.borrow().is_over() {
            return;
        }
        let model = self.model.borrow();
        let must = &model.documents[&generation];
        let wrong = match kept {
            Ok(document) => {
                (document != *must || document.to_toml() != must.to_toml()).then(|| "is another one".to_owned())
            }
            Err(refusal) => model.is_kept(generation).then(|| refusal.to_string()),
        };
        drop(model);
        if let Some(wrong) = wrong {
            self.violate(format!("what generation {generation} was {wrong}"));
        }
    }

    /// After a start: all that must be kept is.
    pub(crate) async fn compare_kept(&self, handle: &Handle) {
        for _ in 0..3 {
            self.kept(handle).await;
        }
    }

    /// Look at what happens by itself, and at what clients saw.
    pub(crate) async fn watch(&self, handle: &Handle) {
        let mut next = 0;
        loop {
            sleep(Duration::from_millis(50)).await;
            if !self.world.borrow().outside.violations.is_empty() {
                return std::future::pending().await;
            }
            self.look(handle);
            self.judge(Some(&handle.view()));
            self.look_for_overdue(handle);
            if self.now() >= next {
                next = self.now() + 1_500;
                self.look_for_leftovers(handle).await;
            }
        }
    }

    fn look_for_overdue(&self, handle: &Handle) {
        let model = self.model.borrow();
        let Some(pending) = &model.pending else { return };
        let is_late = self.now() > pending.until + OVERDUE && handle.view().generation().0 == pending.generation;
        let wrongs = self.world.borrow().wrongs;
        let hindered = self.world.borrow().disk.borrow().failed > 0 || wrongs.stalls + wrongs.busy + wrongs.binds > 0;
        if is_late && !hindered && !pending.is_unsure {
            let generation = pending.generation;
            drop(model);
            self.violate(format!("generation {generation} was not confirmed, and is not taken back"));
        }
    }
}

/// A wish in few words.
fn brief(wish: &Wish) -> String {
    match wish {
        Wish::Whole(_) => "a whole document".to_owned(),
        Wish::Back(to) => format!("back to {to:?}"),
        Wish::Steps(steps) => {
            let words = steps.iter().map(|step| {
                let text = format!("{step:?}");
                text.chars().take(50).collect::<String>()
            });
            words.collect::<Vec<_>>().join("; ")
        }
    }
}

fn terms(change: &Change) -> String {
    let expected = change.expected.as_ref().map(|e| format!(", against {e:?}")).unwrap_or_default();
    let confirm = change.confirm.map(|confirm| format!(", {confirm:?}")).unwrap_or_default();
    format!("{expected}{confirm}{}", if change.dry_run { ", dry" } else { "" })
}

fn told(result: &Result<Outcome, Refusal>) -> String {
    match result {
        Ok(outcome) => format!("generation {}, applied: {}", outcome.generation.0, outcome.applied),
        Err(refusal) => format!("{}: {refusal}", refusal.word()),
    }
}
