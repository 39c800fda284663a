//! A run: processes one after the other over the same disk, each with several writers at once, a world that goes wrong, and
//! an end that may come at any moment. One seed is one run.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Admin, Document};
use kakei_control::{Control, Handle, Options, Refusal, StartError};
use tokio::time::sleep;

use crate::author::{Author, NOWHERE, Wish};
use crate::disk::{End, Trouble};
use crate::judge::{Counters, Judge};
use crate::model::Model;
use crate::world::{Shared, Simulated, Weather, World};

/// Milliseconds from one look at the world to the next.
const TICK: u64 = 5;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) digest: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) counters: Counters,
}

/// What all of a run share.
pub(crate) struct Run {
    pub(crate) rng: RefCell<Rng>,
    pub(crate) world: Shared,
    pub(crate) model: RefCell<Model>,
    pub(crate) judge: RefCell<Judge>,
    pub(crate) author: RefCell<Author>,
    /// Changes that are under way, and that were ever begun.
    pub(crate) under_way: RefCell<(u32, u64)>,
}

/// The run of this seed.
pub(crate) fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without any descriptor").block_on(play(seed))
}

async fn play(seed: u64) -> Report {
    let mut rng = Rng::with_seed(seed);
    let run = Run {
        world: Rc::new(RefCell::new(World::new(rng.fork()))),
        model: RefCell::default(),
        judge: RefCell::default(),
        author: RefCell::new(Author::new(rng.fork())),
        under_way: RefCell::default(),
        rng: RefCell::new(rng),
    };
    let lives = run.rng.borrow_mut().u32(1..=4);
    let first = run.author.borrow_mut().document();
    run.model.borrow_mut().given = Some(first);
    for life in 0..=lives {
        run.live(life == lives).await;
        if !run.world.borrow().outside.violations.is_empty() {
            break;
        }
    }
    let mut world = run.world.borrow_mut();
    let trace = std::mem::take(&mut world.outside.trace);
    let mut counters = run.judge.borrow().counters;
    counters.generations = run.model.borrow().ran.len() as u64;
    counters.taken_back = run.model.borrow().taken_back;
    (counters.panics, counters.stalls, counters.binds) = (world.wrongs.panics, world.wrongs.stalls, world.wrongs.binds);
    counters.lives = u64::from(lives) + 1;
    let violations = std::mem::take(&mut world.outside.violations);
    Report { digest: trace.digest, lines: trace.lines, violations, counters }
}

impl Run {
    pub(crate) fn violate(&self, what: impl Into<String>) {
        self.world.borrow_mut().outside.violate(what.into());
    }

    pub(crate) fn say(&self, what: &str) {
        self.world.borrow_mut().outside.trace.line(what);
    }

    pub(crate) fn now(&self) -> u64 {
        self.world.borrow().now
    }

    /// One process, from its start to its end.
    async fn live(&self, is_last: bool) {
        let (ends_at, end, is_stopped) = self.draw(is_last);
        let options = self.options();
        let over = tokio::select! {
            biased;
            () = self.tick(ends_at) => None,
            done = self.process(options, is_last, is_stopped) => Some(done),
        };
        self.under_way.borrow_mut().0 = 0;
        if let Some(Err(error)) = &over
            && !self.world.borrow().is_over()
            && !self.is_excused(error)
        {
            self.violate(format!("it can't be started: {error}"));
        }
        self.world.borrow_mut().end(end);
        self.judge(None);
        // Whoever comes next finds the disk as it was left, and nothing in its way.
        self.world.borrow().disk.borrow_mut().trouble = Trouble::None;
    }

    /// What this life is like, when and how it ends; whether it is told to.
    fn draw(&self, is_last: bool) -> (u64, End, bool) {
        let (mut rng, mut world) = (self.rng.borrow_mut(), self.world.borrow_mut());
        let mut some = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let weather = Weather {
            binds: some(150),
            busy: some(150),
            panics: some(6),
            stalls: some(30),
            outages: some(10),
            disk: some(20),
        };
        world.weather = if is_last { Weather::default() } else { weather };
        world.is_busy = true;
        let lasts = if is_last { 120_000 } else { rng.u64(200..14_000) };
        let end = if rng.bool() { End::Killed } else { End::PowerCut };
        let by_disk = !is_last && rng.bool();
        world.disk.borrow_mut().ends_in = by_disk.then(|| rng.u32(1..60));
        (world.now + lasts, end, !is_last && !by_disk && rng.u8(0..5) == 0)
    }

    /// With which document it is started; none: with the one that ran last.
    fn options(&self) -> Options {
        let mut rng = self.rng.borrow_mut();
        let mut model = self.model.borrow_mut();
        let is_first = model.ran.is_empty();
        if !is_first && rng.u8(0..4) == 0 {
            let next = self.author.borrow_mut().wish(&model.document(), &[]);
            let can_be = |next: &Document| {
                kakei_config::check(next).is_ok() && !next.workers.pin && next.access_log.to.as_deref() != Some(NOWHERE)
            };
            model.given = match next {
                Wish::Whole(next) if can_be(&next) => Some(*next),
                _ => None,
            };
        }
        let document = model.given.clone();
        let last = document.is_none();
        let document = document.unwrap_or_else(|| Document { admin: Admin::default(), ..Document::default() });
        Options { document, origin: "start", seed: rng.u64(..), last }
    }

    async fn tick(&self, ends_at: u64) {
        loop {
            self.world.borrow_mut().run();
            let over = self.world.borrow().is_over() || !self.world.borrow().outside.violations.is_empty();
            if over || self.now() >= ends_at {
                return;
            }
            sleep(Duration::from_millis(TICK)).await;
        }
    }

    /// Whether a start may fail so.
    fn is_excused(&self, error: &StartError) -> bool {
        let world = self.world.borrow();
        match error {
            StartError::Refused(Refusal::Bind(_)) => world.weather.binds > 0,
            StartError::Refused(Refusal::Busy(_)) => world.weather.busy > 0,
            StartError::Refused(Refusal::State(_)) | StartError::Store(_) => world.disk.borrow().failed > 0,
            StartError::Refused(Refusal::Unacknowledged { .. }) => world.weather.stalls + world.weather.panics > 0,
            // Nothing was ever acknowledged.
            StartError::NothingKept(..) => self.model.borrow().ran.is_empty(),
            _ => false,
        }
    }

    async fn process(&self, options: Options, is_last: bool, is_stopped: bool) -> Result<(), StartError> {
        let (handle, owner) = Control::on(Simulated(Rc::clone(&self.world)), options).await?;
        if self.world.borrow().is_over() {
            return Ok(());
        }
        let started = self.model.borrow_mut().start(&handle.view(), self.now());
        let newest = handle.view().history.entries().last().map(|entry| (entry.generation.0, entry.confirm_by));
        self.say(&format!("starts with generation {}: {newest:?}", handle.view().generation().0));
        if let Err(wrong) = started {
            self.violate(format!("after a start: {wrong}"));
            return Ok(());
        }
        tokio::select! {
            biased;
            () = owner => {}
            () = self.scene(&handle, is_last, is_stopped) => {}
        }
        Ok(())
    }

    async fn scene(&self, handle: &Handle, is_last: bool, is_stopped: bool) {
        self.compare_kept(handle).await;
        let pause = self.rng.borrow_mut().u64(500..6_000);
        let until = if is_last || is_stopped { self.now() + pause } else { u64::MAX };
        let end = async {
            tokio::join!(biased; self.write(handle, until), self.write(handle, until), self.write(handle, until));
            if is_last {
                self.finish(handle).await;
            }
        };
        tokio::select! {
            biased;
            () = self.watch(handle) => {}
            () = end => {}
        }
        self.say("is told to stop");
        let _ = handle.stop().await;
    }
}
