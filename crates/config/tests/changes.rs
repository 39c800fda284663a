//! How differences are said, and what refuses to be applied.

use kakei_config::*;

const BASE: &str = r#"
[listeners.dns]
protocol = "udp"
bind = ["127.0.0.1:53"]
cluster = "resolvers"
[clusters.resolvers]
backends = [{ name = "a", address = "10.0.0.10:53" }, { name = "b", address = "10.0.0.11:53" }, "10.0.0.12:53"]
health = { udp = { send_text = "x" } }
[clusters.old]
"#;

fn told(edited: &str) -> Vec<String> {
    let read = |text| parse_toml(text).expect("it is valid");
    let changes = diff(&read(BASE), &read(edited));
    changes.iter().flat_map(|change| change.to_string().lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn a_value_makes_one_change_whatever_stands_in_it() {
    let edited = r#"
[listeners.dns]
protocol = "udp"
bind = ["127.0.0.1:53"]
cluster = "resolvers"
[listeners.web]
protocol = "http"
bind = ["127.0.0.1:80"]
[routes.hi]
listener = "web"
respond = { body = "hi" }
[clusters.resolvers]
backends = ["10.0.0.12:53"]
[clusters.old]
backends = ["10.0.0.13:53"]
"#;
    let read = |text: &str| parse_toml(text).expect("it is valid");
    let body = edited.replace("\"hi\"", "\"x\\nlistener web: removed\\r\\u001b[31mred\\u2028\\u202e \\\\n é\"");
    let forged = body.replace("[\"10.0.0.13:53\"]", "[\"10.0.0.13:53\", \"unix:/tmp/a\\nb\"]");
    let changes = diff(&read(edited), &read(&forged));
    let lines: Vec<String> = changes.iter().flat_map(Change::lines).collect();
    let (address, shown) = ("unix:/tmp/a\\nb", r"x\nlistener web: removed\r\u{1b}[31mred\u{2028}\u{202e} \n é");
    let expected = [
        format!("route hi: respond.body hi -> {shown}"),
        format!("cluster old: backend {address} added ({address}, weight 1)"),
    ];
    assert_eq!(lines, expected);
    let written: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(written, expected);
}

#[test]
fn changes_are_said_in_plain_words() {
    let edited = r#"
[workers]
count = 4
[access_log]
to = "stdout"
[listeners.dns]
protocol = "udp"
bind = ["127.0.0.1:53", "[::1]:53"]
limits.flows = 5000
[listeners.syslog]
protocol = "udp"
bind = ["127.0.0.1:514"]
[clusters.resolvers]
backends = ["10.0.0.12:53", { name = "b", address = "10.0.0.11:53", weight = 2 }, { name = "c", address = "10.0.0.13:53", weight = 5, backup = true }]
udp = { responses = 1, lifetime = "1m30s" }
health = { udp = { send_hex = "00" }, tcp = {} }
"#;
    let expected = [
        "workers: count auto -> 4",
        "access_log: to unset -> stdout",
        "listener dns: bind [\"127.0.0.1:53\"] -> [\"127.0.0.1:53\",\"[::1]:53\"]",
        "listener dns: cluster resolvers -> unset",
        "listener dns: limits.flows 100000 -> 5000",
        "listener syslog: added",
        "cluster old: removed",
        "cluster resolvers: udp.responses 0 -> 1",
        "cluster resolvers: udp.lifetime none -> 1m30s",
        "cluster resolvers: health.udp.send_text x -> unset",
        "cluster resolvers: health.udp.send_hex unset -> 00",
        "cluster resolvers: health.tcp unset -> {}",
        "cluster resolvers: backend a removed (10.0.0.10:53)",
        "cluster resolvers: backend b: weight 1 -> 2",
        "cluster resolvers: backend c added (10.0.0.13:53, weight 5, backup)",
        "cluster resolvers: backends in another order",
    ];
    assert_eq!(told(edited), expected);
}

#[test]
fn backends_that_come_and_go_leave_the_others_in_their_order() {
    let kept = BASE.replace("{ name = \"b\",", "\"10.0.0.1:53\", \"10.0.0.2:53\", { name = \"b\",");
    let expected = [
        "cluster resolvers: backend 10.0.0.1:53 added (10.0.0.1:53, weight 1)",
        "cluster resolvers: backend 10.0.0.2:53 added (10.0.0.2:53, weight 1)",
    ];
    assert_eq!(told(&kept), expected);
}

#[test]
fn a_change_is_plain_json() {
    let document = parse_toml(BASE).unwrap();
    let mut edited = document.clone();
    edited.clusters.get_mut(&Name::new("resolvers")).unwrap().backends.remove(1);
    edited.listeners.get_mut(&Name::new("dns")).unwrap().limits.flows = 7;
    let json = serde_json::to_value(diff(&document, &edited)).unwrap();
    let expected = serde_json::json!([
        { "change": "changed", "kind": "listener", "name": "dns",
          "edits": [{ "edit": "field", "field": "limits.flows", "before": 100_000, "after": 7 }] },
        { "change": "changed", "kind": "cluster", "name": "resolvers",
          "edits": [{ "edit": "backend_removed",
                      "backend": { "name": "b", "address": "10.0.0.11:53", "weight": 1, "backup": false } }] },
    ]);
    assert_eq!(json, expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let document = parse_toml(BASE).unwrap();
    let refused = |change: Change| apply(&[change], &document).unwrap_err().to_string();
    let (kind, name) = (Kind::Cluster, Name::new("old"));
    let field = |field: &str, after| Edit::Field(FieldChange { field: field.into(), before: None, after: Some(after) });
    let value = Value::Table(Vec::new()).into();
    assert_eq!(refused(Change::Added { kind, name: name.clone(), value }), "cluster old exists already");
    assert_eq!(refused(Change::Removed { kind: Kind::Route, name: name.clone() }), "there is no route old");
    let backend = document.clusters[&Name::new("resolvers")].backends[0].clone();
    let edits = vec![Edit::BackendRemoved { backend }];
    let gone = refused(Change::Changed { kind, name: name.clone(), edits });
    assert_eq!(gone, "cluster old: backend a isn't as the change expects");
    let edits = vec![field("udp.responses", Value::Bool(true).into())];
    let wrong = refused(Change::Changed { kind, name: name.clone(), edits });
    assert_eq!(
        wrong,
        "cluster old: `udp.responses` must be a whole number from 0 to 4294967295, found the flag `true`"
    );
    let edits = vec![field("colour.of", Value::Bool(true).into())];
    assert!(refused(Change::Changed { kind, name, edits }).starts_with("cluster old: unknown key `colour`"));
}

#[test]
fn a_document_built_by_hand_is_checked_as_a_written_one() {
    let mut document = parse_toml(BASE).unwrap();
    check(&document).unwrap();
    document.clusters.get_mut(&Name::new("resolvers")).unwrap().backends[0].weight = 999;
    document.listeners.get_mut(&Name::new("dns")).unwrap().cluster = Some(Name::new("resolver"));
    let found = check(&document).unwrap_err();
    let pointers: Vec<&str> = found.iter().map(|diagnostic| diagnostic.place.pointer.as_str()).collect();
    assert_eq!(pointers, ["/clusters/resolvers/backends/0/weight", "/listeners/dns/cluster"]);
    assert!(found.render("the change", "", false).contains("in the change, at /listeners/dns/cluster"));
}

#[test]
fn keys_that_an_operator_chose_may_have_any_sign() {
    let document = |query: &str| {
        let listener = "[listeners.x]\nprotocol = \"http\"\nbind = [\"[::1]:0\"]\n";
        parse_toml(&format!("{listener}[routes.r]\nlistener = \"x\"\nquery = {{ {query} }}\nrespond = {{}}\n")).unwrap()
    };
    let a = document(r#""a.b" = true, "a" = "1", "\"" = true, "é c" = true"#);
    let b = document(r#""a.b" = "2", "\"x.\\" = true, "\"" = "3", "" = true"#.replace("\"\" =", "\"...\" =").as_str());
    let changes = diff(&a, &b);
    let said: Vec<String> = changes[0].to_string().lines().map(str::to_owned).collect();
    assert!(said.contains(&"route r: query.\"a.b\" true -> 2".to_owned()), "{said:?}");
    assert_eq!(apply(&changes, &a).unwrap(), b);
    assert_eq!(apply(&diff(&b, &a), &b).unwrap(), a);
}
