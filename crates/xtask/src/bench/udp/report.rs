//! What was measured, as rows: medians over rounds, ratios to Kakei, a table for people and JSON for programs. Measures nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::peers::Peer;
use super::stand::Outcome;

/// The named figures of one measurement.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// One line of a table: a peer in a scenario, with the figures of each round.
pub(super) struct Row {
    pub(super) study: &'static str,
    pub(super) scenario: String,
    pub(super) peer: Peer,
    pub(super) rounds: Vec<Figures>,
}

/// All rows, and what went wrong on the way.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

/// A column: its title, its figure, what it is multiplied by, its decimals.
type Column = (&'static str, &'static str, f64, usize);

const COST: &[Column] = &[
    ("CPU ns/dgram", "cpu_ns", 1.0, 0),
    ("user ns", "user_ns", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("carried/s", "carried_per_s", 1.0, 0),
    ("lost %", "loss", 100.0, 3),
    ("p50 us", "p50_ns", 1e-3, 0),
    ("p99 us", "p99_ns", 1e-3, 0),
];
const SATURATION: &[Column] = &[
    ("sent/s", "rate", 1.0, 0),
    ("carried/s", "carried_per_s", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("carried/s of a full core", "full_core_per_s", 1.0, 0),
    ("CPU ns/dgram", "cpu_ns", 1.0, 0),
    ("core % beyond", "busy_beyond", 100.0, 0),
    ("generator late %", "late_beyond", 100.0, 1),
    ("lost at 80 %", "lost_at_80", 1.0, 0),
    ("of", "sent_at_80", 1.0, 0),
];
const MEMORY: &[Column] = &[
    ("bytes/flow in the process", "rss_per_flow", 1.0, 0),
    ("bytes/flow in the kernel's socket slabs", "slab_per_flow", 1.0, 0),
    ("MiB at one flow", "rss_start", 1.0 / 1_048_576.0, 1),
    ("flows without an answer", "unopened", 1.0, 0),
];

impl Report {
    /// Add one round's figures to the row they belong to.
    pub(super) fn add(&mut self, study: &'static str, scenario: &str, peer: Peer, figures: Figures) {
        let found = self.rows.iter_mut().find(|r| r.study == study && r.scenario == scenario && r.peer == peer);
        match found {
            Some(row) => row.rounds.push(figures),
            None => self.rows.push(Row { study, scenario: scenario.to_owned(), peer, rounds: vec![figures] }),
        }
    }

    /// Note what went wrong, once.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The tables, as Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (study, columns) in
            [("cost", COST), ("known", COST), ("saturation", SATURATION), ("workers", SATURATION), ("memory", MEMORY)]
        {
            if self.rows.iter().any(|r| r.study == study) {
                text.push_str(&self.table(study, columns));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    fn table(&self, study: &str, columns: &[Column]) -> String {
        let titles: Vec<_> = columns.iter().map(|c| c.0).collect();
        let mut text = format!("\n## {study}\n\n| scenario | peer | peer / kakei | {} |\n", titles.join(" | "));
        text.push_str(&format!("|---|---|--:|{}\n", "--:|".repeat(columns.len())));
        let mut rows: Vec<&Row> = self.rows.iter().filter(|r| r.study == study).collect();
        let order: Vec<&str> = rows.iter().map(|r| r.scenario.as_str()).collect();
        let place = |row: &Row| (order.iter().position(|s| *s == row.scenario), row.peer);
        rows.sort_by_key(|row| place(row));
        for row in rows {
            let cells: Vec<_> = columns
                .iter()
                .map(|(_, key, times, decimals)| match row.median(key) {
                    Some(value) => format!("{:.*}", decimals, value * times),
                    None => "–".to_owned(),
                })
                .collect();
            let ratio = self.ratio(row).map_or("–".to_owned(), |r| format!("{r:.2}"));
            text.push_str(&format!("| {} | {} | {ratio} | {} |\n", row.scenario, row.peer.name(), cells.join(" | ")));
        }
        text
    }

    /// The row's figure over Kakei's in the same scenario: CPU per datagram, memory per flow.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let key = match row.study {
            "memory" => "rss_per_flow",
            _ => "cpu_ns",
        };
        let ours =
            self.rows.iter().find(|r| r.study == row.study && r.scenario == row.scenario && r.peer == Peer::Kakei)?;
        let (theirs, ours) = (row.median(key)?, ours.median(key)?);
        (row.peer != Peer::Direct && ours > 0.0).then_some(theirs / ours)
    }

    /// All rounds, medians and ratios.
    pub(super) fn json(&self, about: &Value) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let keys: std::collections::BTreeSet<_> = row.rounds.iter().flat_map(|r| r.keys().copied()).collect();
                let medians: BTreeMap<_, _> = keys.into_iter().map(|k| (k, row.median(k))).collect();
                json!({
                    "study": row.study, "scenario": row.scenario, "peer": row.peer.name(),
                    "ratio_to_kakei": self.ratio(row), "median": medians, "rounds": row.rounds,
                })
            })
            .collect();
        json!({ "about": about, "rows": rows, "notes": self.notes })
    }

    /// What a smoke run must not show: Kakei that forwards nothing, loses most, or answers the wrong socket.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in self.rows.iter().filter(|r| r.peer.is_kakei()) {
            let at_least = |key, limit: f64| row.median(key).is_some_and(|v| v > limit);
            let who = format!("{} in {} {}", row.peer.name(), row.study, row.scenario);
            if at_least("loss", 0.5) {
                found.push(format!("{who} lost more than half of all datagrams"));
            }
            if at_least("strayed", 0.0) {
                found.push(format!("{who} sent answers to sockets that had not asked"));
            }
            if at_least("unopened", 0.0) {
                found.push(format!("{who} left flows without an answer"));
            }
        }
        if !self.rows.iter().any(|r| r.peer.is_kakei()) {
            found.push("nothing of Kakei was measured".to_owned());
        }
        found
    }
}

impl Row {
    /// The median of a figure over the rounds that have it.
    pub(super) fn median(&self, key: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|r| r.get(key).copied()).collect())
    }
}

/// The figures of an outcome.
pub(super) fn figures(outcome: &Outcome) -> Figures {
    let mut found = Figures::from([
        ("carried_per_s", outcome.carried() / outcome.seconds.max(1e-9)),
        ("sent", outcome.sent),
        ("lost", outcome.lost()),
        ("loss", outcome.loss()),
        ("skipped", outcome.skipped),
        ("strayed", outcome.strayed),
        ("unopened", outcome.unopened),
        ("p50_ns", outcome.p50_ns),
        ("p99_ns", outcome.p99_ns),
    ]);
    // Without a proxy there is nothing that used a CPU.
    if outcome.usage.cpu_ns > 0 {
        found.extend([
            ("cpu_ns", outcome.cpu_ns()),
            ("user_ns", outcome.cpu_ns() * outcome.user_share()),
            ("user_share", outcome.user_share()),
            ("busy", outcome.busy()),
        ]);
    }
    found
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kakei: &[(&'static str, f64)]) -> Report {
        let mut report = Report::default();
        for cpu in [100.0, 300.0, 200.0] {
            report.add("cost", "rr", Peer::Nginx, Figures::from([("cpu_ns", cpu)]));
        }
        report.add("cost", "rr", Peer::Kakei, kakei.iter().copied().collect());
        report
    }

    #[test]
    fn a_ratio_is_of_medians_in_one_scenario() {
        let report = report(&[("cpu_ns", 100.0)]);
        assert_eq!(report.ratio(&report.rows[0]), Some(2.0));
        assert!(report.text().contains("| rr | nginx | 2.00 | 200 |"), "{}", report.text());
        assert_eq!(report.json(&Value::Null)["rows"][0]["median"]["cpu_ns"], 200.0);
    }

    #[test]
    fn a_kakei_that_forwards_nothing_is_broken() {
        assert!(report(&[("loss", 0.0), ("strayed", 0.0)]).broken().is_empty());
        assert_eq!(report(&[("loss", 1.0)]).broken().len(), 1);
        assert_eq!(report(&[("unopened", 2.0), ("strayed", 1.0)]).broken().len(), 2);
        assert_eq!(Report::default().broken().len(), 1);
    }

    #[test]
    fn medians_of_none_odd_and_even() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
