//! Medians and tables.

/// The value that `q` (0 to 1) of the values lie at or below; zero for none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The middle value; the lower of the two middle ones where the count is even.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Rows of text in columns as wide as their widest cell: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The same rows as a Markdown table; the first row is its head.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
        if index == 0 {
            out.push_str(&format!("|{}\n", "---|".repeat(row.len())));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let check = |values: &[f64], q, expected| {
            assert_eq!(quantile(values, q), expected, "{values:?} {q}");
        };
        check(&[], 0.5, 0.0);
        check(&[3.0], 0.95, 3.0);
        check(&[5.0, 1.0, 3.0], 0.5, 3.0);
        check(&[4.0, 1.0, 3.0, 2.0], 0.5, 2.0);
        check(&[4.0, 1.0, 3.0, 2.0], 0.95, 4.0);
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["long".to_owned(), "9".to_owned()],
        ];
        assert_eq!(table(&rows), "a     b\nlong  9\n");
        assert_eq!(markdown(&rows), "| a | b |\n|---|---|\n| long | 9 |\n");
    }
}
