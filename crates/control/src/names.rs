//! Host names of backends: looked up at their time to live, for as long as the document has them. What was known last
//! stays while a name server fails. Publishes nothing: the owner does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use kakei_config::Answers;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

/// An answer is asked for again no sooner and no later than this, whatever its time to live.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// The first pause after a failure; it doubles with each further one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How long the first generation waits for its names.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Answers that may wait for the owner.
const QUEUE: usize = 256;

/// A host and its addresses, in order.
type Answer = (Arc<str>, Vec<IpAddr>);
/// Addresses and how long they hold, or what went wrong.
pub type Looked = Result<(Vec<IpAddr>, Duration), String>;

/// The owner's end.
#[derive(Debug)]
pub struct Names {
    wanted: watch::Sender<BTreeSet<Arc<str>>>,
    answers: mpsc::Receiver<Answer>,
    known: Answers,
}

impl Names {
    /// Names looked up by the system's name servers and hosts file. Must be called inside the control thread's runtime.
    pub fn start() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let resolver = resolver.map_err(|error| error.to_string());
        Names::with(move |host| {
            let resolver = resolver.clone();
            async move { look_up(&resolver?, &host).await }
        })
    }

    /// Names looked up by a function: addresses and how long they hold, or what went wrong.
    pub fn with<F, L>(look_up: F) -> Self
    where
        F: Fn(Arc<str>) -> L + Send + 'static,
        L: Future<Output = Looked> + Send + 'static,
    {
        let (wanted, wishes) = watch::channel(BTreeSet::new());
        let (sender, answers) = mpsc::channel(QUEUE);
        tokio::spawn(keep_looking(wishes, sender, look_up));
        Names { wanted, answers, known: Answers::default() }
    }

    /// What is known.
    pub(crate) fn known(&self) -> &Answers {
        &self.known
    }

    /// From now on these names count.
    pub(crate) fn want(&mut self, hosts: BTreeSet<Arc<str>>) {
        self.forget(&hosts);
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != hosts;
            *wanted = hosts;
            differs
        });
    }

    /// Ready when an answer is other than before. Dropping the future loses none.
    pub(crate) async fn changed(&mut self) {
        match self.answers.recv().await {
            Some(answer) => self.learn(answer),
            None => std::future::pending().await,
        }
    }

    /// Wait for a first answer about every name, for a bounded time.
    pub(crate) async fn first(&mut self) {
        let until = async {
            while self.wanted.borrow().iter().any(|host| self.known.get(host).is_none()) {
                self.changed().await;
            }
        };
        if timeout(FIRST_ANSWERS, until).await.is_err() {
            warn!("some host names have no address yet; their backends follow when they have");
        }
    }

    fn learn(&mut self, (host, addresses): Answer) {
        if self.wanted.borrow().contains(&host) {
            self.known.insert(host, addresses);
        }
        while let Ok((host, addresses)) = self.answers.try_recv() {
            self.known.insert(host, addresses);
        }
        let wanted = self.wanted.borrow().clone();
        self.forget(&wanted);
    }

    /// Forget what is known of others than these.
    fn forget(&mut self, hosts: &BTreeSet<Arc<str>>) {
        let gone: Vec<Arc<str>> =
            self.known.iter().map(|(host, _)| host).filter(|host| !hosts.contains(*host)).cloned().collect();
        for host in gone {
            self.known.remove(&host);
        }
    }
}

async fn look_up(resolver: &TokioResolver, host: &str) -> Looked {
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let holds = found.as_lookup().valid_until().saturating_duration_since(std::time::Instant::now());
    Ok((found.iter().collect(), holds))
}

/// A name that is kept up to date.
#[derive(Debug)]
struct Kept {
    addresses: Option<Vec<IpAddr>>,
    due: Instant,
    pause: Duration,
    asked: bool,
}

async fn keep_looking<F, L>(mut wanted: watch::Receiver<BTreeSet<Arc<str>>>, answers: mpsc::Sender<Answer>, look_up: F)
where
    F: Fn(Arc<str>) -> L,
    L: Future<Output = Looked> + Send + 'static,
{
    let mut kept: BTreeMap<Arc<str>, Kept> = BTreeMap::new();
    let mut lookups: JoinSet<(Arc<str>, Looked)> = JoinSet::new();
    loop {
        let now = Instant::now();
        for (host, name) in kept.iter_mut().filter(|(_, name)| !name.asked && name.due <= now) {
            name.asked = true;
            let (host, answer) = (Arc::clone(host), look_up(Arc::clone(host)));
            lookups.spawn(async move { (host, answer.await) });
        }
        let next = kept.values().filter(|name| !name.asked).map(|name| name.due).min();
        tokio::select! {
            biased;
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let hosts = wanted.borrow_and_update().clone();
                kept.retain(|host, _| hosts.contains(host));
                for host in hosts {
                    kept.entry(host).or_insert_with(|| Kept { addresses: None, due: now, pause: FIRST_PAUSE, asked: false });
                }
            }
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            Some(done) = lookups.join_next(), if !lookups.is_empty() => {
                let Ok((host, looked)) = done else { continue };
                let Some(name) = kept.get_mut(&host) else { continue };
                if let Some(addresses) = name.settle(&host, looked)
                    && answers.send((host, addresses)).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

impl Kept {
    /// An answer came: the addresses, where they are other than before.
    fn settle(&mut self, host: &str, looked: Looked) -> Option<Vec<IpAddr>> {
        self.asked = false;
        match looked {
            Ok((mut addresses, holds)) => {
                addresses.sort_unstable();
                addresses.dedup();
                self.due = Instant::now() + holds.clamp(SHORTEST, LONGEST);
                self.pause = FIRST_PAUSE;
                let differs = self.addresses.as_ref() != Some(&addresses);
                if differs {
                    info!("{host} is {addresses:?}");
                    self.addresses = Some(addresses.clone());
                }
                differs.then_some(addresses)
            }
            Err(error) => {
                if self.pause == FIRST_PAUSE {
                    let known = if self.addresses.is_some() {
                        "what was known of it stays"
                    } else {
                        "nothing is known of it yet"
                    };
                    warn!("{host} can't be looked up, {known}: {error}");
                }
                self.due = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn addresses(of: &[&str]) -> Vec<IpAddr> {
        of.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn names_are_asked_again_when_their_time_is_over_and_kept_when_that_fails() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let script = Arc::new(Mutex::new(vec![
                Ok((addresses(&["10.0.0.3"]), Duration::ZERO)),
                Err("no answer".to_owned()),
                Ok((addresses(&["10.0.0.2", "10.0.0.1"]), Duration::ZERO)),
            ]));
            let mut names = Names::with(move |host| {
                assert_eq!(&*host, "app.test");
                let next = script.lock().unwrap().pop().unwrap_or_else(|| Err("over".to_owned()));
                async move { next }
            });
            let host: Arc<str> = "app.test".into();
            names.want([Arc::clone(&host)].into());
            names.first().await;
            assert_eq!(names.known().get(&host), Some(&addresses(&["10.0.0.1", "10.0.0.2"])));
            // The failure between the two changes nothing.
            names.changed().await;
            assert_eq!(names.known().get(&host), Some(&addresses(&["10.0.0.3"])));
            names.want(BTreeSet::new());
            assert!(names.known().is_empty());
        });
    }
}
