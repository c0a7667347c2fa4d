//! What is written: one field or a whole map, and the request around it, in locked memory.

use keyhaul_core::{Encoding, Error, ErrorKind, Field, Result, SecretBytes, SecretWriter, json};

use super::fields::{Fields, marker_for, marker_of};

/// The longest request: the longest value, escaped, with a map of siblings around it.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// What is to be written, in the form that JSON has room for.
#[derive(Debug)]
pub(crate) enum Content<'v> {
    /// One field.
    Field {
        name: Field,
        text: SecretBytes,
        marker: Option<String>,
    },
    /// The whole map, a JSON object.
    Whole(&'v SecretBytes),
}

impl<'v> Content<'v> {
    /// What `value` looks like as the field `name`, or as the whole map.
    ///
    /// # Errors
    /// `Corrupt` where the whole map is to be written and the value is none.
    pub(crate) fn new(
        name: &Field,
        value: &'v SecretBytes,
        declared: Option<Encoding>,
    ) -> Result<Self> {
        if name.is_all() {
            // The server puts a replacement character in the place of half a pair of surrogates.
            let sound = Fields::parse(value.expose()).and_then(|_| json::check(value.expose()));
            sound.map_err(|_| {
                Error::new(
                    ErrorKind::Corrupt,
                    "the whole map is written as a JSON object, and the value is none",
                )
                .with_advice("name one field, or give an object like {\"user\": \"…\"}")
            })?;
            return Ok(Self::Whole(value));
        }
        let (text, marker) = match (declared, as_text(value.expose())) {
            (Some(encoding), _) => (encoding.encode(value)?, None),
            (None, Some(text)) => (SecretBytes::copy_from(text.as_bytes()), None),
            (None, None) => {
                let text = Encoding::Base64.encode(value)?;
                let marker = marker_for(&text);
                (text, Some(marker))
            }
        };
        let name = name.clone();
        Ok(Self::Field { name, text, marker })
    }

    /// The map with this content and nothing else.
    ///
    /// # Errors
    /// `TooLarge` past the longest request.
    pub(crate) fn alone(&self, body: &mut Body) -> Result<()> {
        match self {
            Self::Whole(map) => body.0.push(map.expose()),
            Self::Field { .. } => self.map_into(body, &Fields::default()),
        }
    }

    /// The map with this field in it and all others as they are in `siblings`.
    ///
    /// # Errors
    /// `TooLarge` past the longest request.
    pub(crate) fn among(&self, body: &mut Body, siblings: &Fields<'_>) -> Result<()> {
        match self {
            Self::Whole(map) => body.0.push(map.expose()),
            Self::Field { .. } => self.map_into(body, siblings),
        }
    }

    /// The change to a map: this field, and its marker or that there is none.
    ///
    /// # Errors
    /// `TooLarge` past the longest request.
    pub(crate) fn patch(&self, body: &mut Body) -> Result<()> {
        match self {
            Self::Whole(map) => body.0.push(map.expose()),
            Self::Field { name, text, marker } => {
                body.text("{")?;
                own_field(body, name, text, marker.as_deref())?;
                if marker.is_none() {
                    body.text(",")?;
                    body.string(&marker_of(name))?;
                    body.text(":null")?;
                }
                body.text("}")
            }
        }
    }

    fn map_into(&self, body: &mut Body, siblings: &Fields<'_>) -> Result<()> {
        let Self::Field { name, text, marker } = self else {
            return Ok(());
        };
        body.text("{")?;
        own_field(body, name, text, marker.as_deref())?;
        let own = marker_of(name);
        for (sibling, raw) in &siblings.0 {
            if sibling == name.as_str() || *sibling == own {
                continue;
            }
            body.text(",")?;
            body.string(sibling)?;
            body.text(":")?;
            body.text(raw.get())?;
        }
        body.text("}")
    }
}

fn own_field(
    body: &mut Body,
    name: &Field,
    text: &SecretBytes,
    marker: Option<&str>,
) -> Result<()> {
    body.string(name.as_str())?;
    body.text(":")?;
    // Made from text or base64: it is UTF-8.
    let text = std::str::from_utf8(text.expose())
        .map_err(|_| Error::new(ErrorKind::Internal, "an encoded value is no text"))?;
    body.string(text)?;
    if let Some(marker) = marker {
        body.text(",")?;
        body.string(&marker_of(name))?;
        body.text(":")?;
        body.string(marker)?;
    }
    Ok(())
}

/// A request's JSON, in locked memory.
pub(crate) struct Body(SecretWriter);

impl Body {
    pub(crate) fn new() -> Self {
        Self(SecretWriter::with_limit(MAX_BODY))
    }

    /// Appends JSON as it is.
    ///
    /// # Errors
    /// `TooLarge` past the longest request.
    pub(crate) fn text(&mut self, json: &str) -> Result<()> {
        self.0.push(json.as_bytes())
    }

    /// Appends `text` as a JSON string.
    ///
    /// # Errors
    /// `TooLarge` past the longest request.
    pub(crate) fn string(&mut self, text: &str) -> Result<()> {
        json::escape(&mut self.0, text)
    }

    pub(crate) fn finish(self) -> SecretBytes {
        self.0.finish()
    }
}

/// The value as text, where a JSON string holds it and costs the server no more than base64 does:
/// that is what bounds what it stores.
fn as_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let base64 = value.len().div_ceil(3) * 4;
    // Short values stay legible whatever they hold.
    let most = base64.max(1024);
    (stored_len(text) <= most).then_some(text)
}

/// How many bytes a server spends on `text`: Go, in which they are written, also escapes what
/// HTML finds special.
fn stored_len(text: &str) -> usize {
    let cost = |letter: char| match letter {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        _ => letter.len_utf8(),
    };
    text.chars().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_a_server_spends_is_that_of_its_own_escapes() {
        // What OpenBao sent back for these letters.
        let sent = r"\u003c\u0026\u003e\u2028\n\u0001\t\\";
        assert_eq!(stored_len("<&>\u{2028}\n\u{1}\t\\"), sent.len());
        assert_eq!(stored_len("é/x"), 4);
    }
}
