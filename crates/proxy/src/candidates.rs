//! Clusters that nothing leads to and that are probed all the same: a change brings them, and is published once they have
//! passed. Nothing of what runs knows them; whether that is enough is decided by the control side.

use crate::cluster::{Asked, ClusterKey, LiveCluster};
use crate::seam::{Candidate, Notice, Op, ProbeSaid, Probed};
use crate::worker::{Drain, Worker};
use crate::world::Tick;

impl Worker {
    /// From now on these are probed, and no others.
    pub(crate) fn turn_candidates(&mut self, tick: &mut Tick<'_>, wanted: Vec<Candidate>) {
        let is_wanted = |number: u64| wanted.iter().any(|candidate| candidate.number == number);
        let clusters = self.world.clusters.iter();
        let known: Vec<(ClusterKey, u64)> = clusters.filter_map(|(key, live)| Some((key, live.candidate?))).collect();
        for &(key, _) in known.iter().filter(|(_, number)| !is_wanted(*number)) {
            self.drop_candidate(tick, key);
        }
        if self.role.index != 0 || self.drain != Drain::No {
            return;
        }
        for candidate in wanted {
            if known.iter().any(|(_, number)| *number == candidate.number) {
                continue;
            }
            let mut live = LiveCluster::new(candidate.cluster);
            live.candidate = Some(candidate.number);
            let key = self.world.clusters.insert(live);
            self.configure_probes(tick, key);
            self.world.clusters[key].probing.checker.hasten(tick.now, candidate.spread);
            self.arm_probes(key);
        }
    }

    fn drop_candidate(&mut self, tick: &mut Tick<'_>, key: ClusterKey) {
        let Some(cluster) = self.world.clusters.remove(key) else { return };
        for asked in cluster.probing.sockets.values() {
            self.world.close(tick, asked.socket);
        }
        cluster.probing.timer.into_iter().for_each(|timer| self.world.timers.cancel(timer));
        self.secure.forget_backends(&self.world);
    }

    /// A probe of one is over: what came of it, and what that says of the backend.
    pub(crate) fn tell_probed(
        &mut self,
        tick: &mut Tick<'_>,
        (key, candidate): (ClusterKey, u64),
        asked: Asked,
        said: ProbeSaid,
    ) {
        let cluster = &self.world.clusters[key];
        let Some(backend) = cluster.backends.get(asked.backend) else { return };
        let checker = &cluster.probing.checker;
        let verdict = match checker.is_up(asked.backend) {
            Some(true) => checker.has_passed(asked.backend).then_some(true),
            Some(false) => Some(false),
            None => None,
        };
        tick.ask(Op::Notice(Notice::Probed(Probed {
            candidate,
            backend: backend.spec.name.clone(),
            address: backend.spec.address.clone(),
            check: asked.check,
            said,
            verdict,
        })));
    }
}
