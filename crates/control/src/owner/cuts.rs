//! What was ended because something was changed under it: told once for each object and moment, however many workers and
//! steps it took. Ends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::{Cut, CutOf};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Owner;
use crate::drains::{Counts, Held};
use crate::events::What;
use crate::system::System;

/// So long is waited for more of the same.
const PAUSE: Duration = Duration::from_millis(300);

/// What is still to be told.
#[derive(Default)]
pub(super) struct Untold {
    cuts: BTreeMap<(CutOf, CloseReason), Cut>,
    due: Option<Instant>,
}

/// Ready when something is to be told; never where there is nothing.
pub(super) async fn due(untold: &Untold) {
    match untold.due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl<S: System> Owner<S> {
    pub(super) fn on_cut(&mut self, cut: Cut) {
        Arc::make_mut(&mut self.view.cuts).note(&cut);
        self.untold.due.get_or_insert_with(|| Instant::now() + PAUSE);
        self.untold
            .cuts
            .entry((cut.of.clone(), cut.reason))
            .and_modify(|known| {
                known.flows += cut.flows;
                known.connections += cut.connections;
                known.requests += cut.requests;
            })
            .or_insert(cut);
        self.show();
    }

    pub(super) fn tell_cuts(&mut self) {
        let Untold { cuts, .. } = std::mem::take(&mut self.untold);
        for ((of, reason), cut) in cuts {
            let (held, Counts { flows, connections, requests }) = (Held::from(&of), Counts::from(&cut));
            let reason = reason.name();
            warn!("{held}: {flows} flows, {connections} connections and {requests} requests were cut ({reason})");
            let Held { kind, name, cluster } = held;
            self.events.say(What::Cut { kind, name, cluster, reason, flows, connections, requests });
        }
    }
}
