//! What the daemon wants.

use std::time::Duration;

use bytes::BytesMut;
use outlive_core::runtime::spec::{InterruptMode, Program};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::time::Now;
use outlive_jupyter::request::ExecuteMode;
use outlive_process::stop::signal_group;
use outlive_protocol::shim::{FromShim, OpenQuestion, ToShim, VERSION, Welcome};
use outlive_protocol::shim_codec::encode_from_shim;
use rustix::process::Signal;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::oneshot;

use super::freeze::By;
use super::{Driver, Fate, Life, Peer};
use crate::kernel::Kernel;
use crate::link::{ConnectionId, LinkEvent};

/// How long an interrupt waits for a kernel to say that it executes, in milliseconds. One that never says so gets it
/// then.
const INTERRUPT_HELD_MS: u64 = 500;

impl Driver {
    pub(super) fn on_link(&mut self, event: LinkEvent, now: Now) {
        match event {
            LinkEvent::Greeted { id, hello, writer, open } => self.on_hello(id, &hello, (writer, open), now),
            LinkEvent::Message { id, message } => {
                // One that was superseded may have said something just before it was closed.
                if self.peer.as_ref().is_some_and(|peer| peer.id == id) {
                    self.on_message(message, now);
                }
            }
            LinkEvent::Closed { id } => {
                if self.peer.as_ref().is_some_and(|peer| peer.id == id) {
                    self.peer = None;
                }
            }
        }
    }

    fn on_hello(
        &mut self,
        id: ConnectionId,
        hello: &ToShim,
        (writer, open): (OwnedWriteHalf, oneshot::Sender<()>),
        now: Now,
    ) {
        let version = match self.check_hello(hello) {
            Ok(version) => version,
            Err(reason) => {
                tracing::warn!(reason, "a daemon was told that it means somebody else");
                let frame = encode_from_shim(&FromShim::Wrong { reason }).expect("a sentence fits a frame");
                // A new connection takes a sentence at once; then both sides are dropped.
                let _gone = writer.try_write(&frame);
                return;
            }
        };
        self.heard(now);
        if let ToShim::Hello { acked, .. } = hello {
            self.retell(*acked, now);
        }
        let welcome = Welcome {
            version,
            identity: self.identity.clone(),
            open_runs: self.open_runs(),
            last_src: self.journal.last(),
            asks: self.open_question(),
            frozen: self.frozen.is_some(),
        };
        let frame = encode_from_shim(&FromShim::Welcome(welcome)).expect("ten thousand runs fit a frame");
        self.journal.rewind();
        self.peer = Some(Peer { id, writer, _open: open, outbox: BytesMut::from(&frame[..]) });
    }

    /// The version to speak, or why not.
    fn check_hello(&mut self, hello: &ToShim) -> Result<u16, String> {
        let ToShim::Hello { version, session, process, acked, .. } = hello else {
            return Err("the first message must be a Hello".to_owned());
        };
        // A daemon speaks its own version and the one before, and so do we.
        if version.abs_diff(VERSION) > 1 {
            return Err(format!("this shim speaks version {VERSION} of the protocol, the daemon {version}"));
        }
        let own = (self.launch.session, self.launch.process);
        if (*session, *process) != own {
            return Err(format!("this shim holds process {} of session {}", own.1, own.0));
        }
        if !self.journal.acknowledge(*acked) {
            let last = self.journal.last();
            return Err(format!(
                "record {acked} was never sent, the last one is {last}: this is another process"
            ));
        }
        Ok((*version).min(VERSION))
    }

    /// What the kernel waits to be told.
    fn open_question(&self) -> Option<OpenQuestion> {
        let Life::Supervising(supervised) = &self.life else { return None };
        let (asked, kernel) = (self.asked.as_ref()?, supervised.work.kernel()?);
        kernel.is_asking(asked.run).then(|| asked.clone())
    }

    pub(super) fn open_runs(&self) -> Vec<crate::kernel::runs::RunKey> {
        match &self.life {
            Life::Supervising(supervised) => supervised.open_runs(),
            Life::Waiting | Life::Ended => Vec::new(),
        }
    }

    fn on_message(&mut self, message: ToShim, now: Now) {
        self.heard(now);
        match message {
            ToShim::Freeze => self.freeze(By::Daemon, now),
            ToShim::Thaw => self.thaw(now),
            ToShim::Beat => {}
            ToShim::Hello { .. } => tracing::warn!("a second Hello on one connection; ignored"),
            ToShim::Ack { through } => {
                if !self.journal.acknowledge(through) {
                    tracing::warn!(%through, "acknowledges what was never sent; the connection is closed");
                    self.peer = None;
                }
            }
            ToShim::Execute { run, attempt, code, allow_stdin, silent } => match &mut self.life {
                Life::Waiting => self.start_command((run, attempt), now),
                Life::Supervising(supervised) => {
                    let mode = match (silent, allow_stdin) {
                        (true, _) => ExecuteMode::Silent,
                        (false, true) => ExecuteMode::Interactive,
                        (false, false) => ExecuteMode::Unattended,
                    };
                    let key = (run, attempt);
                    let is_done = supervised.has_finished(key);
                    let notice = supervised.execute(key, &code, mode, now);
                    if let Some(notice) = notice.or_else(|| is_done.then(|| self.story.outcome_lost(key))?) {
                        self.record(notice, now);
                    }
                }
                Life::Ended => {}
            },
            ToShim::Task { run, attempt, order } => self.give_task((run, attempt), order, now),
            ToShim::CancelTask { run, attempt } => {
                if let Life::Supervising(supervised) = &mut self.life
                    && let Some(runner) = supervised.work.runner_mut()
                {
                    runner.cancel((run, attempt));
                }
            }
            ToShim::Interrupt => self.interrupt(now),
            ToShim::Input { run, value } => {
                if let Life::Supervising(supervised) = &mut self.life {
                    supervised.input(run, &value, now);
                }
            }
            ToShim::Stop { why, from } => self.stop(why, from, now),
            ToShim::Goodbye => {
                if matches!(self.life, Life::Ended) {
                    self.fate = Fate::Goodbye;
                } else {
                    tracing::warn!("a goodbye while the process lives; ignored");
                }
            }
            ToShim::Refuse { reason } => self.disown(&reason, now),
        }
    }

    /// No daemon wants this process: it is stopped in the normal ladder, and its records are for nobody.
    pub(super) fn disown(&mut self, reason: &str, now: Now) {
        tracing::warn!(reason, "refused; the process is stopped");
        self.fate = Fate::Disowned;
        // What is frozen and is nobody's must not run again.
        let from = if self.frozen.is_some() { StopStep::Kill } else { StopStep::Ask };
        self.stop(StopWhy::Disowned, from, now);
    }

    /// Interrupts what runs, once it does.
    pub(super) fn interrupt(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if !supervised.is_alive() || !supervised.is_ready {
            return;
        }
        // ipykernel says that it is busy before it listens for SIGINT, and ignores one that comes in between.
        if supervised.work.kernel().is_some_and(Kernel::is_beginning) {
            supervised.interrupt_by = Some(now.tick + Duration::from_millis(INTERRUPT_HELD_MS));
        } else {
            self.interrupt_now(now);
        }
    }

    /// Delivers an interrupt that was held, when what it is meant for has begun, or does not say so.
    pub(super) fn deliver_interrupt(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        let Some(by) = supervised.interrupt_by else { return };
        let is_beginning = supervised.work.kernel().is_some_and(Kernel::is_beginning);
        if is_beginning && now.tick < by {
            return;
        }
        supervised.interrupt_by = None;
        // What has ended meanwhile needs no interrupt, and what comes next is not meant.
        if supervised.is_alive() && !supervised.open_runs().is_empty() {
            self.interrupt_now(now);
        }
    }

    fn interrupt_now(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if let Some(kernel) = supervised.work.kernel_mut() {
            kernel.interrupted();
        }
        let by_message = matches!(
            self.launch.spec.program,
            Program::Kernel { interrupt_mode: InterruptMode::Message, .. }
        );
        if by_message && supervised.work.kernel().is_some_and(|kernel| kernel.interrupt(now)) {
            return;
        }
        if let Err(error) = signal_group(supervised.process.pid(), Signal::INT) {
            tracing::warn!(%error, "the interrupt was not delivered");
        }
    }
}
