//! A peer: a Python program that answers requests line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::Contestant;

/// A running peer. Dropped, its input ends, and with it the peer.
pub struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a script of `benches/peers`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(environment: &Path, script: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
        // The environment's programs first: a kernelspec says just `python`.
        let search = format!("{}/bin:{}", environment.display(), std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new(environment.join("bin/python"))
            .arg("-B")
            .arg(&path)
            .env("PATH", search)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { child, requests, answers })
    }
}

impl Contestant for Peer {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let requests = self.requests.as_mut().context("the peer was closed")?;
        writeln!(requests, "{request}").context("the peer has ended")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line).context("cannot read the peer's answer")? == 0 {
            bail!("the peer has ended");
        }
        let mut answer: Value = serde_json::from_str(&line).context("the peer's answer is no JSON")?;
        match answer["error"].as_str() {
            Some(error) => Err(anyhow!("{}", error.trim_end().lines().last().unwrap_or_default().to_owned())),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.requests = None;
        // It ends by itself now; nothing is left to do when it cannot be waited for.
        let _ = self.child.wait();
    }
}
