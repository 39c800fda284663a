//! What holds for all documents and all texts: writing and reading agree, a diff makes one document of another, nothing
//! that is read panics.

mod arbitrary;

use arbitrary::{SEEDS, document, relatives};
use kakei_config::*;
use proptest::prelude::*;

/// What every reader of errors relies on, whatever the text was.
fn sound(text: &str, read: Result<Document, Diagnostics>) -> Result<(), TestCaseError> {
    let diagnostics = match read {
        Ok(document) => {
            prop_assert_eq!(check(&document).map_err(|found| found.to_string()), Ok(()));
            return Ok(());
        }
        Err(diagnostics) => diagnostics,
    };
    prop_assert!(diagnostics.count() > 0);
    let starts: Vec<usize> =
        diagnostics.iter().filter_map(|d| d.place.position.as_ref()).map(|position| position.span.start).collect();
    prop_assert!(starts.is_sorted());
    for diagnostic in diagnostics.iter() {
        let position = diagnostic.place.position.as_ref().expect("it was read from text");
        prop_assert!(text.get(position.span.clone()).is_some(), "{:?} of {:?}", position, text);
        prop_assert_eq!(position.line, text[..position.span.start].matches('\n').count() + 1);
        prop_assert!(!diagnostic.message.contains('\n'), "{}", diagnostic.message);
    }
    let drawn = diagnostics.render("f", text, false);
    prop_assert!(drawn.contains("in f"));
    diagnostics.render("f", "another\ntext", true);
    diagnostics.to_json();
    Ok(())
}

/// A text with a few places cut out, doubled or overwritten.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[\\[\\]{}=\".,#\n'0-9a-z -]{0,6}",
        Just("\"\"\"".to_owned()),
        Just("'é\u{0}\u{202e}'".to_owned()),
        Just("99999999999999999999999999999999999999999999".to_owned()),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece), 1..6);
    (prop::sample::select(SEEDS), edits).prop_map(|(seed, edits)| {
        let mut chars: Vec<char> = seed.chars().collect();
        for (at, cut, piece) in edits {
            let at = at.index(chars.len() + 1).min(chars.len());
            let end = (at + cut).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever is written is valid by the JSON Schema, and so is what is shown to those who may only look.
    #[test]
    fn every_document_is_what_its_schema_says(document in arbitrary::document()) {
        thread_local!(static VALIDATOR: jsonschema::Validator =
            jsonschema::draft202012::new(&kakei_config::json_schema()).unwrap());
        for document in [&document, &document.without_secrets()] {
            let json = document.to_json_value();
            let wrong: Vec<String> =
                VALIDATOR.with(|validator| validator.iter_errors(&json).map(|error| error.to_string()).collect());
            prop_assert!(wrong.is_empty(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back(document in document()) {
        let toml = document.to_toml();
        prop_assert_eq!(parse_toml(&toml).map_err(|e| e.render("toml", &toml, false)), Ok(document.clone()));
        let json = document.to_json_value().to_string();
        prop_assert_eq!(parse_json(&json).map_err(|e| e.render("json", &json, false)), Ok(document.clone()));
        prop_assert_eq!(check(&document).map_err(|e| e.to_string()), Ok(()));
        prop_assert_eq!(parse_toml(&toml).unwrap().to_toml(), toml);
    }

    #[test]
    fn a_diff_makes_one_document_of_another((a, b) in prop_oneof![(document(), document()), relatives()]) {
        let changes = diff(&a, &b);
        prop_assert_eq!(changes.is_empty(), a == b);
        prop_assert_eq!(apply(&changes, &a).map_err(|e| e.to_string()), Ok(b));
        prop_assert!(serde_json::to_string(&changes).is_ok());
        prop_assert!(changes.iter().all(|change| !change.to_string().is_empty()));
    }

    #[test]
    fn nothing_differs_from_itself(a in document()) {
        prop_assert_eq!(diff(&a, &a), vec![]);
        prop_assert_eq!(apply(&[], &a).map_err(|e| e.to_string()), Ok(a));
    }

    #[test]
    fn arbitrary_text_is_read_or_refused(text in any::<String>()) {
        sound(&text, parse_toml(&text))?;
        sound(&text, parse_json(&text))?;
    }

    #[test]
    fn text_like_a_document_is_read_or_refused(text in "([a-z\\[\\]{}=\"., #'0-9:/-]|listeners|routes|clusters|bind|udp|health|\n){0,80}") {
        sound(&text, parse_toml(&text))?;
        sound(&text, parse_json(&text))?;
    }

    #[test]
    fn a_mutated_document_is_read_or_refused(text in mutated()) {
        sound(&text, parse_toml(&text))?;
    }

    #[test]
    fn a_mutated_json_document_is_read_or_refused(
        document in document(), at in any::<prop::sample::Index>(), cut in 0usize..9, piece in "[\\[\\]{}:\", a0-9-]{0,4}"
    ) {
        let mut chars: Vec<char> = document.to_json_value().to_string().chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, piece.chars());
        let text: String = chars.into_iter().collect();
        sound(&text, parse_json(&text))?;
    }
}

/// Something that a change may do to a document, for better or worse.
#[derive(Clone, Copy, Debug)]
struct Stroke {
    what: u8,
    at: prop::sample::Index,
    other: prop::sample::Index,
}

fn stroke() -> impl Strategy<Value = Stroke> {
    (0u8..14, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(what, at, other)| Stroke {
        what,
        at,
        other,
    })
}

fn pick<T: Clone>(objects: &Objects<T>, at: prop::sample::Index) -> Option<Name> {
    (!objects.is_empty()).then(|| objects.keys().nth(at.index(objects.len())).cloned()).flatten()
}

/// The document after this stroke; other objects come from `store`.
fn stricken(document: &Document, store: &Document, Stroke { what, at, other }: Stroke) -> Option<Document> {
    let mut next = document.clone();
    match what {
        0 => drop(next.routes.remove(&pick(&next.routes, at)?)?),
        1 => drop(next.clusters.remove(&pick(&next.clusters, at)?)?),
        2 => drop(next.listeners.remove(&pick(&next.listeners, at)?)?),
        3 => drop(next.certificates.remove(&pick(&next.certificates, at)?)?),
        4 => {
            let route = next.routes[&pick(&next.routes, at)?].clone();
            next.routes.insert("copy".into(), route);
        }
        5 => {
            let name = pick(&next.routes, at)?;
            next.routes.get_mut(&name)?.cluster = Some(pick(&next.clusters, other).unwrap_or_else(|| "missing".into()));
        }
        6 => {
            let (name, listener) = (pick(&next.routes, at)?, pick(&next.listeners, other)?);
            next.routes.get_mut(&name)?.listener = listener;
        }
        7 | 8 => {
            let name = pick(&next.listeners, at)?;
            let listener = next.listeners.get_mut(&name)?;
            listener.protocol = match (listener.protocol, what) {
                (Protocol::Udp, 7) | (Protocol::Http, _) => Protocol::Tcp,
                (Protocol::Udp, _) | (Protocol::Tcp, 7) => Protocol::Http,
                (Protocol::Tcp, _) => Protocol::Udp,
            };
        }
        9 => {
            let (name, bind) =
                (pick(&next.listeners, at)?, next.listeners[&pick(&next.listeners, other)?].bind.clone());
            next.listeners.get_mut(&name)?.bind.extend(bind.first());
        }
        10 => {
            let name = pick(&next.clusters, at)?;
            let backend = Backend::at(BackendAddress::Unix("/run/local.sock".into()));
            next.clusters.get_mut(&name)?.backends.push(backend);
        }
        11 => {
            let name = pick(&store.listeners, at)?;
            next.listeners.insert(name.clone(), store.listeners[&name].clone());
        }
        12 => {
            let name = pick(&store.routes, at)?;
            let listener = pick(&next.listeners, other)?;
            next.routes.insert(name.clone(), Route { listener, ..store.routes[&name].clone() });
        }
        _ => {
            let name = pick(&store.clusters, at)?;
            next.clusters.insert(name.clone(), store.clusters[&name].clone());
        }
    }
    Some(next)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_change_is_judged_as_the_whole_document_is(
        document in document(), store in document(), strokes in proptest::collection::vec(vec_of_strokes(), 1..12)
    ) {
        let mut runs = Checked::of_valid(document);
        for strokes in strokes {
            let start = Some(runs.document().clone());
            let next = strokes.into_iter().fold(start, |next, stroke| {
                let next = next?;
                Some(stricken(&next, &store, stroke).unwrap_or(next))
            });
            let next = next.unwrap_or_default();
            let verdict = check(&next);
            match read_apart(&next) {
                Ok(read) => prop_assert_eq!(Checked::of_objects(read).map(|_| ()), verdict.clone()),
                Err(_) => prop_assert!(verdict.is_err()),
            }
            match (runs.next(next.clone()), verdict) {
                (Ok(then), Ok(())) => runs = then,
                (Err(found), Err(wrong)) => prop_assert_eq!(found, wrong),
                (found, wrong) => prop_assert!(false, "{:?} and {:?}", found.map(|_| ()), wrong),
            }
        }
    }
}

/// The same with every object read by itself.
fn read_apart(document: &Document) -> Result<Document, ApplyError> {
    let mut read = Document::default();
    for (kind, name, value) in document.objects() {
        put(kind, &name, Some(&value), &mut read)?;
    }
    Ok(read)
}

fn vec_of_strokes() -> impl Strategy<Value = Vec<Stroke>> {
    proptest::collection::vec(stroke(), 1..3)
}
