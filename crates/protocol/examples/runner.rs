//! A runner in Rust: it sieves primes, tells its progress, and can be cancelled.
//!
//! One thread listens, so that pings are answered and cancels are heard while another works. Start it with
//! `outlive up runners.toml`, where `command = ["target/debug/examples/runner"]`, and give it
//! `{"below": 1000000}` for its task `primes`.

use std::collections::HashSet;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use outlive_core::id::{Attempt, RunId};
use outlive_core::runtime::runner::{Phase, Progress};
use outlive_protocol::runner::{Decoder, Exception, Framed, FromRunner, Json, ToRunner, VERSION, encode};
use serde_json::{Value, json};

/// A task: which, and its input.
type Order = ((RunId, Attempt), String, Value);
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// So many numbers are sieved between two looks at whether the task was cancelled.
const BLOCK: usize = 100_000;
/// Above this the sieve would be larger than a runner of an example should be.
const BELOW_MAX: u64 = 100_000_000;

/// The way to the supervisor, for both threads.
#[derive(Clone)]
struct Out(Arc<Mutex<File>>);

impl Out {
    /// Sends a frame, whole: what was sent before a crash has arrived.
    fn say(&self, frame: FromRunner) -> Fallible<()> {
        let bytes = encode(&Framed { frame, bytes: None })?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    if std::env::var_os("OUTLIVE_RUNNER").is_none() {
        eprintln!("this program is a runner; start it with: outlive up runners.toml");
        return ExitCode::from(2);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the channel to the supervisor broke: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Fallible<()> {
    // Opened by name, so that no `unsafe` is needed; both are pipes.
    let source = File::open("/dev/fd/3")?;
    let out = Out(Arc::new(Mutex::new(OpenOptions::new().write(true).open("/dev/fd/4")?)));
    out.say(FromRunner::Hello {
        version: VERSION,
        tasks: vec!["primes".to_owned()],
        capabilities: Vec::new(),
        concurrency: 1,
        exact: Vec::new(),
        sdk: None,
    })?;
    out.say(FromRunner::State { state: Phase::Ready, progress: Progress::default() })?;
    let cancelled = Arc::new(Mutex::new(HashSet::new()));
    let (orders, taken) = channel();
    let listener = thread::spawn({
        let (out, cancelled) = (out.clone(), Arc::clone(&cancelled));
        move || listen(source, &out, &orders, &cancelled)
    });
    work(&out, &taken, &cancelled)?;
    // It has dropped its end of `orders`, so it has ended: in order, or by an error.
    listener.join().map_err(|_| "the listening thread panicked")??;
    out.say(FromRunner::End)
}

/// Takes what the supervisor says, until it says that this is all.
fn listen(
    mut source: File,
    out: &Out,
    orders: &Sender<Order>,
    cancelled: &Mutex<HashSet<(RunId, Attempt)>>,
) -> Fallible<()> {
    let mut decoder = Decoder::<ToRunner>::default();
    let mut buffer = vec![0; 65_536];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Err("it was closed".into());
        }
        decoder.push(&buffer[..count]);
        while let Some(Framed { frame, bytes }) = decoder.next_frame()? {
            match frame {
                ToRunner::Ping { n } => out.say(FromRunner::Pong { n })?,
                ToRunner::Task { id, attempt, task, input, .. } => {
                    let input = match bytes {
                        Some(bytes) => serde_json::from_slice(&bytes)?,
                        None => input.unwrap_or_default(),
                    };
                    orders.send(((id, attempt), task, input))?;
                }
                ToRunner::Cancel { id, attempt } => {
                    cancelled.lock().unwrap_or_else(PoisonError::into_inner).insert((id, attempt));
                }
                ToRunner::Shutdown { .. } => return Ok(()),
                ToRunner::Hello { .. } => {}
            }
        }
    }
}

/// Works at one task after the other, and gives each its one terminal.
fn work(out: &Out, taken: &Receiver<Order>, cancelled: &Mutex<HashSet<(RunId, Attempt)>>) -> Fallible<()> {
    for ((id, attempt), task, input) in taken {
        let is_cancelled =
            || cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&(id, attempt));
        let terminal = match (task.as_str(), input["below"].as_u64()) {
            ("primes", Some(below)) if below <= BELOW_MAX => {
                match primes(below, |frame| out.say(frame(id, attempt)), is_cancelled)? {
                    Some(count) => {
                        FromRunner::Result { id, attempt, value: Some(Json::new(&json!({ "count": count }))) }
                    }
                    None => FromRunner::Cancelled { id, attempt },
                }
            }
            ("primes", _) => {
                refusal(id, attempt, "InputError", &format!("`below` is a number up to {BELOW_MAX}"))
            }
            _ => refusal(id, attempt, "LookupError", &format!("there is no task {task}, only primes")),
        };
        out.say(terminal)?;
        cancelled.lock().unwrap_or_else(PoisonError::into_inner).remove(&(id, attempt));
    }
    Ok(())
}

fn refusal(id: RunId, attempt: Attempt, kind: &str, message: &str) -> FromRunner {
    let exception = Exception { kind: kind.to_owned(), message: message.to_owned(), ..Exception::default() };
    FromRunner::Error { id, attempt, exception }
}

/// Sieves block by block: a chunk with the largest prime of each, and progress. `None`: it was cancelled.
fn primes(
    below: u64,
    mut say: impl FnMut(&dyn Fn(RunId, Attempt) -> FromRunner) -> Fallible<()>,
    is_cancelled: impl Fn() -> bool,
) -> Fallible<Option<usize>> {
    let size = usize::try_from(below)?;
    let mut is_composite = vec![false; size];
    let mut count = 0;
    for start in (2..size).step_by(BLOCK) {
        if is_cancelled() {
            return Ok(None);
        }
        let end = (start + BLOCK).min(size);
        let mut largest = None;
        for number in start..end {
            if is_composite[number] {
                continue;
            }
            (count, largest) = (count + 1, Some(number));
            for multiple in (number.saturating_mul(number)..size).step_by(number) {
                is_composite[multiple] = true;
            }
        }
        if let Some(prime) = largest {
            let text = Some(format!("{prime}\n"));
            say(&|id, attempt| FromRunner::Chunk {
                id,
                attempt,
                text: text.clone(),
                json: None,
                mime: None,
            })?;
        }
        #[expect(clippy::cast_precision_loss, reason = "numbers up to BELOW_MAX are exact")]
        let progress = Progress { done: Some(end as f64), total: Some(size as f64), message: None };
        say(&|id, attempt| FromRunner::Progress { id, attempt, progress: progress.clone() })?;
    }
    Ok(Some(count))
}
