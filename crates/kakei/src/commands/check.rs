//! `kakei check`: whether a document is valid, and what it names too. Binds and writes nothing.

use kakei::config::Diagnostics;
use serde_json::json;

use super::document::Source;
use crate::cli::{Check, Format};
use crate::say::{self, Failure};

pub(super) fn check(check: &Check) -> Result<(), Failure> {
    if check.output.output == Format::Json {
        let parsed = Source::look(&check.file).map_err(Diagnostics::unread).and_then(|source| source.whole());
        let errors = parsed.as_ref().err().map_or_else(|| json!([]), |errors| errors.to_json());
        let warnings = parsed.as_ref().map_or(&[][..], |(_, warnings)| warnings);
        say::out(&format!("{}\n", json!({"valid": parsed.is_ok(), "errors": errors, "warnings": warnings})));
        return match parsed {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::drawn(String::new())),
        };
    }
    let source = Source::read(&check.file)?;
    let (document, warnings) = source.whole().map_err(|errors| source.drawn(&errors))?;
    let backends: usize = document.clusters.values().map(|cluster| cluster.backends.len()).sum();
    say::out(&format!(
        "{} is valid: {}, {}, {}, {}\n",
        source.name,
        count(document.listeners.len(), "listener"),
        count(document.routes.len(), "route"),
        count(document.clusters.len(), "cluster"),
        count(backends, "backend")
    ));
    warnings.iter().for_each(|warning| say::err(&format!("warning: {warning}\n")));
    Ok(())
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
