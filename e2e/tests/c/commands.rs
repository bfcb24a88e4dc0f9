//! The commands about notebooks that stay open, as somebody uses them: `exec`, `watch`, `cells`, `rest`, `close`, `trust`,
//! `save-as`, `sessions`, also at a terminal.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use outlive_e2e::clock::{Deadline, PATIENCE, eventually, within};
use outlive_e2e::{Session, Signal, World, process};
use serde_json::json;

/// A terminal of 24 lines and 80 columns that runs a command: what it relays is what a person would see and type.
const RELAY: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// `outlive` at a terminal. Dropped, it is killed.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// All that was written to the terminal, its control sequences too.
    written: Vec<u8>,
    /// How much of it was waited for.
    read: usize,
}

impl Terminal {
    fn run(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command(world.python());
        command.args(["-c", RELAY]).arg(outlive_e2e::world::binary()).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, screen) = channel();
        let mut output = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keyboard = child.stdin.take().unwrap();
        Self { child, keyboard, screen, written: Vec::new(), read: 0 }
    }

    /// Waits until this is written, behind what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let deadline = within(PATIENCE);
        loop {
            let rest = &self.written[self.read..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.read += at + text.len();
                return;
            }
            self.take(deadline).unwrap_or_else(|| panic!("{text:?} was not written: {}", self.shown()));
        }
    }

    fn take(&mut self, deadline: Deadline) -> Option<()> {
        self.written.extend(self.screen.recv_timeout(deadline.left()).ok()?);
        Some(())
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Its exit code and all that it wrote; a signal as a negative number.
    #[track_caller]
    fn end(&mut self) -> (i32, String) {
        let deadline = within(PATIENCE);
        while self.take(deadline).is_some() {}
        assert!(!deadline.is_over(), "it did not end: {}", self.shown());
        (self.child.wait().unwrap().code().unwrap(), self.shown())
    }

    /// The command itself, below what relays.
    fn signal(&self, signal: Signal) {
        let relay = i32::try_from(self.child.id()).unwrap();
        process::children(relay).iter().for_each(|process| process::signal(process.pid, signal));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a window's title is set (xterm, OSC 0).
fn title(name: &str) -> String {
    format!("\x1b]0;{name} – outlive\x07")
}

/// The terminal as it was: the cursor is there again, and what was on the screen before.
const RESTORED: &str = "\x1b[?25h\x1b[?1049l";

/// `exec` prints what the code prints and ends as it went; at a terminal a program's question is asked, also when its
/// kernel was up before.
#[test]
fn exec_prints_asks_and_ends_as_the_code_did() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["print('one')", "1 / 0", "print('never')"]);
    let name = path.to_str().unwrap();
    let id = world.run(&["open", name]).assert_code(0).stdout.trim().to_owned();

    let ran = world.run(&["exec", &id, "import os; print('to', 'out'); 6 * 7"]);
    assert_eq!(ran.assert_code(0).stdout, "to out\n42\n", "{ran}");
    let kernel = Session::existing(&world.api(), &id).pid();

    let mut terminal = Terminal::run(&world, &["exec", &id, "print('hello', input('your name? '))"]);
    terminal.wait_for("your name? ");
    terminal.press("Ada\n");
    terminal.wait_for("hello Ada");
    assert_eq!(terminal.end().0, 0, "{}", terminal.shown());
    assert_eq!(Session::existing(&world.api(), &id).pid(), kernel, "it was up all the time");

    let all = world.run(&["exec", &id, "--all"]);
    assert_eq!(all.assert_code(1).stdout, "one\n", "{all}");
    assert!(all.stderr.contains("ZeroDivisionError") && all.stderr.contains("1 not run"), "{all}");

    let refused = world.run(&["exec", &id, "--cell", "nope"]);
    assert!(refused.assert_code(2).stderr.contains(&format!("`outlive cells {}`", &id[..8])), "{refused}");
    let cells = world.run(&["cells", "a.ipynb"]);
    let rows: Vec<Vec<&str>> =
        cells.assert_code(0).stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["1", "cell-0", "code", "ok", "print('one')"], "{cells}");
    assert_eq!(rows[2][..5], ["2", "cell-1", "code", "failed:", "ZeroDivisionError"], "{cells}");
    assert_eq!(rows[3][1..4], ["cell-2", "code", "skipped"], "{cells}");
    let json = world.run(&["cells", &id, "--json"]).json();
    assert_eq!((&json[1]["id"], &json[1]["source"]), (&json!("cell-1"), &json!("1 / 0")));
    assert_eq!(world.run(&["exec", &id, "--cell", rows[1][1]]).assert_code(0).stdout, "one\n");

    let display =
        "h = display('starting', display_id=True)\nfor n in range(5): h.update(f'step {n}')\nprint('last')";
    let updated = world.run(&["exec", &id, display]);
    assert_eq!(updated.assert_code(0).stdout, "'starting'\nlast\n'step 4'\n", "{updated}");
}

/// Who looks sees what has happened before, what happens, and by the window's title where the notebook is.
#[test]
fn watch_shows_what_was_and_what_comes_and_its_title_follows_the_file() {
    let world = World::new();
    let _daemon = world.daemon();
    let bar = "for n in range(50): print(f'\\r{n} of 50', end='', flush=True)";
    let path = world.notebook("a.ipynb", &["# Title", "print('first')\nprint('second')", "1 / 0", bar]);
    let mut file = outlive_e2e::notebook::read(&path);
    file["cells"][0] = json!({"cell_type": "markdown", "id": "cell-0", "metadata": {}, "source": "# Title"});
    fs::write(&path, file.to_string()).unwrap();
    let id = world.run(&["open", "a.ipynb"]).assert_code(0).stdout.trim().to_owned();
    world.run(&["exec", &id, "--all"]).assert_code(1);

    let mut terminal = Terminal::run(&world, &["watch", &id]);
    terminal.wait_for(&title("a.ipynb"));
    terminal.wait_for("q leaves");
    let shown = terminal.shown();
    let line = |text: &str| {
        let line = shown.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text:?}: {shown}")).to_owned()
    };
    assert!(!shown.contains("# # Title") && shown.contains("# Title"), "{shown}");
    assert!(line("print('first')").contains("ok") && shown.contains("│ second"), "{shown}");
    assert!(line("1 / 0").contains("failed: ZeroDivisionError"), "{shown}");
    assert!(shown.contains("│ ZeroDivisionError: division by zero"), "{shown}");

    let mut lines = world.spawn(&["watch", "--plain", &id]);
    lines.wait_for("cell cell-1 ended before: ok", within(PATIENCE));
    lines.wait_for("second", within(PATIENCE));
    lines.wait_for("cell cell-2 ended before: failed: ZeroDivisionError", within(PATIENCE));
    lines.wait_for("kernel idle, saved", within(PATIENCE));
    world.run(&["exec", &id, "--cell", "cell-3"]).assert_code(0);
    lines.wait_for("cell cell-3 running", within(PATIENCE));
    let next = lines.wait_for("50", within(PATIENCE));
    assert_eq!(next.text, "49 of 50\n", "a bar is told in its end state");
    lines.wait_for("cell cell-3 ok", within(PATIENCE));
    terminal.wait_for("│ 49 of 50");

    fs::create_dir(world.work().join("there")).unwrap();
    let moved = world.run(&["save-as", &id, "there/b"]);
    assert_eq!(Path::new(moved.assert_code(0).stdout.trim()), world.work().join("there/b.ipynb"));
    let base = fs::canonicalize(world.work()).unwrap();
    let stays =
        format!("its kernel stays in {} while it runs; `outlive restart {}`", base.display(), &id[..8]);
    assert!(moved.stderr.contains(&stays), "{moved}");
    terminal.wait_for(&title("b.ipynb"));
    fs::rename(world.work().join("there/b.ipynb"), world.work().join("there/c.ipynb")).unwrap();
    terminal.wait_for(&title("c.ipynb"));
    lines.wait_for("there/c.ipynb", within(PATIENCE));

    terminal.press("q");
    let (code, written) = terminal.end();
    assert!(code == 0 && written.contains(RESTORED), "{code}: {written}");
    let mut killed = Terminal::run(&world, &["watch", &id]);
    killed.wait_for("q leaves");
    killed.signal(Signal::TERM);
    let (code, written) = killed.end();
    assert!(code == 143 && written.contains(RESTORED), "{code}: {written}");

    assert!(world.run(&["close", "c.ipynb"]).assert_code(0).stderr.starts_with("closed "));
    assert_eq!(lines.finish(within(PATIENCE)).code(), Some(0), "it ends with the session");
}

/// Who watches is told that the daemon is away, and that it is back.
#[test]
fn watch_says_that_the_daemon_is_away() {
    let mut world = World::new();
    world.set("OUTLIVE_START_DAEMON", "false");
    let daemon = world.daemon();
    let session = world.untitled();
    let mut terminal = Terminal::run(&world, &["watch", &session.id]);
    terminal.wait_for("untitled: it has no file yet");
    daemon.kill();
    terminal.wait_for("the daemon does not answer");
    let _daemon = world.daemon();
    session.add_cell("x = 'it is back'");
    terminal.wait_for("it is back");
    terminal.press("q");
    assert_eq!(terminal.end().0, 0, "{}", terminal.shown());
}

/// What changes a session says what it did, and what a refusal advises can be typed.
#[test]
fn what_changes_a_session_says_what_it_did() {
    let world = World::new();
    let _daemon = world.daemon();
    let _path =
        world.notebook("a.ipynb", &["import time; print('runs', flush=True); time.sleep(600)", "x = 1"]);
    let missing = world.run(&["trust", "a.ipynb"]);
    assert!(missing.assert_code(8).stderr.contains("`outlive open --trust a.ipynb`"), "{missing}");
    let id = world.run(&["open", "a.ipynb"]).assert_code(0).stdout.trim().to_owned();
    let short = &id[..8];
    let rows = world.run(&["sessions"]).stdout;
    assert!(rows.lines().any(|row| row.starts_with(short) && row.contains("a.ipynb")), "{rows}");
    assert_eq!(world.run(&["trust", "a.ipynb"]).assert_code(0).stderr, "a.ipynb is trusted\n");
    assert_eq!(world.api().get(&format!("/v1/sessions/{id}"))["trust"], "trusted");
    let revoked = world.run(&["trust", "a.ipynb", "--revoke"]);
    assert_eq!(revoked.assert_code(0).stderr, "a.ipynb is not trusted any more\n");

    let mut waits = world.spawn(&["exec", &id, "--all"]);
    waits.wait_for("runs", within(PATIENCE));
    let rests = world.run(&["rest", &id]);
    let said = "rests; the next run starts it again; 1 that ran was stopped, 1 that waited will not run\n";
    assert!(rests.assert_code(0).stderr.ends_with(said), "{rests}");
    waits.finish(within(PATIENCE)).assert_code(9);
    let ran = world.run(&["exec", &id, "print('up again')"]);
    assert_eq!(ran.assert_code(0).stdout, "up again\n", "{ran}");

    let joined = world.run(&["open", "-k", "other", "a.ipynb"]);
    assert!(joined.assert_code(0).stderr.contains("`--kernel` has no effect"), "{joined}");
    let closed = world.run(&["close", "a.ipynb"]);
    assert_eq!(closed.assert_code(0).stderr, format!("closed {short} (a.ipynb)\n"));
    let over = world.run(&["exec", &id, "1"]);
    assert!(over.assert_code(1).stderr.contains("`outlive open "), "{over}");
    let again = world.run(&["new", "--id", &id]);
    assert!(again.assert_code(1).stderr.contains(&format!("session {id} has ended\n")), "{again}");
    assert!(again.stdout.is_empty() && again.stderr.contains("give another `--id`"), "{again}");

    let untitled = world.run(&["new"]).assert_code(0).stdout.trim().to_owned();
    let unsaved = world.run(&["exec", &untitled, "1"]);
    unsaved.assert_code(0);
    let session = Session::existing(&world.api(), &untitled);
    eventually("the kernel is idle", within(PATIENCE), || {
        (outlive_e2e::session::runtime_state(&session.view()) == "idle").then_some(())
    });
    let saved = world.run(&["save", &untitled, "empty"]);
    assert!(
        saved.assert_code(0).stderr.contains("what `outlive exec CODE` ran stands in no cell"),
        "{saved}"
    );
    let moved = world.run(&["save", &untitled, "elsewhere"]);
    assert!(moved.stderr.contains(&format!("`outlive save-as {} PATH`", &untitled[..8])), "{moved}");
}
