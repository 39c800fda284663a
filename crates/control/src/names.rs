//! Host names of backends: looked up at their time to live, for as long as the document has them. What was known last
//! stays while a name server fails. Publishes nothing: the owner does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
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
/// How soon an answer is asked for again in which a part is missing that a name server failed to tell.
const DOUBTED: Duration = Duration::from_secs(10);
/// How long the first generation waits for its names.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Answers that may wait for the owner.
const QUEUE: usize = 256;

/// A host and its addresses, in order; or why it has none yet.
type Answer = (Arc<str>, Result<Vec<IpAddr>, String>);
/// Addresses and how long they hold, or what went wrong.
pub type Looked = Result<(Vec<IpAddr>, Duration), String>;

/// The names that count, each with a number of its own from when it began to: one that counts again after a pause is
/// looked up again.
type Wanted = BTreeMap<Arc<str>, u64>;

/// The owner's end.
#[derive(Debug)]
pub struct Names {
    wanted: watch::Sender<Wanted>,
    /// How often a name began to count.
    begun: u64,
    answers: mpsc::Receiver<Answer>,
    known: Answers,
    /// Why names have no address, of those that never had one.
    failures: BTreeMap<Arc<str>, String>,
}

impl Names {
    /// Names looked up by the system's name servers and hosts file. Must be called inside the control thread's runtime.
    pub fn start() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let resolver = resolver.map_err(|error| error.to_string());
        Names::with(move |host, known| {
            let resolver = resolver.clone();
            async move { look_up(&resolver?, &host, &known).await }
        })
    }

    /// Names looked up by a function that is told which addresses are known: addresses and how long they hold, or what
    /// went wrong.
    pub fn with<F, L>(look_up: F) -> Self
    where
        F: Fn(Arc<str>, Vec<IpAddr>) -> L + Send + 'static,
        L: Future<Output = Looked> + Send + 'static,
    {
        let (wanted, wishes) = watch::channel(Wanted::new());
        let (sender, answers) = mpsc::channel(QUEUE);
        tokio::spawn(keep_looking(wishes, sender, look_up));
        Names { wanted, begun: 0, answers, known: Answers::default(), failures: BTreeMap::new() }
    }

    /// What is known.
    pub(crate) fn known(&self) -> &Answers {
        &self.known
    }

    /// Why a name has no address yet.
    pub(crate) fn failure(&self, host: &str) -> Option<&str> {
        self.failures.get(host).map(String::as_str)
    }

    /// From now on these names count.
    pub(crate) fn want(&mut self, hosts: BTreeSet<Arc<str>>) {
        let before = self.wanted.borrow().clone();
        let begun = &mut self.begun;
        let mut number = |host: &Arc<str>| {
            before.get(host).copied().unwrap_or_else(|| {
                *begun += 1;
                *begun
            })
        };
        let wanted: Wanted = hosts.into_iter().map(|host| (Arc::clone(&host), number(&host))).collect();
        if wanted != before {
            self.forget(&wanted);
            self.wanted.send_replace(wanted);
        }
    }

    /// Ready when an answer is other than before. Dropping the future loses none.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.answers.recv().await {
                Some(answer) => {
                    if self.learn(answer) {
                        return;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Wait for a first answer about every name, for a bounded time.
    pub(crate) async fn first(&mut self) {
        let until = async {
            while self.wanted.borrow().keys().any(|host| self.known.get(host).is_none()) {
                self.changed().await;
            }
        };
        if timeout(FIRST_ANSWERS, until).await.is_err() {
            warn!("some host names have no address yet; their backends follow when they have");
        }
    }

    /// Whether any address came by it.
    fn learn(&mut self, answer: Answer) -> bool {
        let wanted = self.wanted.borrow().clone();
        let mut came = false;
        let mut next = Some(answer);
        while let Some((host, answer)) = next {
            match answer {
                Ok(addresses) if wanted.contains_key(&host) => {
                    self.failures.remove(&host);
                    self.known.insert(host, addresses);
                    came = true;
                }
                Err(error) if wanted.contains_key(&host) => drop(self.failures.insert(host, error)),
                Ok(_) | Err(_) => {}
            }
            next = self.answers.try_recv().ok();
        }
        came
    }

    /// Forget what is known of others than these.
    fn forget(&mut self, hosts: &Wanted) {
        self.failures.retain(|host, _| hosts.contains_key(host));
        let gone: Vec<Arc<str>> =
            self.known.iter().map(|(host, _)| host).filter(|host| !hosts.contains_key(*host)).cloned().collect();
        for host in gone {
            self.known.remove(&host);
        }
    }
}

/// Addresses of both families are asked for at once, and what one of them brings is an answer. So where there are none
/// any more of a family that there was, it is asked for by itself: a failure leaves what was known of it.
async fn look_up(resolver: &TokioResolver, host: &str, known: &[IpAddr]) -> Looked {
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let mut holds = found.as_lookup().valid_until().saturating_duration_since(std::time::Instant::now());
    let mut addresses: Vec<IpAddr> = found.iter().collect();
    for (record, is_v4) in [(RecordType::A, true), (RecordType::AAAA, false)] {
        let before: Vec<IpAddr> = known.iter().copied().filter(|ip| ip.is_ipv4() == is_v4).collect();
        if before.is_empty() || addresses.iter().any(|ip| ip.is_ipv4() == is_v4) {
            continue;
        }
        // By its whole name: another one of the search list would be another host.
        match resolver.lookup(found.query().name().clone(), record).await {
            Ok(late) => addresses.extend(late.answers().iter().filter_map(|record| record.data.ip_addr())),
            Err(error) if says_that_there_is_none(&error) => {}
            Err(error) => {
                warn!("{host} can't be looked up wholly, what was known of the rest ({record}) stays: {error}");
                addresses.extend(before);
                holds = holds.min(DOUBTED);
            }
        }
    }
    Ok((addresses, holds))
}

/// Whether a name server answered, and there is no such address.
fn says_that_there_is_none(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// A name that is kept up to date.
#[derive(Debug)]
struct Kept {
    /// Its number among those that are wanted.
    number: u64,
    addresses: Option<Vec<IpAddr>>,
    due: Instant,
    pause: Duration,
    asked: bool,
}

async fn keep_looking<F, L>(mut wanted: watch::Receiver<Wanted>, answers: mpsc::Sender<Answer>, look_up: F)
where
    F: Fn(Arc<str>, Vec<IpAddr>) -> L,
    L: Future<Output = Looked> + Send + 'static,
{
    let mut kept: BTreeMap<Arc<str>, Kept> = BTreeMap::new();
    let mut lookups: JoinSet<(Arc<str>, Looked)> = JoinSet::new();
    loop {
        let now = Instant::now();
        for (host, name) in kept.iter_mut().filter(|(_, name)| !name.asked && name.due <= now) {
            name.asked = true;
            let known = name.addresses.clone().unwrap_or_default();
            let (host, answer) = (Arc::clone(host), look_up(Arc::clone(host), known));
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
                kept.retain(|host, name| hosts.get(host) == Some(&name.number));
                for (host, number) in hosts {
                    kept.entry(host).or_insert_with(|| Kept::fresh(number, now));
                }
            }
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            Some(done) = lookups.join_next(), if !lookups.is_empty() => {
                let Ok((host, looked)) = done else { continue };
                let Some(name) = kept.get_mut(&host) else { continue };
                if let Some(answer) = name.settle(&host, looked)
                    && answers.send((host, answer)).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

impl Kept {
    fn fresh(number: u64, now: Instant) -> Self {
        Kept { number, addresses: None, due: now, pause: FIRST_PAUSE, asked: false }
    }

    /// An answer came: the addresses, where they are other than before; why there are none, where there never were.
    fn settle(&mut self, host: &str, looked: Looked) -> Option<Result<Vec<IpAddr>, String>> {
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
                differs.then_some(Ok(addresses))
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
                self.addresses.is_none().then_some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

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
            let mut names = Names::with(move |host, _| {
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

    #[test]
    fn a_name_that_is_wanted_again_at_once_is_looked_up_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut names = Names::with(|host, _| async move {
                match &*host {
                    "good.test" => Ok((addresses(&["10.0.0.1"]), LONGEST)),
                    _ => Err("nobody knows it".to_owned()),
                }
            });
            let (good, bad): (Arc<str>, Arc<str>) = ("good.test".into(), "bad.test".into());
            names.want([Arc::clone(&good)].into());
            names.first().await;
            // Nobody has a chance to look between the two.
            names.want(BTreeSet::new());
            names.want([Arc::clone(&good), Arc::clone(&bad)].into());
            assert!(names.known().is_empty());
            names.changed().await;
            assert_eq!(names.known().get(&good), Some(&addresses(&["10.0.0.1"])));
            while names.failure(&bad).is_none() {
                let more = tokio::time::timeout(Duration::from_millis(10), names.changed()).await;
                assert!(more.is_err(), "a failure changes nothing");
            }
            assert_eq!(names.failure(&bad), Some("nobody knows it"));
        });
    }

    /// A name server that has one address of each family for every name, and answers by the code that is set for it.
    fn name_server(codes: [u8; 2]) -> (TokioResolver, Arc<Mutex<[u8; 2]>>) {
        let codes = Arc::new(Mutex::new(codes));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut server = NameServerConfig::udp(socket.local_addr().unwrap().ip());
        server.connections[0].port = socket.local_addr().unwrap().port();
        let says = Arc::clone(&codes);
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((len, peer)) = socket.recv_from(&mut bytes) {
                let end = 12 + bytes[12..len].iter().position(|byte| *byte == 0).unwrap() + 5;
                let is_v4 = bytes[end - 3] == 1;
                let code = says.lock().unwrap()[usize::from(!is_v4)];
                let mut answer = bytes[..end].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
                answer[6..12].copy_from_slice(&[0, u8::from(code == FOUND), 0, 0, 0, 0]);
                if code == FOUND {
                    // A pointer to the name, the type, IN, no time to live.
                    answer.extend([0xc0, 12, 0, bytes[end - 3], 0, 1, 0, 0, 0, 0]);
                    let address: &[u8] = if is_v4 { &[10, 0, 0, 1] } else { &std::net::Ipv6Addr::LOCALHOST.octets() };
                    answer.extend([0, address.len() as u8]);
                    answer.extend(address);
                } else if code == NONE {
                    answer[3] = 0x80;
                }
                socket.send_to(&answer, peer).unwrap();
            }
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        (builder.build().unwrap(), codes)
    }

    const FOUND: u8 = 0;
    const SERVER_FAILED: u8 = 2;
    const NO_SUCH_NAME: u8 = 3;
    /// The name is there, and has no such address.
    const NONE: u8 = 15;

    #[test]
    fn a_failure_for_one_family_leaves_what_was_known_of_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (resolver, codes) = name_server([FOUND, FOUND]);
            let both = addresses(&["10.0.0.1", "::1"]);
            let look_up = async |host: &str, known: &[IpAddr]| look_up(&resolver, host, known).await.unwrap().0;
            assert_eq!(look_up("first.test.", &[]).await, both);
            let cases = [
                ([SERVER_FAILED, FOUND], vec![both[1], both[0]]),
                ([FOUND, SERVER_FAILED], both.clone()),
                ([NONE, FOUND], vec![both[1]]),
                ([FOUND, NO_SUCH_NAME], vec![both[0]]),
            ];
            for (at, (said, expected)) in cases.into_iter().enumerate() {
                *codes.lock().unwrap() = said;
                // What was found is kept for its time to live, however short: another name each time.
                assert_eq!(look_up(&format!("n{at}.test."), &both).await, expected, "{said:?}");
            }
            *codes.lock().unwrap() = [SERVER_FAILED, FOUND];
            assert_eq!(look_up("unknown.test.", &[]).await, [both[1]], "what is there is used");
        });
    }
}
