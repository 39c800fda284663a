//! The document of the design page (its UDP part) reads as the model that was meant.

use std::time::Duration;

use kakei_config::*;

const DNS: &str = r#"
[admin]
socket  = "kakei.sock"
metrics = "127.0.0.1:9180"
state   = "/var/lib/kakei"

[workers]
count = "auto"

[listeners.dns]
protocol = "udp"
bind     = ["0.0.0.0:5353", "[::]:5353"]
cluster  = "resolvers"
limits   = { flows = 100000, flows_per_source = 1000, new_flows_per_second = 0 }
max_datagram_size = "1500B"
proxy_protocol = { trusted = ["10.0.0.0/8", "192.0.2.1"] }

[routes.inside]
listener = "dns"
source = ["10.1.0.0/16"]
cluster = "resolvers"

[clusters.resolvers]
balance  = "hrw"
backends = ["10.0.0.10:53", { name = "b", address = "10.0.0.11:53", weight = 2, backup = false }]
udp      = { affinity = "source_ip", responses = 1, requests = 0, expects_reply = true, front_timeout = "30s", back_timeout = "1m30s", lifetime = "none",
             upstream = "per_flow", send_proxy_protocol = "off", on_backend_removed = "keep", on_backend_down = "keep" }
health   = { udp = { send_hex = "00 ff", expect = { prefix_text = "ok" } }, interval = "5s", timeout = "2s", rise = 2, fall = 3, fail_open = true }
"#;

#[test]
fn the_design_page_reads_as_meant() {
    let document = parse_toml(DNS).unwrap();
    let listener = &document.listeners[&Name::new("dns")];
    assert_eq!(listener.bind, ["0.0.0.0:5353".parse().unwrap(), "[::]:5353".parse().unwrap()]);
    assert_eq!(listener.limits, Limits { flows_per_source: 1_000, ..Limits::default() });
    assert_eq!((listener.max_datagram_size, listener.drain_timeout), (1_500, Duration::from_secs(30)));
    assert_eq!(listener.proxy_protocol.trusted, ["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()]);
    let cluster = &document.clusters[&Name::new("resolvers")];
    assert_eq!(cluster.balance, Balance::Hrw);
    assert_eq!(cluster.backends[0].name, Name::new("10.0.0.10:53"));
    assert_eq!((cluster.backends[0].weight, cluster.backends[1].weight), (1, 2));
    assert_eq!((cluster.udp.responses, cluster.udp.back_timeout), (1, Duration::from_secs(90)));
    let check = cluster.health.as_ref().unwrap().udp.as_ref().unwrap();
    assert_eq!((&check.send[..], &check.expect), (&[0, 255][..], &Expect::Prefix(b"ok".to_vec())));
    assert_eq!(document.routes[&Name::new("inside")].cluster, Name::new("resolvers"));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let document =
        parse_toml("[listeners.x]\nprotocol = \"udp\"\nbind = [\"[::1]:0\"]\n[clusters.c]\nbackends = [\"[::1]:5\"]")
            .unwrap();
    let listener = &document.listeners[&Name::new("x")];
    assert_eq!((listener.max_datagram_size, &listener.cluster, listener.limits), (65_507, &None, Limits::default()));
    let cluster = &document.clusters[&Name::new("c")];
    assert_eq!((&cluster.udp, &cluster.health, cluster.balance), (&UdpKnobs::default(), &None, Balance::RoundRobin));
    assert_eq!(cluster.backends[0].name, Name::new("[::1]:5"));
    assert_eq!(parse_toml("").unwrap(), Document::default());
    assert_eq!(parse_json("{}").unwrap(), Document::default());
}

#[test]
fn the_timeout_of_a_probe_follows_a_short_interval() {
    let timeout = |health: &str| {
        let document = parse_toml(&format!("[clusters.c.health]\ntcp = {{}}\n{health}")).unwrap();
        document.clusters[&Name::new("c")].health.as_ref().unwrap().timeout
    };
    assert_eq!(timeout(""), Duration::from_secs(2));
    assert_eq!(timeout("interval = \"3s\""), Duration::from_secs(2));
    assert_eq!(timeout("interval = \"2s\""), Duration::from_secs(1));
    assert_eq!(timeout("interval = \"100ms\""), Duration::from_millis(50));
    assert_eq!(timeout("interval = \"3s\"\ntimeout = \"2999ms\""), Duration::from_millis(2_999));
}

#[test]
fn wildcards_may_overlap_and_port_0_may_stand_on_different_addresses() {
    parse_toml("[listeners.x]\nprotocol = \"udp\"\nbind = [\"0.0.0.0:53\", \"127.0.0.1:53\", \"127.0.0.1:0\", \"127.0.0.2:0\"]").unwrap();
}
