//! The shape of a notebook as a Yjs document: jupyter_ydoc's, version 2 (jupyter_ydoc/ynotebook.py, 4.2).
//!
//! ```text
//! cells: Array of Map { id, cell_type, source: Text, metadata: Map of plain values, attachments?, other keys,
//!                       execution_count, execution_state, outputs: Array of Map (a stream's `text` is a Text) }
//! meta:  Map { nbformat, nbformat_minor, metadata: Map of plain values }
//! state: Map { outlive: Map of cell id → the run whose outputs stand in the cell; other keys are not ours }
//! ```
//!
//! Nested JSON is always one plain value: `@jupyter/ydoc` never ends copying a nested shared map. Whole numbers are
//! written as yjs writes them, so that neither side sees a BigInt or a float where it expects a count.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outlive_core::limits::DOCUMENT_DEPTH_MAX;
use yrs::{Any, Array, GetString, Map, MapRef, Number, Out, ReadTxn};

use crate::json::Json;

pub(super) const CELLS: &str = "cells";
pub(super) const META: &str = "meta";
pub(super) const STATE: &str = "state";
/// In `state`: which run each cell shows.
pub(super) const SHOWN: &str = "outlive";

pub(super) const ID: &str = "id";
pub(super) const KIND: &str = "cell_type";
pub(super) const SOURCE: &str = "source";
pub(super) const METADATA: &str = "metadata";
pub(super) const OUTPUTS: &str = "outputs";
pub(super) const COUNT: &str = "execution_count";
pub(super) const RUN_STATE: &str = "execution_state";

/// Members of a cell that have their own place in the document or are not people's.
pub(super) fn is_own(member: &str) -> bool {
    matches!(member, ID | KIND | SOURCE | METADATA | OUTPUTS | COUNT | RUN_STATE)
}

/// Integers up to here are the same in JavaScript.
const SAFE: i64 = (1 << 53) - 1;

pub(super) fn whole(number: u64) -> Any {
    i64::try_from(number).ok().filter(|&number| number <= SAFE).map_or_else(
        #[expect(clippy::cast_precision_loss, reason = "a count this large is nobody's")]
        || Any::Number(Number::Float(number as f64)),
        |number| Any::Number(Number::Int(number)),
    )
}

pub(super) fn any_of(json: &Json) -> Any {
    match json {
        Json::Literal(text) => match &**text {
            "null" => Any::Null,
            "true" => Any::Bool(true),
            "false" => Any::Bool(false),
            "NaN" => Any::Number(Number::Float(f64::NAN)),
            "Infinity" => Any::Number(Number::Float(f64::INFINITY)),
            "-Infinity" => Any::Number(Number::Float(f64::NEG_INFINITY)),
            number => match number.parse::<i64>() {
                Ok(whole) if (-SAFE..=SAFE).contains(&whole) => Any::Number(Number::Int(whole)),
                _ => number.parse().map_or(Any::Null, |float| Any::Number(Number::Float(float))),
            },
        },
        Json::String(text) => Any::String(text.as_str().into()),
        Json::Array(items) => Any::Array(items.iter().map(any_of).collect()),
        Json::Object(members) => {
            Any::Map(Arc::new(members.iter().map(|(key, value)| (key.clone(), any_of(value))).collect()))
        }
    }
}

pub(super) fn json_of(any: &Any) -> Json {
    match any {
        Any::Null | Any::Undefined | Any::Buffer(_) => Json::null(),
        Any::Bool(value) => Json::Literal(value.to_string().into()),
        Any::Number(number) => Json::Literal(number_text(*number).into()),
        Any::String(text) => Json::String(text.to_string()),
        Any::Array(items) => Json::Array(items.iter().map(json_of).collect()),
        Any::Map(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(key, value)| (key.clone(), json_of(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(members)
        }
    }
}

fn number_text(number: Number) -> String {
    match number {
        Number::Int(whole) => whole.to_string(),
        Number::Float(float) if float.is_nan() => "NaN".to_owned(),
        Number::Float(float) if float.is_infinite() => {
            if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "it is whole and small enough"
        )]
        Number::Float(float) if float.fract() == 0.0 && float.abs() <= SAFE as f64 => {
            (float as i64).to_string()
        }
        Number::Float(float) => {
            serde_json::Number::from_f64(float).map_or("null".to_owned(), |n| n.to_string())
        }
    }
}

/// Whether two values are the same to whoever reads the file: 1 and 1.0 are.
pub(super) fn same(a: &Any, b: &Any) -> bool {
    match (a, b) {
        (Any::Number(a), Any::Number(b)) => a == b || number_text(*a) == number_text(*b),
        (Any::Null | Any::Undefined, Any::Null | Any::Undefined) => true,
        (Any::Array(a), Any::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        (Any::Map(a), Any::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// A value of the document as a plain one, however a peer has put it there. What nests deeper than
/// [`DOCUMENT_DEPTH_MAX`] is left out: [`depth`] refuses it before.
pub(super) fn plain<T: ReadTxn>(txn: &T, out: &Out, level: usize) -> Any {
    if level > DOCUMENT_DEPTH_MAX {
        return Any::Null;
    }
    match out {
        Out::Any(any) => any.clone(),
        Out::YText(text) => Any::String(text.get_string(txn).into()),
        Out::YArray(array) => {
            array.iter(txn).map(|item| plain(txn, &item, level + 1)).collect::<Vec<_>>().into()
        }
        Out::YMap(map) => {
            let members: HashMap<String, Any> =
                map.iter(txn).map(|(key, value)| (key.to_owned(), plain(txn, &value, level + 1))).collect();
            Any::Map(Arc::new(members))
        }
        _ => Any::Null,
    }
}

/// Whether shared types nest no deeper below this value than they may.
pub(super) fn is_shallow<T: ReadTxn>(txn: &T, out: &Out, level: usize) -> bool {
    if level > DOCUMENT_DEPTH_MAX {
        return false;
    }
    match out {
        Out::YArray(array) => array.iter(txn).all(|item| is_shallow(txn, &item, level + 1)),
        Out::YMap(map) => map.iter(txn).all(|(_, value)| is_shallow(txn, &value, level + 1)),
        _ => true,
    }
}

/// What people write of a cell, as it stands in the document.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub kind: String,
    pub source: String,
    pub metadata: BTreeMap<String, Any>,
    /// Attachments, and members that this version does not know.
    pub rest: BTreeMap<String, Any>,
}

impl Written {
    pub fn read<T: ReadTxn>(txn: &T, cell: &MapRef) -> Self {
        let mut rest = BTreeMap::new();
        for (member, value) in cell.iter(txn) {
            if !is_own(member) {
                rest.insert(member.to_owned(), plain(txn, &value, 0));
            }
        }
        Self {
            kind: text_of(txn, cell, KIND).unwrap_or_default(),
            source: text_of(txn, cell, SOURCE).unwrap_or_default(),
            metadata: members_of(txn, cell, METADATA),
            rest,
        }
    }

    /// Whether a person would see the same cell.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_members = |a: &BTreeMap<String, Any>, b: &BTreeMap<String, Any>| {
            a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other, b))| key == other && same(a, b))
        };
        self.kind == other.kind
            && self.source == other.source
            && same_members(&self.metadata, &other.metadata)
            && same_members(&self.rest, &other.rest)
    }
}

/// A member that is text, shared or plain.
pub(super) fn text_of<T: ReadTxn>(txn: &T, map: &MapRef, member: &str) -> Option<String> {
    match map.get(txn, member)? {
        Out::YText(text) => Some(text.get_string(txn)),
        Out::Any(Any::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// The members of a member that is a map, shared or plain.
pub(super) fn members_of<T: ReadTxn>(txn: &T, map: &MapRef, member: &str) -> BTreeMap<String, Any> {
    match map.get(txn, member) {
        Some(Out::YMap(members)) => {
            members.iter(txn).map(|(key, value)| (key.to_owned(), plain(txn, &value, 0))).collect()
        }
        Some(Out::Any(Any::Map(members))) => {
            members.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        _ => BTreeMap::new(),
    }
}
