//! Every document in `errors/` is refused, with exactly the messages that stand beside it.
//! `KAKEI_BLESS=1 cargo test -p kakei-config` writes them anew; read the difference before committing it.

use std::fs;
use std::path::Path;

use kakei_config::{Diagnostics, parse_json, parse_toml};

fn refuse(path: &Path, text: &str) -> Diagnostics {
    let read =
        if path.extension().is_some_and(|extension| extension == "json") { parse_json(text) } else { parse_toml(text) };
    read.expect_err(&format!("{} is accepted", path.display()))
}

#[test]
fn bad_documents_are_refused_with_these_messages() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let bless = std::env::var_os("KAKEI_BLESS").is_some();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension == "txt") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let drawn = refuse(&path, &text).render(name, &text, false);
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &drawn).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != drawn {
            wrong.push(drawn);
        }
    }
    assert!(seen >= 14, "only {seen} documents were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn the_json_form_has_pointers_and_positions() {
    let text = "[clusters.\"a/b\"]\nbackends = [\"10.0.0.1:53\", \"x\", \"10.0.0.1:53\"]\n";
    let json = parse_toml(text).unwrap_err().to_json();
    let places: Vec<_> =
        json.as_array().unwrap().iter().map(|e| (e["pointer"].as_str().unwrap(), &e["line"], &e["column"])).collect();
    assert_eq!(places[0], ("/clusters/a~1b/backends/1", &2.into(), &28.into()));
    assert_eq!(places[1], ("/clusters/a~1b/backends/2", &2.into(), &33.into()));
    assert_eq!(json[1]["related"][0]["pointer"], "/clusters/a~1b/backends/0");
    assert_eq!(json[0]["help"], "write `x:53` for port 53");
}

#[test]
fn errors_are_counted_even_where_they_are_not_kept() {
    let lines: String = (0..300).map(|n| format!("key{n} = 1\n")).collect();
    let diagnostics = parse_toml(&lines).unwrap_err();
    assert_eq!((diagnostics.iter().count(), diagnostics.count()), (100, 300));
    assert!(
        diagnostics.render("x.toml", &lines, false).ends_with("error: 300 errors in x.toml; the first 100 are shown\n")
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is tested is what it costs")]
fn many_errors_cost_no_more_than_as_many_objects() {
    let begun = std::time::Instant::now();
    for (text, all) in [
        (|n| format!("[clusters.c{n}]\nbackends = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n"), 60_000),
        (|n| format!("[listeners.l{n}]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:1\"]\n"), 30_000),
    ] as [(fn(usize) -> String, usize); 2]
    {
        let text: String = (0..all).map(text).collect();
        let diagnostics = parse_toml(&text).unwrap_err();
        assert_eq!(diagnostics.iter().count(), 100);
        assert!(diagnostics.count() >= all - 1, "{}", diagnostics.count());
        assert!(diagnostics.iter().all(|one| one.place.position.is_some()), "each that is kept has its place");
    }
    assert!(begun.elapsed().as_secs() < 40, "{:?}", begun.elapsed());
}

#[test]
fn a_document_that_is_too_long_is_refused_unread() {
    let text = "#".repeat(kakei_config::MAX_DOCUMENT_BYTES + 1);
    assert!(parse_toml(&text).unwrap_err().to_string().contains("134217728"));
    assert!(parse_json(&text).unwrap_err().to_string().contains("134217728"));
}
