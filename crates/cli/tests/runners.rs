//! Runners as a user meets them: a file, groups, members, tasks. The runner here is a shell script.

mod home;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use home::{Home, said};
use serde_json::Value;

/// Serves `echo`, `raise`, `die`, `slow` (until it is cancelled) and `step`, which says a line, waits for the file
/// `go-KEY`, and goes on.
const RUNNER: &str = r#"#!/bin/bash
set -uf
say() { printf '%s\n' "$1" >&4; }
field() { [[ $line =~ \"$1\":\"?([^\",}]*) ]] && REPLY=${BASH_REMATCH[1]}; }
say '{"type":"hello","version":1,"tasks":["echo","raise","die","slow","step"],"concurrency":1,"sdk":"bash"}'
say '{"type":"state","state":"loading","done":1,"total":2}'
say '{"type":"state","state":"ready"}'
about=
while IFS= read -r line <&3; do
  field type
  case $REPLY in
    ping) field n && say "{\"type\":\"pong\",\"n\":$REPLY}" ;;
    cancel) say "{\"type\":\"cancelled\",$about}" ;;
    shutdown) say '{"type":"end"}'; exit 0 ;;
    task)
      field id && about="\"id\":\"$REPLY\""
      field attempt && attempt=$REPLY && about="$about,\"attempt\":$REPLY"
      field key && key=$REPLY
      field task
      case $REPLY in
        echo) say "{\"type\":\"chunk\",$about,\"text\":\"one \"}"; say "{\"type\":\"chunk\",$about,\"json\":{\"n\":2}}"
          input=${line#*\"input\":}
          say "{\"type\":\"result\",$about,\"value\":${input%\}}}" ;;
        raise) say "{\"type\":\"error\",$about,\"exception\":{\"type\":\"ValueError\",\"message\":\"no\",\"traceback\":\"Traceback\\nValueError: no\\n\"}}" ;;
        die) echo "assertion failed: weights are there" >&2; say "{\"type\":\"chunk\",$about,\"text\":\"so far\\n\"}"; exit 7 ;;
        step) say "{\"type\":\"chunk\",$about,\"text\":\"$attempt before\\n\"}"
          while ! [ -e "go-$key" ]; do sleep 0.05; done
          say "{\"type\":\"chunk\",$about,\"text\":\"$attempt after\\n\"}"; say "{\"type\":\"result\",$about}" ;;
        slow) say "{\"type\":\"chunk\",$about,\"text\":\"begun\\n\"}" ;;
      esac ;;
  esac
done
"#;

const FILE: &str = r#"
[group.pair]
command = ["./serve"]
count = 2
env = { RANK = "{rank}" }

[group.plain]
command = "echo I am here; exec sleep 1000"
protocol = "none"
"#;

const BAD: &str = r#"
[group.bad]
command = "echo 'there are no weights' >&2; exit 3"
restarts_max = 1
backoff = "10ms"
"#;

fn with_runner() -> Home {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).expect("written");
    write("serve", RUNNER);
    write("runners.toml", FILE);
    write("bad.toml", BAD);
    std::fs::set_permissions(home.path().join("serve"), std::fs::Permissions::from_mode(0o755)).expect("set");
    home
}

fn up() -> Home {
    let home = with_runner();
    let (code, out, err) = home.said(&["up", "runners.toml"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    home
}

fn json(home: &Home, arguments: &[&str]) -> Value {
    let (code, out, err) = home.said(arguments);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// A client in the background, and its first line.
fn begun(home: &Home, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = home.command(arguments);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut out = BufReader::new(client.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("read");
    (client, out, line)
}

fn rest(client: Child, mut out: BufReader<std::process::ChildStdout>) -> (i32, String, String) {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut out, &mut text).expect("read");
    let (code, _, err) = said(client.wait_with_output().expect("waited"));
    (code, text, err)
}

#[test]
fn a_file_brings_groups_up_once_and_takes_them_down() {
    let home = up();
    let (code, _, err) = home.said(&["up", "runners.toml", "pair"]);
    assert!(code == 0 && err.contains("pair is up already (2 runners)"), "{err}");
    let (code, out, _) = home.said(&["runners"]);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(code, 0);
    assert_eq!(rows[0][..5], ["GROUP", "MEMBER", "STATE", "TASKS", "QUEUED"], "{out}");
    assert_eq!(rows[1][..5], ["pair", "pair-0", "ready", "0/1", "0"], "{out}");
    assert_eq!(rows[3][..4], ["plain", "plain-0", "ready", "-"], "{out}");
    let (_, out, _) = home.said(&["ps"]);
    assert!(out.contains("pair ") && out.contains("2/2 ready") && out.contains("1/1 ready"), "{out}");
    let (_, out, _) = home.said(&["logs", "plain"]);
    assert_eq!(out, "I am here\n");
    // Another configuration under the same name.
    let other = FILE.replace("count = 2", "count = 1");
    std::fs::write(home.path().join("runners.toml"), other).expect("written");
    let (code, _, err) = home.said(&["up", "runners.toml", "pair"]);
    assert!(code == 7 && err.contains("--replace"), "{err}");
    let (code, _, err) = home.said(&["up", "runners.toml", "pair", "--replace"]);
    assert!(code == 0 && err.contains("pair comes up (1 runner)"), "{err}");
    let (code, _, err) = home.said(&["down", "plain"]);
    assert!(code == 0 && err.contains("plain is down"), "{err}");
    let (code, _, err) = home.said(&["down", "runners.toml"]);
    assert!(code == 0 && err.contains("pair is down\nplain is not up"), "{err}");
    let (code, _, err) = home.said(&["down", "pair"]);
    assert!(code == 8 && err.contains("no group \"pair\" is up"), "{err}");
    let (_, out, err) = home.said(&["runners"]);
    assert!(out.is_empty() && err.contains("no group of runners is up"), "{err}");
}

#[test]
fn a_shell_is_offered_groups_members_and_tasks() {
    let home = with_runner();
    // As fish asks: the words, the last of which is to be completed; candidates with what they are, a line each.
    let offered = |words: &[&str]| {
        let mut command = home.command(&["--", "outlive"]);
        let (code, out, err) =
            said(command.args(words).env("OUTLIVE_COMPLETE", "fish").output().expect("started"));
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    assert_eq!(offered(&["runners", "p"]), "", "no daemon runs");
    assert!(!home.path().join("outlive").exists(), "and none is started for that");
    assert_eq!(home.said(&["up", "runners.toml"]).0, 0);
    assert_eq!(offered(&["runners", "pa"]), "pair\trunners idle\n");
    assert_eq!(offered(&["runner", "stop", "pair/"]), "pair/pair-0\npair/pair-1\n");
    assert_eq!(offered(&["down", "b"]), "bad.toml\n");
    let id = home.said(&["task", "submit", "pair", "echo", "--detach"]).1;
    home.said(&["task", "attach", "pair", "latest"]);
    assert_eq!(
        offered(&["task", "attach", "pair", &id[..4]]),
        format!("{}\tpair echo ended\n", id.trim_end())
    );
    assert!(offered(&["explain", "pl"]).starts_with("plain\t"));
}

#[test]
fn a_file_that_is_wrong_starts_nothing() {
    let home = with_runner();
    let text = FILE.replace("count = 2", "cuont = 2").replace("\"none\"", "\"nothing\"");
    std::fs::write(home.path().join("runners.toml"), text).expect("written");
    let (code, out, err) = home.said(&["up", "runners.toml"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("runners.toml:4:1: unknown key `cuont`"), "{err}");
    assert!(err.contains("did you mean `count`?"), "{err}");
    assert!(err.contains("runners.toml:9:12: `protocol` is \"runner\" or \"none\""), "{err}");
    assert!(!home.path().join("outlive").exists(), "no daemon was asked");
}

// A14: it gives up, visibly.
#[test]
fn a_member_that_cannot_come_up_is_explained() {
    let home = with_runner();
    let (code, _, err) = home.said(&["up", "bad.toml"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("there are no weights"), "the evidence: {err}");
    assert!(err.contains("Outlive gives up"), "{err}");
    assert!(err.contains("bad/bad-0 is not up"), "{err}");
    let (code, _, err) = home.said(&["task", "submit", "bad", "echo"]);
    assert!(code == 5 && err.contains("bad-0"), "who is to blame: {err}");
    let (code, out, _) = home.said(&["explain", "bad/bad-0"]);
    assert!(code == 0 && out.contains("there are no weights"), "{out}");
}

#[test]
fn a_task_gives_its_output_its_result_and_its_exit_code() {
    let home = up();
    let (code, out, err) = home.said(&["task", "submit", "pair", "echo", "n=3", "who=Ada Lovelace"]);
    assert_eq!((code, out.as_str()), (0, "one \n{\"n\":2}\n{\"n\":3,\"who\":\"Ada Lovelace\"}\n"), "{err}");
    assert_eq!(err, "", "there is nothing to say besides");
    let (_, out, _) = home.said(&["task", "submit", "pair", "echo", "[1]", "--result"]);
    assert_eq!(out, "[1]\n");
    let (code, out, err) = home.said(&["task", "submit", "pair", "raise"]);
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "Traceback\nValueError: no\n"));
    let (code, _, err) = home.said(&["task", "submit", "pair", "dance"]);
    assert!(code == 2 && err.contains("die, echo, raise, slow, step"), "{err}");
    let (code, out, err) = home.said(&["task", "submit", "pair", "slow", "--timeout", "100ms"]);
    assert_eq!((code, out.as_str()), (4, "begun\n"), "{err}");
    assert!(err.contains("slow took longer than 0.1 s"), "{err}");
    let (_, out, _) = home.said(&["task", "list", "pair"]);
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(out.contains("failed: ValueError") && out.contains("took longer than"), "{out}");
    let (code, out, _) = home.said(&["logs", "pair", "--run", "1"]);
    assert_eq!((code, out.as_str()), (0, "one \n{\"n\":2}\n{\"n\":3,\"who\":\"Ada Lovelace\"}\n"));
}

// A11: whoever waits for a task is told why its runner died.
#[test]
fn a_death_is_told_to_the_task_with_its_cause() {
    let home = up();
    let (code, out, err) = home.said(&["task", "submit", "pair", "die"]);
    assert_eq!((code, out.as_str()), (3, "so far\n"), "{err}");
    assert!(err.contains("assertion failed: weights are there"), "the evidence: {err}");
    assert!(err.ends_with("`outlive explain pair` has the report\n"), "{err}");
    let (_, out, _) = home.said(&["explain", "pair"]);
    assert!(out.contains("weights are there") && out.contains("(die)"), "{out}");
    let (code, _, err) = home.said(&["runner", "start", "pair"]);
    assert_eq!(code, 0, "waits until it is back: {err}");
    assert_eq!(home.said(&["task", "submit", "pair", "echo", "1", "--result"]).1, "1\n");
}

#[test]
fn members_are_stopped_and_started() {
    let home = up();
    let (code, _, err) = home.said(&["runner", "stop", "pair/pair-1"]);
    assert!(code == 0 && !err.contains("pair-0"), "{err}");
    let group = json(&home, &["runners", "pair", "--json"]);
    let pid = |group: &Value, rank: usize| group[0]["group"]["members"][rank]["runtime"]["pid"].clone();
    assert!(pid(&group, 1).is_null() && pid(&group, 0).is_number(), "{group}");
    assert_eq!(
        home.said(&["task", "submit", "pair", "echo", "1", "--result"]).1,
        "1\n",
        "the other one serves"
    );
    assert_eq!(home.said(&["runner", "stop", "pair"]).0, 0);
    let (code, _, err) = home.said(&["task", "submit", "pair", "echo", "--wait", "0"]);
    assert!(code == 5 && err.contains("was stopped"), "{err}");
    assert_eq!(home.said(&["runner", "start", "pair"]).0, 0);
    let before = json(&home, &["runners", "pair", "--json"]);
    assert_eq!(home.said(&["runner", "restart", "pair/pair-0"]).0, 0);
    let after = json(&home, &["runners", "pair", "--json"]);
    assert_ne!(pid(&before, 0), pid(&after, 0));
    assert_eq!(pid(&before, 1), pid(&after, 1), "only the one that was named");
    let (code, _, err) = home.said(&["runner", "stop", "pair/pair-9"]);
    assert!(code == 8 && err.contains("pair-0, pair-1"), "{err}");
}

#[test]
fn a_task_goes_on_without_its_client_and_is_found_again() {
    let home = up();
    let (code, id, err) = home.said(&["task", "submit", "pair", "step", "--key", "k", "--detach"]);
    assert!(code == 0 && err.contains("outlive task attach pair"), "{err}");
    let id = id.trim_end();
    let again = home.said(&["task", "submit", "pair", "step", "--key", "k", "--detach"]).1;
    assert_eq!(again.trim_end(), id, "the same key is the same task");
    let (client, out, line) = begun(&home, &["task", "attach", "pair", &id[..8]]);
    assert_eq!(line, "1 before\n");
    std::fs::write(home.path().join("go-k"), "").expect("written");
    let (code, out, err) = rest(client, out);
    assert_eq!((code, out.as_str()), (0, "1 after\n"), "{err}");
    let (_, out, _) = home.said(&["task", "attach", "pair", "latest", "--cursor", "1.1"]);
    assert_eq!(out, "1 after\n", "from there on");
    let (code, _, err) = home.said(&["task", "cancel", "pair", &id[..8]]);
    assert!(code == 0 && err.contains("has ended already: ok"), "{err}");
}

#[test]
fn an_interrupt_leaves_the_task_or_cancels_it() {
    let home = up();
    let interrupt = |client: &Child| {
        let pid = rustix::process::Pid::from_child(client);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    };
    let (client, out, line) = begun(&home, &["task", "submit", "pair", "slow"]);
    assert_eq!(line, "begun\n");
    interrupt(&client);
    let (code, _, err) = rest(client, out);
    assert!(code == 130 && err.contains("the task goes on"), "{err}");
    let (code, _, err) = home.said(&["task", "cancel", "pair", "latest"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = home.said(&["task", "attach", "pair", "latest"]);
    assert!(code == 9 && err.contains("slow cancelled"), "{err}");
    let (client, out, _) = begun(&home, &["task", "submit", "pair", "slow", "--cancel-on-interrupt"]);
    interrupt(&client);
    let (code, _, err) = rest(client, out);
    assert!(code == 9 && err.contains("slow cancelled"), "{err}");
}

// D1: the daemon dies, the task goes on, and nothing is shown twice.
#[test]
fn a_follower_comes_back_when_the_daemon_does() {
    let home = up();
    let (client, out, line) = begun(&home, &["task", "submit", "pair", "step", "--key", "d"]);
    assert_eq!(line, "1 before\n");
    let status = json(&home, &["daemon", "status", "--json"]);
    let pid = i32::try_from(status["pid"].as_i64().expect("a pid")).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("sent");
    std::fs::write(home.path().join("go-d"), "").expect("written");
    let (code, out, err) = rest(client, out);
    assert_eq!((code, out.as_str()), (0, "1 after\n"), "{err}");
    let (_, out, _) = home.said(&["runners", "pair"]);
    assert_eq!(out.matches(" ready ").count(), 2, "{out}");
}

#[test]
fn an_idempotent_task_is_begun_again_by_the_other_runner() {
    let home = up();
    let (client, out, line) = begun(&home, &["task", "submit", "pair", "step", "--key", "r", "--idempotent"]);
    assert_eq!(line, "1 before\n");
    let group = json(&home, &["runners", "pair", "--json"]);
    let members = group[0]["group"]["members"].as_array().expect("members");
    let busy = members.iter().find(|member| !member["running"].as_array().expect("a list").is_empty());
    let pid = busy.expect("one has it")["runtime"]["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("sent");
    std::fs::write(home.path().join("go-r"), "").expect("written");
    let (code, out, err) = rest(client, out);
    assert_eq!((code, out.as_str()), (0, "2 before\n2 after\n"), "{err}");
    assert!(err.contains("SIGKILL") && err.contains("attempt 2 begins on another runner"), "{err}");
}
