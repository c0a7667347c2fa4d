use std::io::{self, IsTerminal};

/// Colours for words, or none.
#[derive(Clone, Copy, Debug)]
pub struct Style(bool);

impl Style {
    /// The style of standard error: colour at a terminal, unless `NO_COLOR` or a dumb terminal.
    pub fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    /// The style of standard output.
    pub fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(terminal && !set("NO_COLOR") && !dumb)
    }

    pub fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub fn warning(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn label(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
