//! Changes of one object, as the next whole document: an edit is a transaction like any other. Publishes nothing.

use std::fmt;

use kakei_config::{Backend, BackendAddress, Cluster, Document, Kind, Name, Node};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::refusal::Refusal;
use crate::strict;

/// A change of one object, also as the API takes it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "Change")]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// Add an object; refused where there is another one of its name, nothing where it is the same.
    Add {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
        /// All of its options, as in the document.
        #[serde(deserialize_with = "strict::once")]
        value: serde_json::Value,
    },
    /// Add an object, or put it in the place of the one that has its name.
    Put {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
        /// All of its options, as in the document.
        #[serde(deserialize_with = "strict::once")]
        value: serde_json::Value,
    },
    /// Give an object other options, and leave it those that aren't named.
    Set {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
        /// The options, as in the document; null takes one out. Tables are looked into.
        #[serde(deserialize_with = "strict::once")]
        value: serde_json::Value,
    },
    /// Remove an object.
    Remove {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// Add a backend at the end of a cluster.
    AddBackend {
        /// The cluster.
        cluster: Name,
        /// The backend: its address alone, or an object.
        #[serde(deserialize_with = "new_backend")]
        #[schemars(with = "NewBackend")]
        backend: Backend,
    },
    /// Remove a backend.
    RemoveBackend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
    },
    /// Give a backend another weight; 0 drains it: it takes no new flow.
    WeighBackend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
        /// Its share from now on.
        weight: u32,
    },
}

impl Edit {
    /// The object that is changed.
    pub(crate) fn object(&self) -> (Kind, Name) {
        match self {
            Edit::Add { kind, name, .. }
            | Edit::Put { kind, name, .. }
            | Edit::Set { kind, name, .. }
            | Edit::Remove { kind, name } => (*kind, name.clone()),
            Edit::AddBackend { cluster, .. }
            | Edit::RemoveBackend { cluster, .. }
            | Edit::WeighBackend { cluster, .. } => (Kind::Cluster, cluster.clone()),
        }
    }

    /// Make this edit in the document, which is of no use where it is refused.
    pub fn apply(self, document: &mut Document) -> Result<(), Refusal> {
        match self {
            Edit::Add { kind, name, value } => {
                let before = document.object(named(kind)?, &name);
                put(document, (kind, name.clone()), &value)?;
                if before.is_some() && before != document.object(kind, &name) {
                    return Err(Refusal::Taken { kind, name });
                }
            }
            Edit::Put { kind, name, value } => put(document, (named(kind)?, name), &value)?,
            Edit::Set { kind, name, value } => {
                let Some(node) = document.object(named(kind)?, &name) else {
                    return Err(Refusal::Unknown { kind: kind.word(), name });
                };
                // What is taken out isn't read again.
                kakei_config::check_keys(kind, &read(&value)?)
                    .map_err(|errors| Refusal::Invalid(errors.under(&[kind.key(), name.as_str()])))?;
                let mut object = node.value.to_json();
                merge(&mut object, value);
                put(document, (kind, name), &object)?;
            }
            Edit::Remove { kind, name } => {
                kakei_config::amend(
                    &kakei_config::Change::Removed { kind: named(kind)?, name: name.clone() },
                    document,
                )
                .map_err(|_| Refusal::Unknown { kind: kind.word(), name })?;
            }
            Edit::AddBackend { cluster, backend } => {
                let of = find_cluster(document, &cluster)?;
                match of.backends.iter().find(|b| b.name == backend.name) {
                    Some(there) if *there == backend => {}
                    Some(_) => return Err(Refusal::Exists { cluster, backend: backend.name }),
                    None => of.backends.push(backend),
                }
            }
            Edit::RemoveBackend { cluster, backend } => {
                let of = find_cluster(document, &cluster)?;
                let at = find_backend(of, &backend)?;
                of.backends.remove(at);
            }
            Edit::WeighBackend { cluster, backend, weight } => {
                let of = find_cluster(document, &cluster)?;
                let at = find_backend(of, &backend)?;
                of.backends[at].weight = weight;
            }
        }
        Ok(())
    }
}

/// Only what has a name can be edited alone.
fn named(kind: Kind) -> Result<Kind, Refusal> {
    match kind {
        Kind::Listener | Kind::Route | Kind::Cluster | Kind::Certificate => Ok(kind),
        Kind::Admin | Kind::Workers | Kind::AccessLog => {
            Err(Refusal::BadRequest(format!("[{}] has no name: it changes with the whole document", kind.key())))
        }
    }
}

/// A backend as it is added: its address alone, or an object.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum NewBackend {
    Address(BackendAddress),
    Whole(WholeBackend),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct WholeBackend {
    name: Option<Name>,
    address: BackendAddress,
    weight: Option<u32>,
    #[serde(default)]
    backup: bool,
}

impl<'de> Deserialize<'de> for NewBackend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressOrWhole)
    }
}

/// Tells the one from the other by its kind, so that an error is about what is there.
struct AddressOrWhole;

impl<'de> Visitor<'de> for AddressOrWhole {
    type Value = NewBackend;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backend: its address, as \"10.0.0.1:53\", or an object {address, name?, weight?, backup?}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<NewBackend, E> {
        text.parse().map(NewBackend::Address).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NewBackend, A::Error> {
        WholeBackend::deserialize(MapAccessDeserializer::new(map)).map(NewBackend::Whole)
    }
}

impl From<NewBackend> for Backend {
    fn from(new: NewBackend) -> Self {
        let whole = match new {
            NewBackend::Address(address) => return Backend::at(address),
            NewBackend::Whole(whole) => whole,
        };
        let plain = Backend::at(whole.address);
        Backend {
            name: whole.name.unwrap_or(plain.name),
            address: plain.address,
            weight: whole.weight.unwrap_or(plain.weight),
            backup: whole.backup,
        }
    }
}

fn new_backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Backend, D::Error> {
    NewBackend::deserialize(deserializer).map(Backend::from)
}

fn read(value: &serde_json::Value) -> Result<Node, Refusal> {
    Node::deserialize(value).map_err(|error| Refusal::BadRequest(error.to_string()))
}

fn put(document: &mut Document, (kind, name): (Kind, Name), value: &serde_json::Value) -> Result<(), Refusal> {
    kakei_config::put(kind, &name, Some(&read(value)?), document).map_err(|error| match error {
        kakei_config::ApplyError::Invalid { diagnostics, .. } => {
            Refusal::Invalid(diagnostics.under(&[kind.key(), name.as_str()]))
        }
        error => Refusal::BadRequest(error.to_string()),
    })
}

/// RFC 7396: tables are merged, null takes out, everything else takes the place of what was there. Only, where there is no
/// table to take something out of, none is made.
fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    use serde_json::Value as Json;
    let Json::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Json::Object(serde_json::Map::new());
    }
    let Json::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Json::Null => drop(target.remove(&key)),
            value if !target.contains_key(&key) && only_takes_out(&value) => {}
            value => merge(target.entry(key).or_insert(Json::Null), value),
        }
    }
}

fn only_takes_out(patch: &serde_json::Value) -> bool {
    match patch {
        serde_json::Value::Object(patch) => !patch.is_empty() && patch.values().all(only_takes_out),
        patch => patch.is_null(),
    }
}

fn find_cluster<'a>(document: &'a mut Document, name: &Name) -> Result<&'a mut Cluster, Refusal> {
    document.clusters.get_mut(name).ok_or_else(|| Refusal::Unknown { kind: "cluster", name: name.clone() })
}

fn find_backend(cluster: &Cluster, name: &Name) -> Result<usize, Refusal> {
    let found = cluster.backends.iter().position(|b| b.name == *name);
    found.ok_or_else(|| Refusal::Unknown { kind: "backend", name: name.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn backend(name: &str, weight: u32) -> Backend {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 53)).into();
        Backend { name: name.into(), address, weight, backup: false }
    }

    fn document() -> Document {
        let cluster = Cluster { backends: vec![backend("a", 1)], ..Cluster::default() };
        Document { clusters: [("c".into(), cluster)].into(), ..Document::default() }
    }

    fn edited(document: &Document, edit: Edit) -> Result<Document, Refusal> {
        let mut next = document.clone();
        edit.apply(&mut next).map(|()| next)
    }

    #[test]
    fn edits_change_one_backend_and_nothing_else() {
        let added = edited(&document(), Edit::AddBackend { cluster: "c".into(), backend: backend("b", 2) }).unwrap();
        assert_eq!(added.clusters[&Name::new("c")].backends, [backend("a", 1), backend("b", 2)]);
        let again = edited(&added, Edit::AddBackend { cluster: "c".into(), backend: backend("b", 2) }).unwrap();
        assert_eq!(again, added, "what is there already is no error");
        let weigh = Edit::WeighBackend { cluster: "c".into(), backend: "a".into(), weight: 0 };
        let weighed = edited(&added, weigh).unwrap();
        assert_eq!(weighed.clusters[&Name::new("c")].backends, [backend("a", 0), backend("b", 2)]);
        let removed = edited(&added, Edit::RemoveBackend { cluster: "c".into(), backend: "b".into() }).unwrap();
        assert_eq!(removed, document());
    }

    #[test]
    fn a_backend_that_is_none_is_told_what_it_should_be() {
        for (wrong, part) in [
            (json!(7), "expected a backend: its address, as \"10.0.0.1:53\", or an object {address, "),
            (json!({"addr": "10.0.0.1:53"}), "unknown field `addr`, expected one of `name`, `address`, "),
            (json!({"name": "a"}), "missing field `address`"),
            (json!({"address": "10.0.0.1:53", "weight": "many"}), "invalid type: string \"many\", expected u32"),
        ] {
            let alone = serde_json::from_value::<NewBackend>(wrong.clone()).unwrap_err().to_string();
            let step = json!([{"change": "add_backend", "cluster": "c", "backend": wrong}]);
            let among = serde_json::from_value::<Vec<Edit>>(step).unwrap_err().to_string();
            assert!(alone.contains(part) && among.contains(part), "{alone}; {among}");
        }
        let address = "nonsense".parse::<BackendAddress>().unwrap_err().to_string();
        assert_eq!(serde_json::from_value::<NewBackend>(json!("nonsense")).unwrap_err().to_string(), address);
    }

    #[test]
    fn an_option_that_stands_twice_is_refused() {
        let step = r#"[{"change":"set","kind":"cluster","name":"c","value":{"balance":"least","balance":"random"}}]"#;
        let error = serde_json::from_str::<Vec<Edit>>(step).unwrap_err().to_string();
        assert!(error.contains("the key \"balance\" stands twice"), "{error}");
        let list = r#"["weigh_backend","c","a",9]"#;
        assert!(serde_json::from_str::<strict::Object<Edit>>(list).is_err(), "a change is an object");
        let object = r#"{"change":"weigh_backend","cluster":"c","backend":"a","weight":9}"#;
        assert!(serde_json::from_str::<strict::Object<Edit>>(object).is_ok());
    }

    #[test]
    fn edits_of_what_is_not_there_are_refused() {
        let no_cluster = edited(&document(), Edit::RemoveBackend { cluster: "x".into(), backend: "a".into() });
        assert!(matches!(no_cluster, Err(Refusal::Unknown { kind: "cluster", .. })));
        let weigh = Edit::WeighBackend { cluster: "c".into(), backend: "x".into(), weight: 1 };
        assert!(matches!(edited(&document(), weigh), Err(Refusal::Unknown { kind: "backend", .. })));
        let exists = edited(&document(), Edit::AddBackend { cluster: "c".into(), backend: backend("a", 7) });
        assert!(matches!(exists, Err(Refusal::Exists { .. })));
        let gone = edited(&document(), Edit::Remove { kind: Kind::Route, name: "r".into() });
        assert!(matches!(gone, Err(Refusal::Unknown { kind: "route", .. })));
        let set = Edit::Set { kind: Kind::Cluster, name: "x".into(), value: json!({}) };
        assert!(matches!(edited(&document(), set), Err(Refusal::Unknown { kind: "cluster", .. })));
        let section = edited(&document(), Edit::Remove { kind: Kind::Workers, name: "".into() });
        assert!(matches!(section, Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn objects_are_put_set_and_removed() {
        let put = |name: &str, value, fresh| {
            let (kind, name) = (Kind::Cluster, name.into());
            if fresh { Edit::Add { kind, name, value } } else { Edit::Put { kind, name, value } }
        };
        let added = edited(&document(), put("d", json!({"backends": ["127.0.0.1:54"]}), true)).unwrap();
        assert_eq!(added.clusters.len(), 2);
        let again = edited(&added, put("d", json!({"backends": ["127.0.0.1:54"]}), true)).unwrap();
        assert_eq!(again, added, "the same again is no change");
        let taken = edited(&added, put("d", json!({"backends": ["127.0.0.1:55"]}), true));
        assert!(matches!(taken, Err(Refusal::Taken { .. })));
        let replaced = edited(&added, put("d", json!({"backends": ["127.0.0.1:55"]}), false)).unwrap();
        assert_eq!(replaced.clusters[&Name::new("d")].backends[0].name.as_str(), "127.0.0.1:55");
        let set = |value| Edit::Set { kind: Kind::Cluster, name: "d".into(), value };
        let set_once = edited(&replaced, set(json!({"slow_start": "3s", "udp": {"requests": 2}}))).unwrap();
        let cluster = &set_once.clusters[&Name::new("d")];
        assert_eq!((cluster.udp.requests, cluster.backends.len()), (2, 1), "what isn't named stays");
        let set_back = edited(&set_once, set(json!({"slow_start": null, "udp": {"requests": null}}))).unwrap();
        assert_eq!(set_back, replaced);
        for (value, place) in [(json!({"helth": null}), "helth"), (json!({"health": {"tls": null}}), "health/tls")] {
            let wrong = edited(&set_back, set(value));
            let Err(Refusal::Invalid(errors)) = wrong else { panic!("an unknown key: {wrong:?}") };
            let error = errors.iter().next().unwrap();
            assert_eq!(error.place.pointer, format!("/clusters/d/{place}"));
            assert!(error.help.is_some());
        }
        assert_eq!(edited(&set_back, set(json!({"health": null, "udp": {"requests": null}}))).unwrap(), set_back);
        let nothing = json!({"health": {"tcp": {"port": null}}, "tls": null});
        assert_eq!(edited(&set_back, set(nothing)).unwrap(), set_back, "no table is made to take something out of");
        let some = edited(&set_back, set(json!({"health": {"tcp": {"port": null, "tls": true}}}))).unwrap();
        assert_eq!(some.clusters[&Name::new("d")].health.as_ref().unwrap().tcp.as_ref().unwrap().tls, Some(true));
        let follow = edited(&set_back, set(json!({"health": {"tcp": {}, "interval": "1s"}}))).unwrap();
        for (interval, timeout) in [("300ms", 150), ("10s", 2_000)] {
            let followed = edited(&follow, set(json!({"health": {"interval": interval}}))).unwrap();
            let health = followed.clusters[&Name::new("d")].health.as_ref().unwrap();
            assert_eq!(health.timeout.as_millis(), timeout, "left out, it follows `interval`");
        }
        let removed = edited(&set_back, Edit::Remove { kind: Kind::Cluster, name: "d".into() }).unwrap();
        assert_eq!(removed, document());
        let wrong = edited(&document(), put("e", json!({"backend": []}), false));
        let Err(Refusal::Invalid(errors)) = wrong else { panic!("an unknown key") };
        assert_eq!(errors.iter().next().map(|error| error.place.pointer.as_str()), Some("/clusters/e/backend"));
    }
}
