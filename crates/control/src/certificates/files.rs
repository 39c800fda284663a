//! The files that stand behind what was read, and which of them are other ones now. Reads none of them: it looks at what
//! tells that they changed, which may be done anywhere, and takes long where there are many.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::{Kind, Name, Pem};

use super::pem::{self, Stamp};
use super::{Certificates, asked, trust};

/// An object that names a file.
pub(crate) type Object = (Kind, Name);

/// Files, each with the objects that name it, and what it was like when it was read for them.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<String, Vec<(Stamp, Object)>>);

/// What files were like when they were looked at last, where that isn't when they were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, Stamp>);

/// A file that is another one now.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) path: String,
    pub(crate) objects: BTreeSet<Object>,
    stamp: Stamp,
}

impl Files {
    fn put(&mut self, named: &Pem, stamp: Option<&Stamp>, kind: Kind, name: &Name) {
        if let (Pem::File(path), Some(stamp)) = (named, stamp) {
            self.0.entry(path.clone()).or_default().push((stamp.clone(), (kind, name.clone())));
        }
    }

    /// Whether such an object names one of them.
    pub(crate) fn names(&self, object: &Object) -> bool {
        self.0.values().flatten().any(|(_, named)| named == object)
    }

    /// Those that are other ones than when they were looked at last.
    pub(crate) fn changed(self, seen: &Seen) -> Vec<Changed> {
        let changed = self.0.into_iter().filter_map(|(path, named)| {
            let stamp = pem::stamp_of(&path);
            let last = seen.0.get(&path);
            let is_other = |read: &Stamp| *last.unwrap_or(read) != stamp;
            let objects: BTreeSet<Object> =
                named.into_iter().filter(|(read, _)| is_other(read)).map(|(_, object)| object).collect();
            (!objects.is_empty()).then_some(Changed { path, objects, stamp })
        });
        changed.collect()
    }
}

impl Seen {
    /// What nobody names any more is forgotten.
    pub(crate) fn keep(&mut self, files: &Files) {
        self.0.retain(|path, _| files.0.contains_key(path));
    }

    /// What such objects name is another one than was seen, whatever it is.
    pub(crate) fn forget(&mut self, files: &Files, is_such: impl Fn(&Object) -> bool) {
        self.0
            .retain(|path, _| !files.0.get(path).is_some_and(|named| named.iter().any(|(_, object)| is_such(object))));
    }

    /// These were looked at, whatever came of it.
    pub(crate) fn note(&mut self, changed: impl IntoIterator<Item = Changed>) {
        self.0.extend(changed.into_iter().map(|changed| (changed.path, changed.stamp)));
    }
}

impl Certificates {
    /// The files that all of this was read from.
    pub(crate) fn files(&self) -> Files {
        let mut files = Files::default();
        for (name, spec) in self.specs.certificates.iter() {
            let Some([chain, key, ocsp]) = self.stamps.get(name) else { continue };
            let staple = spec.ocsp.clone().map(Pem::File);
            let parts = [(Some(&spec.chain), chain), (Some(&spec.key), key), (staple.as_ref(), ocsp)];
            for (named, stamp) in parts.into_iter().filter_map(|(named, stamp)| Some((named?, stamp))) {
                files.put(named, Some(stamp), Kind::Certificate, name);
            }
        }
        let trusted = |named: &Option<Pem>| self.trusted.get(named).map(|trusted| &trusted.stamp);
        let revoked = |named: &Pem| self.revoked.get(named).map(|lists| &lists.stamp);
        for (name, listener) in self.specs.listeners.iter() {
            let Some(clients) = asked(listener) else { continue };
            files.put(&clients.ca, trusted(&Some(clients.ca.clone())), Kind::Listener, name);
            clients.crls.iter().for_each(|named| files.put(named, revoked(named), Kind::Listener, name));
        }
        // Looked up once: it is the same for all that name none.
        let system = trust::system().map(Pem::File);
        for (name, ()) in self.secured.iter() {
            let tls = self.specs.clusters.get(name).and_then(|cluster| cluster.tls.as_ref());
            let Some(tls) = tls.filter(|tls| tls.verify) else { continue };
            if let Some(named) = tls.ca.as_ref().or(system.as_ref()) {
                files.put(named, trusted(&tls.ca), Kind::Cluster, name);
            }
        }
        if let Some(tcp) = &self.specs.admin {
            let name = Name::default();
            files.put(&tcp.ca, trusted(&Some(tcp.ca.clone())), Kind::Admin, &name);
            tcp.crls.iter().for_each(|named| files.put(named, revoked(named), Kind::Admin, &name));
        }
        files
    }
}
