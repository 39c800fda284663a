//! What TLS of a listener asks of other objects: certificates that exist, a protocol that comes over streams.

use super::Check;
use crate::model::{Listener, Name, Protocol};
use crate::schema::Step;

impl Check<'_, '_> {
    pub(super) fn tls(&mut self, name: &Name, listener: &Listener) {
        let Some(tls) = &listener.tls else { return };
        let way = |rest: &[Step<'static>]| {
            let mut way = vec![Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("tls")];
            way.extend_from_slice(rest);
            way
        };
        if listener.protocol == Protocol::Udp {
            let message = format!("listener `{name}`: `tls` is for TCP and HTTP; it speaks UDP");
            self.report(message, &way(&[]));
        }
        for (n, certificate) in tls.certificates.iter().enumerate() {
            self.exists("certificate", certificate, &way(&[Step::Key("certificates"), Step::Item(n)]));
        }
        if let Some(default) = &tls.default {
            self.exists("certificate", default, &way(&[Step::Key("default")]));
        }
        if listener.protocol == Protocol::Http {
            for (n, _) in tls.alpn.iter().enumerate().filter(|(_, protocol)| *protocol != "http/1.1") {
                let message = format!("listener `{name}`: HTTP is spoken as `http/1.1` only");
                self.report(message, &way(&[Step::Key("alpn"), Step::Item(n)]));
            }
        }
    }
}
