//! A running proxy in the foreground: signals in, transactions out, the word to systemd. Handles no traffic.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use kakei::config::Document;
use kakei::control::handle::Asked;
use kakei::control::{Change, Control, Handle, Refusal, View, wait};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use tracing::{error, info, warn};

use crate::commands::{AdminGiven, Source};
use crate::say::{self, Failure};

/// Where changes come from that a signal asks for.
const HANGUP: &str = "sighup";

/// Why a file isn't applied that may have been cut off.
const EMPTIED: &str = "it has no listener, and listeners run; where that is meant, `kakei apply` takes them away";

/// The signals that are caught.
pub(crate) struct Signals(signal_hook::iterator::Signals);

impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        // A file that may grow no more is told to who writes it: that is no end of the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals(signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1])?))
    }
}

/// What wakes the supervisor.
enum Wake {
    Signal(i32),
    /// The last flow has ended.
    Drained,
    /// The control thread has ended, which nobody asked for.
    Ended,
}

/// What stands between the operator's signals and the control thread.
pub(crate) struct Supervisor {
    control: Control,
    handle: Handle,
    file: Option<PathBuf>,
    admin: AdminGiven,
    draining: bool,
    reload: Reload,
}

/// The file as it is applied again, beside the signals.
#[derive(Default)]
struct Reload {
    thread: Option<JoinHandle<()>>,
    /// One waits for the thread to end, and will read the file then.
    queued: Arc<AtomicBool>,
}

impl Supervisor {
    pub(crate) fn new(control: Control, file: Option<PathBuf>, admin: AdminGiven) -> Self {
        Supervisor { handle: control.handle(), control, file, admin, draining: false, reload: Reload::default() }
    }

    /// Say that it is ready, and go on until a signal ends it.
    pub(crate) fn run(mut self, signals: Signals) -> Result<(), Failure> {
        let (wakes, inbox) = channel();
        self.watch(signals, &wakes).map_err(|error| Failure::refused(format!("no thread can be started: {error}")))?;
        let ready = ready_line(&self.handle.view());
        // The ready line stays out of an access log on standard output.
        match self.handle.view().document.access_log.to.as_deref() {
            Some("stdout") => say::err(&ready),
            _ => say::ready(&ready),
        }
        notify(&[NotifyState::Ready]);
        let end = self.obey(&inbox, &wakes);
        if !self.draining {
            notify(&[NotifyState::Stopping]);
        }
        if end.is_ok() {
            // That it has stopped already is what is wanted.
            let _ = wait(self.handle.stop());
        }
        self.control.join();
        end
    }

    fn watch(&self, mut signals: Signals, wakes: &Sender<Wake>) -> io::Result<()> {
        let of_signals = wakes.clone();
        thread::Builder::new().name("kakei-signals".into()).spawn(move || {
            for signal in signals.0.forever() {
                if of_signals.send(Wake::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
        let (handle, of_end) = (self.handle.clone(), wakes.clone());
        thread::Builder::new().name("kakei-watch".into()).spawn(move || {
            wait(handle.ended());
            // Nobody listens any more when the end was asked for.
            let _ = of_end.send(Wake::Ended);
        })?;
        Ok(())
    }

    fn obey(&mut self, inbox: &Receiver<Wake>, wakes: &Sender<Wake>) -> Result<(), Failure> {
        for wake in inbox {
            match wake {
                Wake::Signal(SIGHUP) => self.reload(),
                Wake::Signal(SIGUSR1) => {
                    // A stopped proxy has no log to open.
                    let _ = wait(self.handle.reopen_logs());
                }
                Wake::Signal(SIGINT) if self.draining => {
                    info!("stopping now");
                    return Ok(());
                }
                Wake::Signal(signal) => self.drain(signal, wakes),
                Wake::Drained => return Ok(()),
                Wake::Ended => {
                    return Err(Failure::refused("the control thread ended by itself; this is a bug of kakei"));
                }
            }
        }
        Ok(())
    }

    fn drain(&mut self, signal: i32, wakes: &Sender<Wake>) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        notify(&[NotifyState::Stopping]);
        let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
        info!("{name}: draining; SIGINT stops now");
        let (handle, wakes) = (self.handle.clone(), wakes.clone());
        let spawned = thread::Builder::new().name("kakei-drain".into()).spawn(move || {
            if wait(handle.drain(None)).is_ok() {
                // Nobody listens any more where a signal was quicker.
                let _ = wakes.send(Wake::Drained);
            }
        });
        if let Err(error) = spawned {
            error!("no thread can be started to wait for the drain: {error}; SIGINT stops now");
        }
    }

    /// Apply the file again, after whoever does so already. It may wait for its backends; signals don't wait for it.
    fn reload(&mut self) {
        let Some(file) = self.file.clone() else {
            return self.handle.refused(&hung_up(), "there is no file to apply again");
        };
        let Reload { thread: before, queued } = &mut self.reload;
        if queued.swap(true, Ordering::Relaxed) {
            return;
        }
        let (handle, admin) = (self.handle.clone(), self.admin.clone());
        let (before, queued) = (before.take(), Arc::clone(queued));
        let spawned = thread::Builder::new().name("kakei-reload".into()).spawn(move || {
            // One that panicked said so.
            let _ = before.map(JoinHandle::join);
            queued.store(false, Ordering::Relaxed);
            apply_again(&handle, &file, &admin);
        });
        match spawned {
            Ok(thread) => self.reload.thread = Some(thread),
            Err(error) => {
                self.reload.queued.store(false, Ordering::Relaxed);
                error!("no thread can be started to apply the file again: {error}");
            }
        }
    }
}

/// Whatever is wrong with the file, what runs goes on.
fn apply_again(handle: &Handle, file: &Path, admin: &AdminGiven) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    match read_again(file) {
        Ok(mut document) => {
            admin.overlay(&mut document);
            if document.listeners.is_empty() && !handle.view().document.listeners.is_empty() {
                handle.refused(&hung_up(), EMPTIED);
                error!("{} was not applied: {EMPTIED}", file.display());
                return notify(&[NotifyState::Ready]);
            }
            match wait(handle.change(Change::to(document, HANGUP))) {
                Ok(outcome) if outcome.applied => info!("generation {} runs", outcome.generation.0),
                Ok(outcome) => info!("nothing to change: generation {} runs", outcome.generation.0),
                Err(refusal) => {
                    error!("{} was not applied: {refusal}", file.display());
                    if matches!(refusal, Refusal::Draining | Refusal::Stopped) {
                        return;
                    }
                }
            }
        }
        Err((reason, drawn)) => {
            handle.refused(&hung_up(), &reason);
            error!("{} was not applied:\n{drawn}", file.display());
        }
    }
    notify(&[NotifyState::Ready]);
}

/// The document in a file; or what is wrong with it in a sentence that anybody may read, and as it is drawn.
fn read_again(file: &Path) -> Result<Document, (String, String)> {
    let source = Source::read(file).map_err(|failure| (failure.sentence(), failure.text()))?;
    source.parse().map_err(|errors| {
        let drawn = source.drawn(&errors).text();
        (format!("{}: {}", source.name, Refusal::Invalid(errors)), drawn)
    })
}

fn hung_up() -> Asked {
    Asked { origin: HANGUP, ..Asked::default() }
}

fn ready_line(view: &View) -> String {
    let listeners: Vec<String> = view
        .snapshot
        .listeners
        .values()
        .map(|listener| {
            let locals: Vec<String> = view.local_addrs(&listener.binds).iter().map(ToString::to_string).collect();
            format!("{} on {}", listener.name, locals.join(" and "))
        })
        .collect();
    let admin = &view.document.admin;
    let socket = admin.socket.as_deref().map_or("no admin socket".to_owned(), |path| format!("admin socket {path}"));
    let metrics = admin.metrics.map_or_else(String::new, |address| format!("; metrics on {address}"));
    let api = view.api.map_or_else(String::new, |address| format!("; admin API on https://{address}"));
    format!("ready: listeners {}; generation {}; {socket}{api}{metrics}\n", listeners.join(", "), view.generation().0)
}

/// Tell systemd, where it asked for it.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd can't be told: {error}");
    }
}
