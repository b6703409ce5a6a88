//! Passes an [`io::Error`] from one process to another: `#[serde(with = "ioward_model::io_error")]`.
//!
//! An error of the operating system keeps its number, and so its kind and text; any other keeps its text.

use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Form {
    /// errno(3), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
}

/// Writes an error.
///
/// # Errors
/// When the format can't take it.
pub fn serialize<S: Serializer>(error: &io::Error, serializer: S) -> Result<S::Ok, S::Error> {
    let errno = error.raw_os_error();
    let text = if errno.is_some() { String::new() } else { error.to_string() };
    Form { errno, text }.serialize(serializer)
}

/// Reads an error.
///
/// # Errors
/// When the input is not an error.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<io::Error, D::Error> {
    let Form { errno, text } = Form::deserialize(deserializer)?;
    Ok(errno.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] io::Error);

    #[test]
    fn an_error_keeps_its_kind_and_text() {
        for error in [io::Error::from_raw_os_error(16), io::Error::other("it lists no CPUs")] {
            let (kind, text) = (error.kind(), error.to_string());
            let there = serde_json::to_string(&Wrapped(error)).unwrap();
            let Wrapped(back) = serde_json::from_str(&there).unwrap();
            assert_eq!((back.kind(), back.to_string()), (kind, text));
        }
    }
}
