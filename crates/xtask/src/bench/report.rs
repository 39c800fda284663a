//! What was measured, as rows: medians over rounds, ratios to Kakei, a table for people and JSON for programs. Measures nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::Options;
use super::ground::Tools;
use super::programs::{Peer, present};

/// The named figures of one measurement.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// A column: its title, its figure, what it is multiplied by, its decimals.
pub(super) type Column = (&'static str, &'static str, f64, usize);

/// How one study is shown.
pub(super) struct Table {
    pub(super) study: &'static str,
    /// The figure that peers are compared by.
    pub(super) cost: &'static str,
    pub(super) columns: &'static [Column],
}

/// The figures of what something costs, and of what it costs while the core runs at its full pace.
const CALM: [(&str, &str); 3] = [("cpu_s", "calm_s"), ("cpu_us", "calm_us"), ("cpu_ns", "calm_ns")];

/// What must not be seen: a figure of Kakei above a limit, and what that means.
pub(super) type Fault = (&'static str, f64, &'static str);

/// Where a measurement belongs.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) study: &'static str,
    pub(super) scenario: &'a str,
    pub(super) round: usize,
}

/// One line of a table: a peer in a scenario, with the figures of each round that has some.
pub(super) struct Row<P> {
    pub(super) study: &'static str,
    pub(super) scenario: String,
    pub(super) peer: P,
    pub(super) rounds: BTreeMap<usize, Figures>,
}

/// All rows, and what went wrong on the way.
pub(super) struct Report<P> {
    tables: &'static [Table],
    pub(super) rows: Vec<Row<P>>,
    pub(super) notes: Vec<String>,
}

impl<P: Peer> Report<P> {
    /// An empty report of these studies, in this order.
    pub(super) fn new(tables: &'static [Table]) -> Report<P> {
        Report { tables, rows: Vec::new(), notes: Vec::new() }
    }

    /// The peers that were asked for and are here; what makes the measurement worse than it could be is noted.
    pub(super) fn peers(&mut self, options: &Options, tools: &Tools) -> Result<Vec<P>, String> {
        if !tools.realtime {
            self.note("what else ran on the machine could take time from what was measured".to_owned());
        }
        let (peers, missing) = present(options.list("peers"), &tools.kakei)?;
        missing.into_iter().for_each(|line| self.note(line));
        Ok(peers)
    }

    /// Add one round's figures to the row they belong to.
    pub(super) fn add(&mut self, at: At<'_>, peer: P, figures: Figures) {
        let same = |r: &&mut Row<P>| r.study == at.study && r.scenario == at.scenario && r.peer == peer;
        match self.rows.iter_mut().find(same) {
            Some(row) => drop(row.rounds.insert(at.round, figures)),
            None => {
                let rounds = BTreeMap::from([(at.round, figures)]);
                self.rows.push(Row { study: at.study, scenario: at.scenario.to_owned(), peer, rounds });
            }
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
        let measured = |table: &&Table| self.rows.iter().any(|r| r.study == table.study);
        let mut text: String = self.tables.iter().filter(measured).map(|table| self.table(table)).collect();
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    fn table(&self, table: &Table) -> String {
        let titles: Vec<_> = table.columns.iter().map(|c| c.0).collect();
        let mut text = format!(
            "\n## {}\n\n| scenario | peer | peer / kakei | least | at full pace | of the time % | {} |\n",
            table.study,
            titles.join(" | ")
        );
        text.push_str(&format!("|---|---|--:|--:|--:|--:|{}\n", "--:|".repeat(table.columns.len())));
        let mut rows: Vec<&Row<P>> = self.rows.iter().filter(|r| r.study == table.study).collect();
        let order: Vec<&str> = rows.iter().map(|r| r.scenario.as_str()).collect();
        let place = |row: &Row<P>| (order.iter().position(|s| *s == row.scenario), row.peer);
        rows.sort_by_key(|row| place(row));
        for row in rows {
            let cell = |value: Option<f64>, times: f64, decimals: usize| {
                value.map_or("–".to_owned(), |value| format!("{:.*}", decimals, value * times))
            };
            let cells: Vec<_> = table.columns.iter().map(|(_, key, x, d)| cell(row.median(key), *x, *d)).collect();
            let ratios = [self.ratio(row), self.least(row), self.calm(row)].map(|ratio| cell(ratio, 1.0, 2));
            let (name, ratios) = (row.peer.name(), ratios.join(" | "));
            let calm = cell(row.median("calm"), 100.0, 0);
            text.push_str(&format!("| {} | {name} | {ratios} | {calm} | {} |\n", row.scenario, cells.join(" | ")));
        }
        text
    }

    /// The row's cost and our row in the same scenario; nothing where there is no proxy to compare.
    fn compared(&self, row: &Row<P>) -> Option<(&'static Table, &Row<P>)> {
        let table = self.tables.iter().find(|table| table.study == row.study)?;
        let ours = |r: &&Row<P>| r.study == row.study && r.scenario == row.scenario && r.peer == P::OURS;
        let ours = self.rows.iter().find(ours)?;
        row.peer.program().map(|_| (table, ours))
    }

    /// The median of the row's cost over the median of Kakei's.
    fn ratio(&self, row: &Row<P>) -> Option<f64> {
        let (table, ours) = self.compared(row)?;
        quotient(row.median(table.cost)?, ours.median(table.cost)?)
    }

    /// The same for what was done while the core ran at its full pace.
    fn calm(&self, row: &Row<P>) -> Option<f64> {
        let (table, ours) = self.compared(row)?;
        let (_, calm) = CALM.iter().find(|(cost, _)| *cost == table.cost)?;
        quotient(row.median(calm)?, ours.median(calm)?)
    }

    /// The least ratio that any one round has seen.
    fn least(&self, row: &Row<P>) -> Option<f64> {
        let (Table { cost, .. }, ours) = self.compared(row)?;
        let ratio =
            |(round, theirs): (&usize, &Figures)| quotient(*theirs.get(cost)?, *ours.rounds.get(round)?.get(cost)?);
        row.rounds.iter().filter_map(ratio).min_by(f64::total_cmp)
    }

    /// All rounds, medians and ratios.
    pub(super) fn json(&self, about: &Value) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let keys: std::collections::BTreeSet<_> = row.rounds.values().flat_map(|r| r.keys().copied()).collect();
                let medians: BTreeMap<_, _> = keys.into_iter().map(|k| (k, row.median(k))).collect();
                json!({
                    "study": row.study, "scenario": row.scenario, "peer": row.peer.name(),
                    "ratio_to_kakei": self.ratio(row), "least_ratio_to_kakei": self.least(row),
                    "calm_ratio_to_kakei": self.calm(row),
                    "median": medians, "rounds": row.rounds.values().collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "about": about, "rows": rows, "notes": self.notes })
    }

    /// What a smoke run must not show of Kakei; nothing of it having been measured is one of it.
    pub(super) fn broken(&self, faults: &[Fault]) -> Vec<String> {
        let mut found = Vec::new();
        for row in self.rows.iter().filter(|r| r.peer.is_kakei()) {
            let seen = faults.iter().filter(|(key, limit, _)| row.median(key).is_some_and(|value| value > *limit));
            let who = format!("{} in {} {}", row.peer.name(), row.study, row.scenario);
            found.extend(seen.map(|(_, _, what)| format!("{who} {what}")));
        }
        if !self.rows.iter().any(|r| r.peer.is_kakei()) {
            found.push("nothing of Kakei was measured".to_owned());
        }
        found
    }
}

impl<P> Row<P> {
    /// The median of a figure over the rounds that have it.
    pub(super) fn median(&self, key: &str) -> Option<f64> {
        median(self.rounds.values().filter_map(|r| r.get(key).copied()).collect())
    }
}

fn quotient(theirs: f64, ours: f64) -> Option<f64> {
    (ours > 0.0).then_some(theirs / ours)
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
    use super::super::programs::Program;
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Two {
        Kakei,
        Nginx,
    }

    impl Peer for Two {
        const ALL: &'static [(Two, &'static str, Option<Program>)] =
            &[(Two::Kakei, "kakei", Some(Program::Kakei)), (Two::Nginx, "nginx", Some(Program::Nginx))];
        const OURS: Two = Two::Kakei;
    }

    const TABLES: &[Table] = &[Table { study: "cost", cost: "cpu_ns", columns: &[("CPU", "cpu_ns", 1.0, 0)] }];
    const FAULTS: &[Fault] = &[("loss", 0.5, "lost"), ("strayed", 0.0, "strayed"), ("unopened", 0.0, "unopened")];

    fn report(kakei: &[(&'static str, f64)]) -> Report<Two> {
        let mut report = Report::new(TABLES);
        for (round, cpu) in [100.0, 300.0, 200.0].into_iter().enumerate() {
            let at = At { study: "cost", scenario: "rr", round };
            report.add(at, Two::Nginx, Figures::from([("cpu_ns", cpu)]));
            report.add(at, Two::Kakei, kakei.iter().copied().collect());
        }
        report
    }

    #[test]
    fn a_ratio_is_of_medians_in_one_scenario_and_the_least_of_one_round() {
        let report = report(&[("cpu_ns", 100.0)]);
        assert_eq!((report.ratio(&report.rows[0]), report.least(&report.rows[0])), (Some(2.0), Some(1.0)));
        assert!(report.text().contains("| rr | nginx | 2.00 | 1.00 | – | – | 200 |"), "{}", report.text());
        assert_eq!(report.json(&Value::Null)["rows"][0]["median"]["cpu_ns"], 200.0);
    }

    #[test]
    fn the_ratio_at_full_pace_is_of_the_rounds_that_have_one() {
        let mut report = report(&[("cpu_ns", 100.0), ("calm_ns", 50.0)]);
        let at = At { study: "cost", scenario: "rr", round: 3 };
        report.add(at, Two::Nginx, Figures::from([("cpu_ns", 200.0), ("calm_ns", 60.0), ("calm", 0.25)]));
        assert!(report.text().contains("| rr | nginx | 2.00 | 1.00 | 1.20 | 25 | 200 |"), "{}", report.text());
    }

    #[test]
    fn a_kakei_that_forwards_nothing_is_broken() {
        let broken = |figures| report(figures).broken(FAULTS).len();
        assert_eq!(broken(&[("loss", 0.0), ("strayed", 0.0)]), 0);
        assert_eq!(broken(&[("loss", 1.0)]), 1);
        assert_eq!(broken(&[("unopened", 2.0), ("strayed", 1.0)]), 2);
        assert_eq!(Report::<Two>::new(TABLES).broken(FAULTS).len(), 1);
    }

    #[test]
    fn an_unknown_peer_names_the_known_ones() {
        assert!(Two::named("hub").unwrap_err().contains("nginx"));
        assert_eq!(Two::named("kakei"), Ok(Two::Kakei));
    }

    #[test]
    fn medians_of_none_odd_and_even() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
