//! As much of JSON Schema as the document uses.

use serde_json::Value;

/// What a schema says of a value, as far as this document uses JSON Schema.
pub(super) fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("{at}: {what}: {value}"));
    if let Some(name) = schema["$ref"].as_str() {
        let name = name
            .strip_prefix("#/components/schemas/")
            .expect("a schema's name");
        check(&super::schema(name), value, at)?;
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fit = options
            .iter()
            .filter(|option| check(option, value, at).is_ok());
        if fit.count() != 1 {
            return refuse("fits not exactly one of several");
        }
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some(other) => panic!("{at}: a type that the tests do not know: {other}"),
    };
    if !fits {
        return refuse("is of another type");
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return refuse("is none of the words");
    }
    let number = |name: &str| schema[name].as_u64();
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if number("minLength").is_some_and(|least| length < least)
            || number("maxLength").is_some_and(|most| length > most)
        {
            return refuse("is too short or too long");
        }
    }
    if let Some(found) = value.as_u64()
        && (number("minimum").is_some_and(|least| found < least)
            || number("maximum").is_some_and(|most| found > most))
    {
        return refuse("is too small or too great");
    }
    if let Some(items) = value.as_array() {
        if number("maxItems").is_some_and(|most| items.len() as u64 > most) {
            return refuse("has too many items");
        }
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{at}[{index}]"))?;
        }
    }
    if let Some(object) = value.as_object() {
        for (key, value) in object {
            let at = format!("{at}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => return refuse(&format!("{key} is unknown")),
                (Value::Null, rest) => check(rest, value, &at)?,
                (known, _) => check(known, value, &at)?,
            }
        }
        for needed in schema["required"].as_array().into_iter().flatten() {
            let needed = needed.as_str().expect("a key");
            if !object.contains_key(needed) {
                return refuse(&format!("{needed} is missing"));
            }
        }
    }
    Ok(())
}
