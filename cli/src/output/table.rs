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
