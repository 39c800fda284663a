//! What is ended because something was changed under it: added up in a step, and told. Ends nothing.

use std::collections::BTreeMap;

use kakei_config::Name;

use crate::cluster::{BackendKey, ClusterKey};
use crate::listener::ListenerKey;
use crate::record::CloseReason;
use crate::seam::{Cut, CutOf, Notice, Op};
use crate::world::{Tick, World};

/// What was ended in this step.
pub(crate) type Cuts = BTreeMap<(CutOf, CloseReason), Cut>;

/// What something that ended stood on.
type Stood<'a> = (ListenerKey, Option<&'a Name>, Option<(ClusterKey, BackendKey)>);

impl World {
    /// Something ended: where that was for a change under it, it is counted.
    pub(crate) fn note_cut(&mut self, reason: CloseReason, stood: Stood<'_>, count: impl FnOnce(&mut Cut)) {
        let (listener, route, place) = stood;
        let of = match reason {
            CloseReason::Drain => Some(CutOf::Listener(self.listeners[listener].spec.name.clone())),
            CloseReason::RouteChanged => route.cloned().map(CutOf::Route),
            CloseReason::BackendRemoved | CloseReason::BackendDown => place.and_then(|(cluster, backend)| {
                let cluster = self.clusters.get(cluster)?;
                Some(CutOf::Backend(cluster.spec.name.clone(), cluster.backends.get(backend)?.spec.name.clone()))
            }),
            _ => None,
        };
        if let Some(of) = of {
            let none = Cut { of: of.clone(), reason, flows: 0, connections: 0, requests: 0 };
            count(self.cuts.entry((of, reason)).or_insert(none));
        }
    }

    /// Tell what was ended so.
    pub(crate) fn tell_cuts(&mut self, tick: &mut Tick<'_>) {
        for cut in std::mem::take(&mut self.cuts).into_values() {
            tick.ask(Op::Notice(Notice::Cut(cut)));
        }
    }
}
