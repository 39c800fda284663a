//! A listener's certificates by the names that clients ask for. A look-up costs the same whatever their number.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kakei_config::ServerName;

use super::certificate::Certificate;

/// Certificates for one name, those with the cheaper keys first.
type Kinds = Vec<Arc<Certificate>>;

/// See the module's words.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    exact: HashMap<Arc<str>, Kinds, FixedState>,
    /// By what stands behind `*.`.
    under: HashMap<Arc<str>, Kinds, FixedState>,
}

impl Shelf {
    /// Where several are for one name and of one kind, the first of them stands first.
    pub(super) fn of(certificates: &[Arc<Certificate>]) -> Self {
        let mut shelf = Shelf::default();
        for certificate in certificates {
            for name in &certificate.names {
                let place = match name {
                    ServerName::Exact(name) => shelf.exact.entry(Arc::clone(name)),
                    ServerName::Under(suffix) => shelf.under.entry(Arc::clone(suffix)),
                };
                place.or_default().push(Arc::clone(certificate));
            }
        }
        let lists = shelf.exact.values_mut().chain(shelf.under.values_mut());
        lists.for_each(|list| list.sort_by_key(|certificate| certificate.kind()));
        shelf
    }

    /// Those for a name in lower case: exact ones, or else those for all names beside it.
    pub(super) fn find(&self, name: &str) -> &[Arc<Certificate>] {
        let under = || self.under.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(under).map_or(&[], Vec::as_slice)
    }
}
