//! What nodes log, among what happens.

use std::cell::RefCell;
use std::io::{self, Write};

thread_local! {
    static PRESENT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on, what this process logs is printed with the time of the story and the node that logs it.
pub fn print() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTLIVE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let made = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(Said::default)
        .try_init();
    // Somebody listens already.
    drop(made);
}

/// It is that moment, at that node.
pub(crate) fn at(present: impl FnOnce() -> String) {
    PRESENT.with_borrow_mut(|text| *text = present());
}

#[derive(Default)]
struct Said(Vec<u8>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.0);
        #[expect(clippy::print_stdout, reason = "somebody asked to see it")]
        PRESENT.with_borrow(|present| print!("{present} ·{text}"));
    }
}
