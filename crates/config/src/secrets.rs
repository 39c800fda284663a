//! The document as it is shown to those who may look and change nothing: secrets that stand in it are hidden. What it names
//! is not looked at: what is in files is not in the document.

use std::collections::BTreeMap;
use std::iter;

use crate::diff::{Change, Edit, FieldChange, Kind, diff};
use crate::model::{Cluster, Document, Listener, Name, Pem};
use crate::tree::{Node, Value};

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

impl Document {
    /// The same without private keys, hashes of passwords and secrets that stand in it. It shares what has none of these.
    pub fn without_secrets(&self) -> Document {
        let mut shown = self.clone();
        self.hide_keys(&mut shown);
        for (name, _) in self.routes.iter().filter(|(_, route)| route.auth.basic.is_some()) {
            let users = shown.routes.get_mut(name).and_then(|route| route.auth.basic.as_mut());
            users.into_iter().flat_map(|basic| basic.users.values_mut()).for_each(|hash| *hash = HIDDEN.to_owned());
        }
        for (name, _) in self.clusters.iter().filter(|(_, cluster)| cluster.http.sticky.is_some()) {
            let sticky = shown.clusters.get_mut(name).and_then(|cluster| cluster.http.sticky.as_mut());
            sticky.into_iter().for_each(|sticky| sticky.secret = HIDDEN.to_owned());
        }
        shown
    }

    /// Private keys, also where none belongs.
    fn hide_keys(&self, shown: &mut Document) {
        let has_key = Pem::has_private_key;
        for (name, certificate) in self.certificates.iter() {
            let (in_chain, in_key) = (has_key(&certificate.chain), matches!(certificate.key, Pem::Text(_)));
            if !in_chain && !in_key {
                continue;
            }
            if let Some(shown) = shown.certificates.get_mut(name) {
                hide(in_chain.then_some(&mut shown.chain));
                hide(in_key.then_some(&mut shown.key));
            }
        }
        let asked = |listener: &Listener| listener.tls.as_ref()?.client_certificates.clone();
        for (name, mut asked) in self.listeners.iter().filter_map(|(name, listener)| Some((name, asked(listener)?))) {
            if iter::once(&asked.ca).chain(&asked.crls).any(has_key) {
                hide(iter::once(&mut asked.ca).chain(&mut asked.crls).filter(|pem| has_key(pem)));
                let tls = shown.listeners.get_mut(name).and_then(|listener| listener.tls.as_mut());
                tls.into_iter().for_each(|tls| tls.client_certificates = Some(asked.clone()));
            }
        }
        let trusts = |cluster: &Cluster| cluster.tls.as_ref().and_then(|tls| tls.ca.as_ref()).is_some_and(has_key);
        for (name, _) in self.clusters.iter().filter(|(_, cluster)| trusts(cluster)) {
            let tls = shown.clusters.get_mut(name).and_then(|cluster| cluster.tls.as_mut());
            hide(tls.and_then(|tls| tls.ca.as_mut()));
        }
        let tcp = shown.admin.tcp.iter_mut();
        hide(tcp.flat_map(|tcp| iter::once(&mut tcp.ca).chain(&mut tcp.crls)).filter(|pem| has_key(pem)));
    }
}

/// What differs, as it is shown to those who may look and change nothing: that a secret is another one, and neither of the two.
pub fn diff_without_secrets(a: &Document, b: &Document) -> Vec<Change> {
    let shown = diff(&a.without_secrets(), &b.without_secrets());
    let mut shown: BTreeMap<(Kind, Name), Change> =
        shown.into_iter().map(|change| ((change.kind(), change.name().clone()), change)).collect();
    let whole = diff(a, b).into_iter();
    whole.map(|change| veiled(&change, shown.remove(&(change.kind(), change.name().clone())))).collect()
}

/// A change by what is shown of it, and by the names of those options of which nothing is.
fn veiled(change: &Change, shown: Option<Change>) -> Change {
    let Change::Changed { kind, name, edits } = change else {
        return shown.unwrap_or(Change::Removed { kind: change.kind(), name: change.name().clone() });
    };
    let mut seen = match shown {
        Some(Change::Changed { edits, .. }) => edits,
        Some(shown) => return shown,
        None => Vec::new(),
    };
    let is_seen = |edit: &Edit, field: &str| matches!(edit, Edit::Field(other) if other.field == field);
    for edit in edits {
        if let Edit::Field(FieldChange { field, .. }) = edit
            && !seen.iter().any(|edit| is_seen(edit, field))
        {
            let hidden = || Some(Node::from(Value::text(HIDDEN)));
            seen.push(Edit::Field(FieldChange { field: field.clone(), before: hidden(), after: hidden() }));
        }
    }
    Change::Changed { kind: *kind, name: name.clone(), edits: seen }
}

fn hide<'a>(pems: impl IntoIterator<Item = &'a mut Pem>) {
    pems.into_iter().for_each(|pem| *pem = Pem::File(HIDDEN.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdminTcp, Certificate, ClientCertificates, ClusterTls, ListenerTls};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_private_key_is_hidden_wherever_it_stands() {
        for kind in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            let both = format!("{CERTIFICATE}-----BEGIN {kind}-----\nSECRET\n-----END {kind}-----\n");
            let half = format!("{CERTIFICATE}SECRET\n-----END {kind}-----\n");
            for text in [both, half] {
                let (key, plain) = (Pem::Text(text), Pem::Text(CERTIFICATE.to_owned()));
                let crls = vec![plain.clone(), key.clone()];
                let certificate = Certificate { chain: key.clone(), key: key.clone(), ocsp: None };
                let asked = ClientCertificates { ca: key.clone(), crls: crls.clone(), ..Default::default() };
                let tls = Some(ListenerTls { client_certificates: Some(asked), ..ListenerTls::default() });
                let ca = Some(key.clone());
                let mut document = Document {
                    certificates: [("a".into(), certificate)].into(),
                    listeners: [("l".into(), Listener { tls, ..Listener::default() })].into(),
                    clusters: [(
                        "c".into(),
                        Cluster { tls: Some(ClusterTls { ca, ..Default::default() }), ..Default::default() },
                    )]
                    .into(),
                    ..Document::default()
                };
                document.admin.tcp = Some(AdminTcp { ca: key, crls, ..AdminTcp::default() });
                assert_eq!(document.to_toml().matches("SECRET").count(), 7);
                let shown = document.without_secrets().to_toml();
                assert!(!shown.contains("SECRET"), "{shown}");
                assert_eq!((shown.matches(HIDDEN).count(), shown.matches("MIIC").count()), (7, 2), "{shown}");
            }
        }
    }

    #[test]
    fn that_a_secret_is_another_one_is_shown() {
        let read = |key: &str, secret: &str, more: &str| {
            let text = format!(
                "[certificates.a]\nchain = \"a.pem\"\nkey = '''-----BEGIN PRIVATE KEY-----\n{key}'''\n\
                 [clusters.c]\nhttp = {{ sticky = {{ secret = \"{secret}\" }} }}\n{more}"
            );
            crate::parse_toml(&text).expect("it is valid")
        };
        let (one, other) = (read("KEY1", "a secret of its own, 1", ""), read("KEY2", "a secret of its own, 2", ""));
        let changes = diff_without_secrets(&one, &other);
        let lines: Vec<String> = changes.iter().flat_map(Change::lines).collect();
        let expected = ["cluster c: http.sticky.secret is another one", "certificate a: key (hidden) -> (hidden)"];
        assert_eq!(lines, expected);
        let written = serde_json::to_string(&changes).unwrap();
        assert!(!written.contains("KEY") && !written.contains("of its own"), "{written}");
        assert!(diff_without_secrets(&one, &one).is_empty());

        let more = read(
            "KEY1",
            "a secret of its own, 2",
            "balance = \"least\"\n[clusters.d]\nhttp = { sticky = { secret = \"a secret of its own, 3\" } }\n",
        );
        let changes = diff_without_secrets(&one, &more);
        let lines: Vec<String> = changes.iter().flat_map(Change::lines).collect();
        let expected = [
            "cluster c: balance round_robin -> least",
            "cluster c: http.sticky.secret is another one",
            "cluster d: added",
        ];
        assert_eq!(lines, expected);
        assert!(!serde_json::to_string(&changes).unwrap().contains("of its own"));
    }

    #[test]
    fn what_holds_no_secret_is_shared() {
        let certificate = |key| Certificate { chain: Pem::Text(CERTIFICATE.to_owned()), key, ocsp: None };
        let certificates = [
            ("file".into(), certificate(Pem::File("a.key".into()))),
            ("text".into(), certificate(Pem::Text("-----BEGIN PRIVATE KEY-----".into()))),
        ];
        let document = Document { certificates: certificates.into(), ..Document::default() };
        let shown = document.without_secrets();
        let differing: Vec<&str> =
            document.certificates.differences(&shown.certificates).map(|(name, ..)| name.as_str()).collect();
        assert_eq!(differing, ["text"]);
    }
}
