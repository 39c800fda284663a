//! The document as it is shown to those who may look and change nothing: secrets that stand in it are hidden. What it names
//! is not looked at: what is in files is not in the document.

use std::iter;

use crate::model::{Cluster, Document, Listener, Pem};

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
