//! Rows of JSON as a table for people. Knows columns, not what they mean.

use serde_json::Value;

/// A column: its heading, and the key of its value.
pub(crate) type Column = (&'static str, &'static str);

/// The rows under their headings; numbers to the right.
pub(crate) fn render(columns: &[Column], rows: &[Value]) -> String {
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|&(_, key)| text(&row[key])).collect()).collect();
    let width = |at: usize| {
        let longest = cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        longest.max(columns[at].0.chars().count())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let right: Vec<bool> =
        columns.iter().map(|&(_, key)| !rows.is_empty() && rows.iter().all(|row| row[key].is_number())).collect();
    let mut table = line(columns.iter().map(|&(heading, _)| heading), &widths, &right);
    for row in &cells {
        table.push_str(&line(row.iter().map(String::as_str), &widths, &right));
    }
    table
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize], right: &[bool]) -> String {
    let mut line = String::new();
    for ((cell, &width), &right) in cells.zip(widths).zip(right) {
        let padded = if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
        line.push_str(&padded);
        line.push_str("  ");
    }
    format!("{}\n", line.trim_end())
}

/// A value as people read it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => kakei::config::in_one_line(text),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = [json!({"name": "a", "flows": 5, "bind": ["x", "y"]}), json!({"name": "long", "flows": 1200})];
        let table = render(&[("NAME", "name"), ("FLOWS", "flows"), ("BIND", "bind")], &rows);
        assert_eq!(table, "NAME  FLOWS  BIND\na         5  x, y\nlong   1200  -\n");
        assert_eq!(text(&json!("a\nb\u{1b}[31m\u{202e}")), "a\\nb\\u{1b}[31m\\u{202e}");
    }
}
