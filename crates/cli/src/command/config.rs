//! `outlive config show`: each setting, and where it is from.

use clap::Subcommand;
use serde_json::json;

use crate::config::Config;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{self, Ink, Paint};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print each setting, where it is from and what it is
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    /// Does it.
    pub fn run(self, config: &Config) -> Result<Exit, Failure> {
        let Action::Show { json } = self.action;
        let rows = config.rows();
        if json {
            let settings: serde_json::Map<_, _> = rows
                .into_iter()
                .map(|(name, value, origin, _)| {
                    (name.to_owned(), json!({"value": value, "from": origin.to_string()}))
                })
                .collect();
            terminal::line(serde_json::to_string_pretty(&settings).expect("string keys"))?;
            return Ok(Exit::Ok);
        }
        let paint = Paint::out();
        let exists = if config.file.exists() { "" } else { " (does not exist)" };
        terminal::line(paint.text(Ink::Dim, format!("# {}{exists}", config.file.display())))?;
        let width = rows.iter().map(|(_, value, ..)| value.len()).max().unwrap_or(0);
        let names = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, value, origin, about) in rows {
            let comment = paint.text(Ink::Dim, format!("# {origin}; {about}"));
            let (name, gap) = (paint.text(Ink::Bold, name), " ".repeat(names - name.len()));
            terminal::line(format!("{name}{gap} = {value:width$}  {comment}"))?;
        }
        Ok(Exit::Ok)
    }
}
