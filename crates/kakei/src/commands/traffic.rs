//! `kakei plan --traffic`: what would become of what came lately, in words.

use serde_json::Value;

use super::change::words;

pub(super) fn told(traffic: &Value) -> String {
    if traffic.is_null() {
        return String::new();
    }
    let counts = |of: &Value| {
        format!("{} requests, {} connections and {} flows", of["requests"], of["connections"], of["flows"])
    };
    let (looked_at, changed) = (counts(&traffic["looked_at"]), counts(&traffic["changed"]));
    let seconds = traffic["seen_within_ms"].as_u64().unwrap_or_default().div_ceil(1_000);
    let mut text = format!("of {looked_at} in the last {seconds} s these would change: {changed}\n");
    for difference in traffic["differences"].as_array().into_iter().flatten() {
        let (from, to) = (led(&difference["from"]), led(&difference["to"]));
        let what = difference["what"].as_str().unwrap_or_default();
        text.push_str(&format!("  {} × {what}: {from}; would be: {to}\n", difference["count"]));
        words(&difference["examples"]).iter().for_each(|example| text.push_str(&format!("      {example}\n")));
    }
    let unknown = words(&traffic["unknown"]);
    if !unknown.is_empty() {
        text.push_str(&format!(
            "routes ask for what isn't kept of requests ({}): all were judged as if they had none of it\n",
            unknown.join(", ")
        ));
    }
    text
}

/// Where it goes, and by what.
fn led(to: &Value) -> String {
    let by = match (to["route"].as_str(), to["listener"].as_str()) {
        (Some(route), _) => format!(" by route {route}"),
        (None, Some(listener)) => format!(" by listener {listener}"),
        (None, None) => String::new(),
    };
    format!("{}{by}", to["to"].as_str().unwrap_or_default())
}
