use std::fmt;

/// Labels and values, one a line, values aligned.
#[derive(Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Adds a line.
    pub fn push(&mut self, label: &str, value: impl fmt::Display) {
        self.0.push((format!("{label}:"), value.to_string()));
    }

    /// Adds a line where there is something to say.
    pub fn push_some(&mut self, label: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.push(label, value);
        }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .0
            .iter()
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or_default();
        let mut first = true;
        for (label, value) in &self.0 {
            write!(f, "{}{label:width$} {value}", if first { "" } else { "\n" })?;
            first = false;
        }
        Ok(())
    }
}

/// Rows of cells, one a line, columns aligned.
#[derive(Default)]
pub struct Rows(Vec<Vec<String>>);

impl Rows {
    /// Adds a line.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Rows {
    /// Every line ends, the last one too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let mut rows = Rows::default();
        rows.push(["a", "\u{f6}\u{f6}", ""].map(str::to_owned));
        rows.push(["bcd", "e", "f"].map(str::to_owned));
        assert_eq!(rows.to_string(), "a    \u{f6}\u{f6}\nbcd  e   f\n");
        assert_eq!(Rows::default().to_string(), "");
    }
}
