//! Outputs as readers of the whole notebook get them: a large one as a reference.

use outlive_core::limits::{DOCUMENT_OUTPUT_BYTES_MAX, DOCUMENT_STREAM_BYTES_MAX};
use outlive_document::live::REFERENCE_MIME;
use serde_json::{Value, json};

/// Puts references in the places of large outputs of this cell. They can be asked for by cell.
pub fn outputs(cell: &str, outputs: Vec<Value>) -> Vec<Value> {
    outputs.into_iter().enumerate().map(|(index, output)| shorten(cell, index, output)).collect()
}

fn shorten(cell: &str, index: usize, mut output: Value) -> Value {
    let is_stream = output.get("output_type").and_then(Value::as_str) == Some("stream");
    let limit = if is_stream { DOCUMENT_STREAM_BYTES_MAX } else { DOCUMENT_OUTPUT_BYTES_MAX };
    let bytes = weight(&output);
    if bytes <= limit {
        return output;
    }
    if is_stream {
        cut_stream(&mut output, limit);
    } else if let Some(data) = output.get_mut("data").filter(|data| data.is_object()) {
        let mime_types: Vec<String> =
            data.as_object().into_iter().flat_map(|data| data.keys().cloned()).collect();
        let text = format!("[an output of {bytes} bytes; ask for the outputs of cell {cell}]");
        let reference = json!({ "cell": cell, "index": index, "bytes": bytes, "mime_types": mime_types });
        *data = json!({ REFERENCE_MIME: reference, "text/plain": text });
    }
    output
}

/// Keeps the beginning, and says what is missing.
fn cut_stream(output: &mut Value, limit: usize) {
    let Some(Value::Array(lines)) = output.get_mut("text") else { return };
    let mut room = limit;
    let fits = lines
        .iter()
        .take_while(|line| {
            let length = line.as_str().map_or(0, str::len);
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        })
        .count();
    let missing: usize = lines[fits..].iter().filter_map(Value::as_str).map(str::len).sum();
    lines.truncate(fits);
    lines.push(format!("[{missing} more bytes; ask for the outputs of the cell]\n").into());
}

/// About how much it takes.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_output_is_a_reference_and_a_small_one_itself() {
        let small = json!({"output_type": "display_data", "data": {"text/plain": "1"}, "metadata": {}});
        let large = json!({"output_type": "display_data", "metadata": {},
            "data": {"image/png": "x".repeat(DOCUMENT_OUTPUT_BYTES_MAX + 1), "text/plain": "a plot"}});
        let shortened = outputs("c1", vec![small.clone(), large]);
        assert_eq!(shortened[0], small);
        assert_eq!(shortened[1]["data"][REFERENCE_MIME]["index"], 1);
        assert_eq!(shortened[1]["data"][REFERENCE_MIME]["mime_types"], json!(["image/png", "text/plain"]));
        assert!(weight(&shortened[1]) < 1_024);
    }

    #[test]
    fn a_long_stream_keeps_its_beginning_and_says_how_much_is_missing() {
        let line = format!("{}\n", "y".repeat(99));
        let count = DOCUMENT_STREAM_BYTES_MAX / 100 + 10;
        let stream = json!({"output_type": "stream", "name": "stdout", "text": vec![line.clone(); count]});
        let shortened = outputs("c1", vec![stream]);
        let text = shortened[0]["text"].as_array().unwrap();
        assert_eq!(text[0], line.as_str());
        let kept = text.len() - 1;
        assert_eq!(
            text[kept],
            format!("[{} more bytes; ask for the outputs of the cell]\n", (count - kept) * 100)
        );
    }
}
