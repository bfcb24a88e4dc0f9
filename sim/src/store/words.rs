//! Records and ids in a few words.

use outlive_core::log::record::ControlChange;
use outlive_core::log::{FencedBody, Lane, Record, RunRecord};

/// The end of an id: its beginning is the same for all that one seed makes.
pub(crate) fn short(id: impl std::fmt::Display) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(4)..].to_owned()
}

/// A record in a few words.
pub(super) fn said(lane: Lane, record: &Record) -> String {
    match record {
        Record::Control(control) => match &control.change {
            ControlChange::Claim { epoch, node, .. } => format!("Claim {epoch} by {}", short(node)),
            other => format!("{other:?}"),
        },
        Record::Fenced(fenced) => match (&fenced.body, lane) {
            (FencedBody::Journal(events), _) => {
                let all: Vec<String> =
                    events.iter().map(|event| clip(&format!("{:?}", event.what))).collect();
                format!("journal {}", all.join(", "))
            }
            (FencedBody::Document(_), _) => "document".to_owned(),
            (FencedBody::Run(RunRecord::Data { attempt, first, chunks }), Lane::Run(run)) => {
                format!("run {} Data {attempt}.{first}+{}", short(run), chunks.len())
            }
            (FencedBody::Run(other), Lane::Run(run)) => {
                format!("run {} {}", short(run), clip(&format!("{other:?}")))
            }
            (other, _) => clip(&format!("{other:?}")),
        },
        other => clip(&format!("{other:?}")),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}
