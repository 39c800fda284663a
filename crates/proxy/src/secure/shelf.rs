//! A listener's certificates by the names that clients ask for. A look-up costs the same whatever their number.

use std::sync::Arc;

use kakei_config::ServerName;

use super::certificate::Certificate;
use crate::trie::Trie;

/// Certificates for one name, those with the cheaper keys first, and of the same kind those that were named first.
type Kinds = Vec<(usize, Arc<Certificate>)>;

/// See the module's words. A copy shares all that is not changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    exact: Trie<Arc<str>, Kinds>,
    /// By what stands behind `*.`.
    under: Trie<Arc<str>, Kinds>,
}

impl Shelf {
    /// Put a certificate there by all of its names; it was named at this place.
    pub(super) fn put(&mut self, place: usize, certificate: &Arc<Certificate>) {
        let key = |(place, of): &(usize, Arc<Certificate>)| (of.kind(), *place, of.name.clone());
        let own = (place, Arc::clone(certificate));
        self.turn(certificate, |kinds| {
            // One that names a host twice is there already.
            if let Err(at) = kinds.binary_search_by_key(&key(&own), key) {
                kinds.insert(at, own.clone());
            }
        });
    }

    /// Take a certificate away.
    pub(super) fn take(&mut self, certificate: &Arc<Certificate>) {
        self.turn(certificate, |kinds| kinds.retain(|(_, known)| !Arc::ptr_eq(known, certificate)));
    }

    fn turn(&mut self, certificate: &Certificate, turn: impl Fn(&mut Kinds)) {
        for name in &certificate.names {
            let (names, key) = match name {
                ServerName::Exact(name) => (&mut self.exact, name),
                ServerName::Under(suffix) => (&mut self.under, suffix),
            };
            names.change(key, &turn, Vec::is_empty);
        }
    }

    /// Those for a name in lower case: exact ones, and behind them those for all names beside it.
    pub(super) fn find(&self, name: &str) -> impl Iterator<Item = &Arc<Certificate>> + Clone {
        let exact = self.exact.get(name).map_or(&[][..], Vec::as_slice);
        let beside = name.split_once('.').and_then(|(_, suffix)| self.under.get(suffix));
        // One that is for both stands there already.
        let is_new =
            move |(_, found): &&(usize, Arc<Certificate>)| !exact.iter().any(|(_, known)| Arc::ptr_eq(known, found));
        let under = beside.into_iter().flatten().filter(is_new);
        exact.iter().chain(under).map(|(_, certificate)| certificate)
    }
}
