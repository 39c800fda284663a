//! Certificates that are about to expire, said once a day. Changes nothing.

use std::time::Duration;

use tracing::warn;

use super::Owner;
use crate::events::What;
use crate::system::System;
use crate::wall;

/// So long before the end it is said.
const SOON: i64 = 14 * 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When certificates are looked at: at the start, and once a day.
pub(super) fn daily() -> tokio::time::Interval {
    tokio::time::interval(DAY)
}

impl<S: System> Owner<S> {
    pub(super) fn mind_expiry(&self) {
        let now = wall::unix_seconds(self.system.now()).cast_signed();
        for (_, made) in self.view.certificates.iter().filter(|(_, made)| made.not_after - now < SOON) {
            let (certificate, not_after) = (made.name.clone(), wall::seconds(made.not_after));
            let verb = if made.not_after < now { "has expired:" } else { "expires soon:" };
            warn!("certificate {certificate} {verb} it is valid until {not_after}");
            self.events.say(What::CertificateExpires { certificate, not_after });
        }
    }
}
