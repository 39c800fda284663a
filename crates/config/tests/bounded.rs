//! No document costs more than its length: nesting, errors, suggestions and drawing are bounded.

use kakei_config::{MAX_DIAGNOSTICS, parse_json, parse_toml};

/// Texts that make a careless reader recurse, compare every pair, or copy the document for each error.
fn hostile(size: usize) -> Vec<(&'static str, String)> {
    let fill = |piece: &str| piece.repeat(size / piece.len() + 1);
    let listed = |line: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        (0..)
            .map(line)
            .take_while(|line| {
                let fits = text.len() < size;
                text.push_str(line);
                fits
            })
            .for_each(drop);
        text
    };
    vec![
        ("open brackets", format!("x = {}", fill("["))),
        ("open tables", format!("x = {}", fill("{a="))),
        ("dotted key", format!("{} = 1", fill("a."))),
        ("dotted header", format!("[{}a]", fill("a."))),
        (
            "dots in tables in lists",
            fill("[a.b.c.d.e.f.g.h.i.j.k.l.m.n.o]\np.p.p.p = {q.q.q.q = [{r.r.r.r = [{s.s.s = 1}]}]}\n"),
        ),
        ("one long key", format!("{} = 1", fill("k"))),
        ("one long key with children", format!("[clusters.{}]\n{}", fill("k"), fill("x = 1\n"))),
        ("one long line", format!("x = [{}]", fill("\"10.0.0.1:53\", "))),
        ("unknown keys", listed(&|n| format!("liztener{n} = 1\n"))),
        ("long unknown keys", listed(&|n| format!("{}{n} = 1\n", "x".repeat(120)))),
        ("the same key", fill("a = 1\n")),
        ("syntax errors", fill("= = =\n")),
        ("quotes", fill("'\n")),
        ("open multi-line string", fill("\"\"\"\"\n")),
        (
            "dangling clusters",
            listed(&|n| {
                format!(
                    "[listeners.l{n}]\nprotocol = 'udp'\nbind = ['10.{}.{}.{}:1']\ncluster = 'resolverz{n}'\n[clusters.resolvers{n}]\n",
                    n >> 16,
                    n >> 8 & 255,
                    n & 255
                )
            }),
        ),
        (
            "one address bound again and again",
            format!("[listeners.l]\nprotocol = 'udp'\nbind = [{}]", fill("'10.0.0.1:53',")),
        ),
        ("bad backends", format!("[clusters.c]\nbackends = [{}]", fill("'10.0.0.1:53','x',"))),
        (
            "routes that match the same",
            listed(&|n| format!("[routes.r{n}]\nlistener = 'w'\npath = '/x'\nrespond = {{}}\n"))
                + "[listeners.w]\nprotocol = 'http'\nbind = ['[::1]:1']\n",
        ),
        ("routes without an action", listed(&|n| format!("[routes.r{n}]\nlistener = 'w'\n"))),
        (
            "large expressions",
            listed(&|n| {
                format!("[routes.r{n}]\nlistener = 'w'\npath = {{ regex = '/{n}\\w{{40}}' }}\nrespond = {{}}\n")
            }),
        ),
        ("tables in a list", fill("[[listeners]]\n")),
        ("digits", format!("x = {}", fill("9"))),
        (
            "a long duration",
            format!("[listeners.l]\nprotocol = 'udp'\nbind = ['[::1]:1']\ndrain_timeout = '{}'", fill("1s")),
        ),
    ]
}

#[test]
fn hostile_documents_are_refused_within_bounds() {
    for (what, text) in hostile(200_000) {
        let Err(diagnostics) = parse_toml(&text) else { panic!("{what} is accepted") };
        assert!(diagnostics.iter().count() <= MAX_DIAGNOSTICS, "{what}");
        let drawn = diagnostics.render("x.toml", &text, false);
        assert!(drawn.len() <= 200_000, "{what}: {} bytes are drawn", drawn.len());
        assert!(diagnostics.to_json().to_string().len() <= 200_000, "{what}");
    }
}

#[test]
fn hostile_json_is_refused_within_bounds() {
    let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000), format!("{{\"x\":[{}", "[],".repeat(100_000))];
    for text in deep {
        assert_eq!(parse_json(&text).unwrap_err().count(), 1);
    }
    let doubled = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(100_000));
    assert_eq!(parse_json(&doubled).unwrap_err().count(), 100_001);
}

#[test]
fn as_deep_as_a_document_may_nest_is_read() {
    let text = "[a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p]\n".to_owned()
        + &"q.q.q.q.q.q.q.q.q.q.q.q.q.q.q.q = {".repeat(16)
        + &"}".repeat(16);
    let read = std::thread::Builder::new().stack_size(512 << 10).spawn(move || parse_toml(&text).unwrap_err()).unwrap();
    assert_eq!(
        read.join().unwrap().to_string(),
        "1:2: unknown key `a` (known keys: `admin`, `workers`, `access_log`, `listeners`, `routes`, `clusters`, `certificates`)"
    );
}

/// Routes of one path with many hosts, methods and sources each, which have no source in common.
fn crowded(routes: usize, hosts: usize, methods: usize, sources: usize) -> String {
    let list = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(|n| format!("'{}',", item(n))).collect::<String>();
    let mut text = "[listeners.w]\nprotocol = 'http'\nbind = ['[::1]:1']\n".to_owned();
    for route in 0..routes {
        let hosts = list(hosts, &|n| format!("h{n}.test"));
        let methods = list(methods, &|n| format!("M{n}"));
        let sources = list(sources, &|n| format!("10.{route}.{}.{}", n >> 8, n & 255));
        text += &format!(
            "[routes.r{route}]\nlistener = 'w'\nhost = [{hosts}]\nmethod = [{methods}]\nsource = [{sources}]\nrespond = {{}}\n"
        );
    }
    text
}

#[test]
fn combinations_of_hosts_methods_and_sources_are_bounded() {
    assert!(parse_toml(&crowded(3, 20, 5, 300)).is_ok());
    let found = parse_toml(&crowded(8, 300, 100, 300)).unwrap_err();
    assert_eq!(found.count(), 1);
    assert!(found.to_string().contains("too many combinations"), "{found}");
}

#[test]
fn as_many_routes_as_a_document_holds_are_compared_one_by_one() {
    let mut text = "[listeners.w]\nprotocol = 'http'\nbind = ['[::1]:1']\n[clusters.c]\n".to_owned();
    for n in 0..100_000 {
        text += &format!("[routes.r{n}]\nlistener = 'w'\nhost = ['h{n}.test']\npath = '/x'\ncluster = 'c'\n");
    }
    let document = parse_toml(&text).unwrap();
    assert_eq!(document.routes.len(), 100_000);
}
