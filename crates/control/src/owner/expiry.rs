//! Certificates that are about to expire, said when they come and once a day. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Name, Sorted};
use kakei_proxy::secure::Certificate;
use tracing::warn;

use super::Owner;
use crate::events::What;
use crate::system::System;
use crate::wall;

/// So long before the end it is said.
const SOON: i64 = 14 * 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When certificates are looked at: at the start, and once a day. One that comes meanwhile is when it comes.
pub(super) fn daily() -> tokio::time::Interval {
    tokio::time::interval(DAY)
}

impl<S: System> Owner<S> {
    pub(super) fn mind_expiry(&self) {
        self.view.certificates.iter().for_each(|(_, made)| self.say_expiry(made));
    }

    /// The same of those that are other ones than these were.
    pub(super) fn mind_expiry_of_new(&self, before: &Sorted<Name, Arc<Certificate>>) {
        let differing = before.differences(&self.view.certificates);
        let is_new = |before: Option<&Arc<_>>, after| before.is_none_or(|before| !Arc::ptr_eq(before, after));
        let new = differing.filter_map(|(_, before, after)| after.filter(|after| is_new(before, after)));
        new.for_each(|made| self.say_expiry(made));
    }

    fn say_expiry(&self, made: &Certificate) {
        let now = wall::unix_seconds(self.system.now()).cast_signed();
        if made.not_after - now >= SOON {
            return;
        }
        let (certificate, not_after) = (made.name.clone(), wall::seconds(made.not_after));
        let verb = if made.not_after < now { "has expired:" } else { "expires soon:" };
        warn!("certificate {certificate} {verb} it is valid until {not_after}");
        self.events.say(What::CertificateExpires { certificate, not_after });
    }
}
