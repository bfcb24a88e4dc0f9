//! The exit codes of `outlive`, the same for every command. `docs/cli.md` and `outlive --help` show this table.

use outlive_core::runtime::ExitStatus;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything asked for was done.
    Ok,
    /// A cell or task raised, or what was asked for failed for a reason without a code of its own.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// The kernel or runner died, hung or was killed in mid-work.
    Died,
    /// A cell, command or task took longer than its limit.
    TimedOut,
    /// The kernel, its environment or the command cannot be started, or the notebook cannot be used; a runner is not up,
    /// or none took the task.
    CannotStart,
    /// The daemon cannot be reached or started, or has another version.
    Daemon,
    /// Somebody else has it: the notebook belongs to another session, the group's name to another configuration.
    Conflict,
    /// No such session, run, group or task, or the name fits several.
    NotFound,
    /// The session was stopped before its work was done, or the task was cancelled.
    Stopped,
    /// A signal made this client detach (the work goes on), or ended the command that it ran.
    Signal(u8),
    /// The exit code of the command that it ran.
    Command(u8),
}

impl Exit {
    /// Standard output was closed by its reader (SIGPIPE).
    pub const CLOSED_OUTPUT: Self = Self::Signal(13);
    /// Ctrl-C, or the question that it raises was answered with detach (SIGINT).
    pub const INTERRUPTED: Self = Self::Signal(2);

    /// The number that the system is given.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Died => 3,
            Self::TimedOut => 4,
            Self::CannotStart => 5,
            Self::Daemon => 6,
            Self::Conflict => 7,
            Self::NotFound => 8,
            Self::Stopped => 9,
            Self::Signal(number) => 128 | number,
            Self::Command(code) => code,
        }
    }

    /// A command's own end, passed on as a shell does; `None` when nobody could wait for it.
    pub fn of_command(status: ExitStatus) -> Option<Self> {
        match status {
            ExitStatus::Code { code } => Some(Self::Command(u8::try_from(code & 0xff).unwrap_or(1))),
            ExitStatus::Signal { number, .. } => Some(Self::Signal(u8::try_from(number & 0x7f).unwrap_or(9))),
            ExitStatus::Unknown => None,
        }
    }
}

/// The table at the end of `outlive --help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    a cell or task raised an exception, or something else failed
  2    wrong command line or configuration
  3    the kernel or runner died, hung or was killed in mid-work
  4    a cell, command or task took longer than its limit
  5    kernel, environment, command, notebook or runner cannot be used
  6    the daemon cannot be reached or started, or has another version
  7    the notebook is open in another session, or the group is up otherwise
  8    no such session, run, group or task, or the name fits several
  9    the session was stopped before its work was done, or the task cancelled
  128+n  detached by signal n (Ctrl-C: 130); the work goes on
With `run -- COMMAND` the exit code is that of the command, 128+n when signal n ended it.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Died,
            Exit::TimedOut,
            Exit::CannotStart,
            Exit::Daemon,
            Exit::Conflict,
            Exit::NotFound,
            Exit::Stopped,
        ];
        for (place, exit) in all.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), place);
            assert!(HELP.contains(&format!("\n  {place}    ")), "{exit:?} is not in the help");
        }
    }

    #[test]
    fn a_command_ends_as_under_a_shell() {
        assert_eq!(Exit::of_command(ExitStatus::Code { code: 3 }).map(Exit::code), Some(3));
        let killed = ExitStatus::Signal { number: 9, core_dumped: true };
        assert_eq!(Exit::of_command(killed).map(Exit::code), Some(137));
        assert_eq!(Exit::of_command(ExitStatus::Unknown), None);
        assert_eq!(Exit::INTERRUPTED.code(), 130);
        assert_eq!(Exit::CLOSED_OUTPUT.code(), 141);
    }
}
