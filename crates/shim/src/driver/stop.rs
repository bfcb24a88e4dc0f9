//! The stop ladder at work.

use outlive_core::diagnosis::evidence::{Evidence, StopEvidence};
use outlive_core::runtime::{Program, StopStep, StopWhy};
use outlive_core::time::Now;
use outlive_process::stop::{kill_all, signal_group};
use outlive_protocol::shim::StateNotice;
use rustix::process::Signal;

use super::work::Work;
use super::{Driver, Life};
use crate::ladder::Stopping;

impl Driver {
    /// Begins to stop the process, or goes on harder.
    pub(super) fn stop(&mut self, why: StopWhy, from: StopStep, now: Now) {
        // It ends by itself only if it runs; killed it is where it stands.
        if from < StopStep::Kill {
            self.thaw(now);
        }
        match &self.life {
            Life::Waiting => self.stop_unstarted(why, from, now),
            Life::Supervising(supervised) if supervised.is_alive() => {
                let ladder = self.launch.ladder;
                match &mut self.stopping {
                    Some(stopping) => {
                        if stopping.harden(from, ladder, now.tick) {
                            self.act(from, now);
                        }
                    }
                    None => {
                        self.stopping = Some(Stopping::begin(why, from, ladder, now.tick));
                        self.act(from, now);
                    }
                }
            }
            Life::Supervising(_) | Life::Ended => {}
        }
    }

    /// Takes the next rung when its time has come.
    pub(super) fn climb(&mut self, now: Now) {
        let is_alive = matches!(&self.life, Life::Supervising(supervised) if supervised.is_alive());
        let ladder = self.launch.ladder;
        if is_alive
            && let Some(step) = self.stopping.as_mut().and_then(|stopping| stopping.expire(ladder, now.tick))
        {
            self.act(step, now);
        }
    }

    fn act(&mut self, step: StopStep, now: Now) {
        let is_kernel = matches!(self.launch.spec.program, Program::Kernel { .. });
        if step == StopStep::Ask && is_kernel && !self.open_runs().is_empty() {
            // A kernel hears the request to end only between cells; interrupted, it ends with its atexit handlers.
            self.interrupt(now);
        }
        let (Some(stopping), Life::Supervising(supervised)) = (&mut self.stopping, &mut self.life) else {
            return;
        };
        let why = stopping.why();
        supervised.pulse.stop();
        if let Some(runner) = supervised.work.runner_mut() {
            runner.stop_watchdogs();
        }
        supervised.memory.sample(supervised.process.pid());
        let group = supervised.process.pid();
        let mut reached = step;
        if step == StopStep::Ask {
            let grace_ms = self.launch.ladder.ask_ms;
            let is_asked = match &mut supervised.work {
                Work::Kernel(kernel) => kernel.shut_down(why == StopWhy::Restart, now),
                Work::Runner(runner) => runner.shut_down(grace_ms, why == StopWhy::Drain),
                Work::Command(_) | Work::Mute => false,
            };
            if !is_asked {
                // A command has no such protocol, and a kernel that is not ready does not hear it.
                stopping.harden(StopStep::Term, self.launch.ladder, now.tick);
                reached = StopStep::Term;
            }
        }
        let sent = match reached {
            StopStep::Ask => Ok(()),
            // One that is stopped (SIGSTOP) handles SIGTERM only when it goes on.
            StopStep::Term => {
                signal_group(group, Signal::TERM).and_then(|()| signal_group(group, Signal::CONT))
            }
            StopStep::Kill => {
                let container = supervised.container.clone();
                supervised.killing.spawn(async move { kill_all(&container, Some(group), Some(group)).await });
                Ok(())
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, ?reached, "a signal was not delivered");
        }
        self.record(StateNotice::Stopping { why, step: reached }, now);
    }

    /// A command that was not executed yet never will be.
    fn stop_unstarted(&mut self, why: StopWhy, step: StopStep, now: Now) {
        let argv = self.launch.spec.program.argv().to_vec();
        let evidence = Evidence { stop: Some(StopEvidence { why, step }), ..self.bare_evidence(argv) };
        self.record(StateNotice::Stopping { why, step }, now);
        self.record_end(self.unspawned(evidence, now.wall), now);
    }
}
