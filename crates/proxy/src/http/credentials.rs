//! Whether a password is the right one, as far as a worker knows it: what was found out lately is remembered under a
//! keyed hash, everything else is asked of the machine, each question once for all who wait for it. Passwords are not
//! kept. Decides nothing about requests.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use kakei_config::BasicAuth;
use kakei_wire::message::Basic;

use super::exchange::ExchangeId;
use crate::hash::{Keyed, Seal};
use crate::limits::{
    CREDENTIALS, CREDENTIALS_FOR, VERIFY_LOST, VERIFY_WAITERS, VERIFYING, WRONG_CREDENTIALS, WRONG_CREDENTIALS_FOR,
};
use crate::seam::{Instant, Job, Op, Password, Verdict, Verify};
use crate::world::Tick;

/// What a credential is remembered by: a keyed hash of user, password, the password's hash, and whether it is that user's.
type Print = [u8; 32];

/// The users of a route, ready to be looked up.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    /// What a client is told that did not say who it is, as a line.
    pub(super) challenge: String,
    /// By name, in order.
    users: Vec<(String, Arc<str>)>,
}

impl Users {
    pub(super) fn compile(basic: &BasicAuth) -> Self {
        Users {
            challenge: format!("WWW-Authenticate: Basic realm=\"{}\", charset=\"UTF-8\"\r\n", basic.realm),
            users: basic.users.iter().map(|(user, hash)| (user.clone(), hash.as_str().into())).collect(),
        }
    }

    /// The hash that a user's password is compared with, and whether there is such a user. Where there isn't, it is
    /// somebody else's, always the same: so nobody learns from the time that it takes who is a user.
    fn find(&self, keyed: Keyed, user: &str) -> Option<(&Arc<str>, bool)> {
        match self.users.binary_search_by(|(name, _)| name.as_str().cmp(user)) {
            Ok(at) => Some((&self.users[at].1, true)),
            Err(_) if self.users.is_empty() => None,
            Err(_) => Some((&self.users[(keyed.hash_one(user) % self.users.len() as u64) as usize].1, false)),
        }
    }
}

/// What is known of a client's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// They are right.
    Right,
    /// They are wrong.
    Wrong,
    /// The machine is asked.
    Asked,
    /// As much is asked of it already as may be.
    Busy,
}

/// A question that is under way.
#[derive(Debug)]
struct Asked {
    job: Job,
    since: Instant,
    print: Print,
    /// Whether there is such a user: nobody else is let in, whatever the answer is.
    is_user: bool,
    /// Those that wait for the answer. Some may be gone by now.
    waiting: Vec<ExchangeId>,
}

/// Credentials of which the same was found out lately.
#[derive(Debug, Default)]
struct Lately {
    /// Until when it counts.
    until: BTreeMap<Print, Instant>,
    /// The same in the order of their ends.
    ends: VecDeque<(Instant, Print)>,
}

impl Lately {
    /// Remember these as the newest of at most `most`; the oldest make room.
    fn remember(&mut self, print: Print, until: Instant, most: usize) {
        debug_assert!(!self.has(&print), "what is known is not found out");
        if self.until.len() >= most
            && let Some((_, oldest)) = self.ends.pop_front()
        {
            self.until.remove(&oldest);
        }
        if self.until.insert(print, until).is_none() {
            self.ends.push_back((until, print));
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_, print)) = self.ends.pop_front_if(|(until, _)| *until <= now) {
            self.until.remove(&print);
        }
    }

    fn has(&self, print: &Print) -> bool {
        self.until.contains_key(print)
    }
}

/// What a worker knows of credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Made when it is needed first.
    seal: Option<Seal>,
    right: Lately,
    /// Apart from those that are right: who guesses makes nobody forgotten.
    wrong: Lately,
    asked: Vec<Asked>,
    /// The number of the next question.
    next: u64,
}

impl Credentials {
    /// Find out whether these are the credentials of a user. Who has to wait is told by [`Credentials::answer`].
    pub(super) fn check(
        &mut self,
        (rng, keyed): (&mut fastrand::Rng, Keyed),
        tick: &mut Tick<'_>,
        (users, basic): (&Users, Basic),
        id: ExchangeId,
    ) -> Known {
        let Some((hash, is_user)) = users.find(keyed, &basic.user) else { return Known::Busy };
        let seal = self.seal.get_or_insert_with(|| {
            let secret: Vec<u8> = (0..8).flat_map(|_| rng.u64(..).to_le_bytes()).collect();
            Seal::of_secret(&secret)
        });
        let print = seal.of(&[hash.as_bytes(), basic.user.as_bytes(), &basic.password, &[u8::from(is_user)]]);
        self.forget_old(tick.now);
        if self.right.has(&print) {
            return Known::Right;
        }
        if self.wrong.has(&print) {
            return Known::Wrong;
        }
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.print == print) {
            if asked.waiting.len() >= VERIFY_WAITERS {
                return Known::Busy;
            }
            asked.waiting.push(id);
            return Known::Asked;
        }
        if self.asked.len() >= VERIFYING {
            return Known::Busy;
        }
        let job = Job(self.next);
        self.next += 1;
        self.asked.push(Asked { job, since: tick.now, print, is_user, waiting: vec![id] });
        let password = Password(basic.password);
        tick.ask(Op::Verify(Box::new(Verify { job, password, hash: Arc::clone(hash) })));
        Known::Asked
    }

    /// The machine answers: who waited for that, and what it means for them; none: nobody does any more.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        (job, verdict): (Job, Verdict),
    ) -> Option<(Vec<ExchangeId>, Verdict)> {
        let at = self.asked.iter().position(|asked| asked.job == job)?;
        let asked = self.asked.swap_remove(at);
        let verdict = match verdict {
            Verdict::Right if !asked.is_user => Verdict::Wrong,
            verdict => verdict,
        };
        match verdict {
            Verdict::Right => self.right.remember(asked.print, now + CREDENTIALS_FOR, CREDENTIALS),
            Verdict::Wrong => self.wrong.remember(asked.print, now + WRONG_CREDENTIALS_FOR, WRONG_CREDENTIALS),
            Verdict::Undone => {}
        }
        Some((asked.waiting, verdict))
    }

    /// What was found out long ago is found out anew; what was never answered is waited for no longer.
    fn forget_old(&mut self, now: Instant) {
        self.right.forget_old(now);
        self.wrong.forget_old(now);
        self.asked.retain(|asked| now - asked.since < VERIFY_LOST);
    }

    /// The number of the next question: a worker that is read back goes on with it, so that answers to the one before
    /// are answers to nobody.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn go_on(&mut self, next: u64) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::{Outbox, Wall};

    struct Stand {
        credentials: Credentials,
        rng: fastrand::Rng,
        keyed: Keyed,
        now: Instant,
        users: Users,
    }

    impl Stand {
        fn new() -> Self {
            let mut rng = fastrand::Rng::with_seed(7);
            let users = [("ann", "$2b$a"), ("bob", "$2b$b")].map(|(user, hash)| (user.to_owned(), hash.to_owned()));
            let users = Users::compile(&BasicAuth { realm: "r".into(), users: users.into() });
            let keyed = Keyed::new(&mut rng);
            Stand { credentials: Credentials::default(), keyed, rng, now: Instant::from_nanos(5), users }
        }

        /// What is known of them, and what is asked of the machine.
        fn check(&mut self, user: &str, password: &str) -> (Known, Option<Verify>) {
            let mut out = Outbox::default();
            let mut tick = Tick { now: self.now, wall: Wall::default(), bytes: &[], out: &mut out };
            let basic = Basic { user: user.into(), password: password.into() };
            let Stand { credentials, rng, keyed, users, .. } = self;
            let known = credentials.check((rng, *keyed), &mut tick, (users, basic), ExchangeId::default());
            let asked = out.ops.into_iter().find_map(|op| match op {
                Op::Verify(verify) => Some(*verify),
                _ => None,
            });
            (known, asked)
        }

        fn answer(&mut self, job: Job, verdict: Verdict) -> Option<(usize, Verdict)> {
            let answered = self.credentials.answer(self.now, (job, verdict))?;
            Some((answered.0.len(), answered.1))
        }
    }

    #[test]
    fn what_was_found_right_counts_for_a_while_and_for_nothing_else() {
        let mut stand = Stand::new();
        let (known, asked) = stand.check("ann", "secret");
        let asked = asked.unwrap();
        assert_eq!((known, &*asked.hash, &asked.password.0[..]), (Known::Asked, "$2b$a", &b"secret"[..]));
        // The same question is asked once.
        assert_eq!(stand.check("ann", "secret"), (Known::Asked, None));
        assert_eq!(stand.answer(asked.job, Verdict::Right), Some((2, Verdict::Right)));
        assert_eq!(stand.answer(asked.job, Verdict::Right), None);
        assert_eq!(stand.check("ann", "secret"), (Known::Right, None));
        for (user, password) in [("ann", "secre"), ("ann", ""), ("bob", "secret"), ("eve", "secret")] {
            let (known, asked) = stand.check(user, password);
            assert!(known == Known::Asked && asked.is_some(), "{user} {password}");
        }
        // With another hash it is another password.
        stand.users.users[0].1 = "$2b$c".into();
        assert_eq!(stand.check("ann", "secret").0, Known::Asked);
        stand.users.users[0].1 = "$2b$a".into();
        assert_eq!(stand.check("ann", "secret").0, Known::Right);
        stand.now = stand.now + CREDENTIALS_FOR;
        assert_eq!(stand.check("ann", "secret").0, Known::Asked);
    }

    #[test]
    fn who_is_no_user_is_let_in_by_no_password_and_takes_as_long() {
        let mut stand = Stand::new();
        for user in ["eve", "", "zoe", "Ann", "ann "] {
            let (known, asked) = stand.check(user, "secret");
            let asked = asked.unwrap();
            assert!(known == Known::Asked && asked.hash.starts_with("$2b$"), "{user}");
            // Even where it is the password of the one whose hash is used.
            assert_eq!(stand.answer(asked.job, Verdict::Right), Some((1, Verdict::Wrong)));
            assert_eq!(stand.check(user, "secret"), (Known::Wrong, None), "{user}");
        }
        // Whoever becomes one is asked about anew, even where the hash is the one that was taken.
        let hash = stand.check("eve", "other").1.unwrap().hash;
        stand.users.users.insert(2, ("eve".to_owned(), hash));
        assert_eq!(stand.check("eve", "secret").0, Known::Asked);
    }

    #[test]
    fn what_was_found_wrong_counts_for_a_shorter_while_and_pushes_nobody_out() {
        let mut stand = Stand::new();
        let right = stand.check("ann", "secret").1.unwrap().job;
        stand.answer(right, Verdict::Right);
        for guess in 0..2 * WRONG_CREDENTIALS {
            let job = stand.check("ann", &guess.to_string()).1.unwrap().job;
            assert_eq!(stand.answer(job, Verdict::Wrong), Some((1, Verdict::Wrong)));
        }
        let Lately { until, ends } = &stand.credentials.wrong;
        assert_eq!((until.len(), ends.len()), (WRONG_CREDENTIALS, WRONG_CREDENTIALS));
        let last = (2 * WRONG_CREDENTIALS - 1).to_string();
        assert_eq!((stand.check("ann", &last), stand.check("ann", "0").0), ((Known::Wrong, None), Known::Asked));
        assert_eq!(stand.check("ann", "secret").0, Known::Right);
        // With another hash it may be right.
        stand.users.users[0].1 = "$2b$c".into();
        assert_eq!(stand.check("ann", &last).0, Known::Asked);
        stand.users.users[0].1 = "$2b$a".into();
        stand.now = stand.now + WRONG_CREDENTIALS_FOR;
        assert_eq!((stand.check("ann", &last).0, stand.check("ann", "secret").0), (Known::Asked, Known::Right));
    }

    #[test]
    fn what_was_not_found_out_is_asked_again() {
        let mut stand = Stand::new();
        let job = stand.check("ann", "secret").1.unwrap().job;
        assert_eq!(stand.answer(job, Verdict::Undone), Some((1, Verdict::Undone)));
        assert_eq!(stand.check("ann", "secret").0, Known::Asked);
    }

    #[test]
    fn a_user_who_waits_is_not_let_in_by_the_answer_about_somebody_else() {
        let mut stand = Stand::new();
        let (_, wrong) = stand.check("ann", "a");
        let (_, right) = stand.check("ann", "b");
        assert_eq!(stand.answer(right.unwrap().job, Verdict::Right), Some((1, Verdict::Right)));
        assert_eq!(stand.answer(wrong.unwrap().job, Verdict::Wrong), Some((1, Verdict::Wrong)));
        assert_eq!((stand.check("ann", "a").0, stand.check("ann", "b").0), (Known::Wrong, Known::Right));
    }

    #[test]
    fn everything_is_bounded() {
        let mut stand = Stand::new();
        let jobs: Vec<Job> = (0..VERIFYING).map(|at| stand.check("ann", &at.to_string()).1.unwrap().job).collect();
        assert_eq!(stand.check("ann", "one more"), (Known::Busy, None));
        assert_eq!(stand.answer(jobs[0], Verdict::Undone), Some((1, Verdict::Undone)));
        assert_eq!(stand.check("ann", "one more").0, Known::Asked);
        // What is never answered doesn't hold a place for ever.
        stand.now = stand.now + VERIFY_LOST;
        assert_eq!(stand.check("ann", "again").0, Known::Asked);
        for at in 0..2 * CREDENTIALS {
            let (_, asked) = stand.check("bob", &at.to_string());
            stand.answer(asked.unwrap().job, Verdict::Right);
        }
        let Lately { until, ends } = &stand.credentials.right;
        assert_eq!((until.len(), ends.len()), (CREDENTIALS, CREDENTIALS));
        assert_eq!(stand.check("bob", &(2 * CREDENTIALS - 1).to_string()).0, Known::Right);
        for _ in 0..VERIFY_WAITERS {
            stand.check("bob", "the same");
        }
        assert_eq!(stand.check("bob", "the same"), (Known::Busy, None));
    }
}
