//! An alarm by the clock that goes on while the machine is suspended: it is late by no more than the suspension, and
//! then it rings at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long the machine has been on, suspensions included (CLOCK_BOOTTIME).
#[must_use]
pub fn since_boot() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}

/// One alarm, not set.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Makes one.
    ///
    /// # Errors
    /// As timerfd_create(2): no file descriptors left. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: an OwnedFd that is moved in stays open, and the same, until the AsyncFd is dropped.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer })
    }

    /// Sets it, in the place of whatever it was set to; zero rings at once.
    ///
    /// # Errors
    /// As timerfd_settime(2); there are none for such a time.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        // All zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Waits until it rings. Cancel-safe.
    pub async fn rings(&self) {
        let mut count = [0_u8; 8];
        let rung =
            self.timer.async_io(Interest::READABLE, |timer| Ok(rustix::io::read(timer, &mut count)?)).await;
        if let Err(error) = rung {
            tracing::error!(%error, "an alarm cannot be read");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_once_when_it_was_set_to_and_can_be_set_anew() {
        let alarm = Alarm::new().unwrap();
        let begun = since_boot();
        alarm.set(Duration::from_secs(1_000)).unwrap();
        alarm.set(Duration::from_millis(20)).unwrap();
        tokio::time::timeout(Duration::from_secs(20), alarm.rings()).await.expect("it rings");
        assert!(since_boot() - begun >= Duration::from_millis(20));
        let again = tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await;
        assert!(again.is_err(), "once");
        alarm.set(Duration::ZERO).unwrap();
        tokio::time::timeout(Duration::from_secs(20), alarm.rings()).await.expect("at once");
    }
}
