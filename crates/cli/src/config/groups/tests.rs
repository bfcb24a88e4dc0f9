//! What a file says, and what is said of a file that is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use outlive_core::runtime::Program;
use tempfile::TempDir;

use super::*;

fn environment() -> BTreeMap<String, String> {
    [("PATH", "/usr/bin:/bin"), ("SHLVL", "3"), ("TERM", "xterm"), ("HF_HOME", "/models")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// A file in a directory of its own.
fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("runners.toml");
    std::fs::write(&path, text).expect("written");
    (folder, path)
}

fn groups(text: &str) -> Vec<(String, GroupConfig)> {
    let (_folder, path) = file(text);
    read(&path, &environment()).unwrap_or_else(|failure| panic!("{}", failure.what))
}

fn wrong(text: &str) -> String {
    let (folder, path) = file(text);
    let failure = read(&path, &environment()).map(drop).expect_err("this file is wrong");
    assert_eq!(failure.exit, Exit::Usage);
    failure.what.replace(&format!("{}/", folder.path().display()), "")
}

fn program(member: &outlive_protocol::http::MemberConfig) -> (&[String], Speaks, Watchdogs) {
    match &member.launch.program {
        Program::Runner { argv, speaks, watch, .. } => (argv, *speaks, *watch),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_smallest_file_has_the_defaults() {
    let groups = groups("[group.llm]\ncommand = \"exec cat\"\n");
    let [(name, config)] = &groups[..] else { panic!("{groups:?}") };
    assert_eq!((name.as_str(), config.members.len(), config.members[0].name.as_str()), ("llm", 1, "llm-0"));
    let (argv, speaks, watch) = program(&config.members[0]);
    assert_eq!(argv, ["sh", "-c", "exec cat"]);
    assert_eq!((speaks, watch), (Speaks::Protocol, Watchdogs::default()));
    assert_eq!(config.restart.restart, RestartType::Permanent);
    assert_eq!((config.strategy, config.on_hang), (Strategy::OneForOne, HangPolicy::Restart));
    assert_eq!((config.wait_ms, config.cancel_grace_ms), (None, None));
}

#[test]
fn everything_that_can_be_said_is_heard() {
    let groups = groups(
        r#"
[group.llm]
command = ["cat", "--rank={rank}", "of {count}"]
count = 2
strategy = "one_for_all"
cwd = "."
env = { CUDA_VISIBLE_DEVICES = "{rank}", THREADS = 4, FAST = true }
memory = "8GiB"
protocol = "runner"
restart = "transient"
restarts_max = 7
period = "2m"
backoff = "20s"
on_hang = "report"
on_node_loss = "leave"
wait = "0"
cancel_grace = "1s"
[group.llm.watch]
load = "off"
first_chunk = "10s"

[group.a-side]
command = "sleep 9"
protocol = "none"
"#,
    );
    assert_eq!(
        groups.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["llm", "a-side"],
        "as written"
    );
    let config = &groups[0].1;
    let second = &config.members[1];
    let (argv, _, watch) = program(second);
    assert_eq!(argv, ["cat", "--rank=1", "of 2"]);
    assert_eq!((watch.load_ms, watch.first_chunk_ms), (None, Some(10_000)));
    assert_eq!(watch.between_chunks_ms, Watchdogs::default().between_chunks_ms);
    let env = &second.launch.env;
    let said =
        ["CUDA_VISIBLE_DEVICES", "THREADS", "FAST", "OUTLIVE_RUNNER_RANK", "OUTLIVE_RUNNER_COUNT", "HF_HOME"];
    assert_eq!(said.map(|name| env[name].as_str()), ["1", "4", "true", "1", "2", "/models"]);
    assert_eq!(env["PWD"], second.launch.cwd);
    assert!(
        !env.contains_key("SHLVL") && !env.contains_key("TERM"),
        "from another terminal it is the same group"
    );
    assert_eq!(second.launch.memory_bytes_max, Some(8 << 30));
    assert_eq!((config.strategy, config.on_node_loss), (Strategy::OneForAll, Some(AfterLoss::Leave)));
    let restart = config.restart;
    assert_eq!((restart.restart, restart.restarts_max), (RestartType::Transient, 7));
    assert_eq!((restart.period_ms, restart.backoff_ms, restart.backoff_ms_max), (120_000, 20_000, 20_000));
    assert_eq!((config.wait_ms, config.cancel_grace_ms), (Some(0), Some(1_000)));
    assert_eq!(program(&groups[1].1.members[0]).1, Speaks::Nothing);
}

#[test]
fn programs_and_directories_are_relative_to_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = file("[group.a]\ncommand = [\"./bin/serve\", \"x\"]\ncwd = \"data\"\n");
    std::fs::create_dir_all(folder.path().join("bin")).expect("made");
    std::fs::create_dir_all(folder.path().join("data")).expect("made");
    let serve = folder.path().join("bin/serve");
    std::fs::write(&serve, "#!/bin/sh\n").expect("written");
    let refused = read(&path, &environment()).map(drop).expect_err("it is no program yet");
    assert!(refused.what.contains("bin/serve may not be executed"), "{}", refused.what);
    std::fs::set_permissions(&serve, std::fs::Permissions::from_mode(0o755)).expect("set");
    let groups = read(&path, &environment()).expect("valid");
    let launch = &groups[0].1.members[0].launch;
    assert_eq!(program(&groups[0].1.members[0]).0, [serve.to_str().expect("text"), "x"]);
    assert_eq!(Path::new(&launch.cwd), folder.path().join("data"));
}

#[test]
fn a_mistake_is_shown_where_it_stands_with_what_is_allowed() {
    let expected = "\
runners.toml:3:1: unknown key `comand_line`
  |
3 | comand_line = 1
  | ^^^^^^^^^^^
  = the keys are: command, count, strategy, cwd, env, memory, protocol, restart, restarts_max, period, backoff, on_hang, on_node_loss, wait, cancel_grace, watch";
    assert_eq!(wrong("[group.a]\ncommand = \"cat\"\ncomand_line = 1\n"), expected);
    let expected = "\
runners.toml:2:1: unknown key `comand`
  |
2 | comand = \"cat\"
  | ^^^^^^
  = did you mean `command`?

runners.toml:3:12: `strategy` is \"one_for_one\" or \"one_for_all\"
  |
3 | strategy = \"all\"
  |            ^^^^^

runners.toml:4:9: `count` is a whole number from 1 to 64
  |
4 | count = 0
  |         ^

runners.toml:1:8: [group.a] has no `command`
  |
1 | [group.a]
  |        ^
  = it is what starts a runner, for instance [\"python3\", \"serve.py\"]";
    assert_eq!(wrong("[group.a]\ncomand = \"cat\"\nstrategy = \"all\"\ncount = 0\n"), expected);
}

#[test]
fn each_kind_of_mistake_has_words() {
    let key = |line: &str| wrong(&format!("[group.a]\ncommand = \"cat\"\n{line}\n"));
    for (line, said) in [
        ("wait = 5", "3:8: `wait`: expected a time span with its unit, for instance 250ms, 30s"),
        ("period = \"0\"", "`period` is longer than that"),
        ("memory = \"lots\"", "`memory`: expected a size, for instance 512M or 2G"),
        ("restart = true", "`restart` is a string, not a boolean"),
        ("on_node_loss = \"wait\"", "`on_node_loss` is \"restart\" or \"leave\""),
        ("on_hang = \"interrupt\"", "`on_hang` is \"report\" or \"restart\""),
        ("env = [1]", "`env` is a table, not an array"),
        ("env = { A = [1] }", "a variable is text, not an array"),
        ("cwd = \"nowhere\"", "nowhere\n"),
        ("watch = { lod = \"1s\" }", "did you mean `load`?"),
        ("watch = { load = \"never\" }", "\"off\" switches the watchdog off"),
        ("protocol = \"none\"\nwatch = { load = \"1s\" }", "`watch` needs protocol = \"runner\""),
        ("command = \"dog\"", "duplicate key"),
        ("count = ", "runners.toml:3:"),
    ] {
        let text = key(line);
        assert!(text.contains(said), "{line}: {text}");
    }
    for (text, said) in [
        ("[group.a]\ncommand = []\n", "names no program"),
        ("[group.a]\ncommand = \" \"\n", "says nothing that can be started"),
        ("[group.a]\ncommand = [\"cat\", 1]\n", "2:19: a word of `command` is a string, not an integer"),
        (
            "[group.a]\ncommand = [\"no-such-program\"]\n",
            "there is no program \"no-such-program\" in the PATH",
        ),
        ("[group.a]\ncommand = [\"./nothing\"]\n", "nothing does not exist"),
        ("[group.\"A B\"]\ncommand = \"cat\"\n", "`A B` is no name for a group"),
        ("[groups.a]\ncommand = \"cat\"\n", "unknown key `groups`"),
        ("group = 1\n", "`group` is a table, not an integer"),
        ("", "describes no group"),
        ("[group]\n", "describes no group"),
    ] {
        let what = wrong(text);
        assert!(what.contains(said), "{text}: {what}");
    }
}

#[test]
fn names_are_found_whatever_has_become_of_the_rest() {
    let (_folder, path) = file("[group.b]\nnonsense = 1\n[group.a]\n");
    assert_eq!(names(&path).expect("names"), ["b", "a"]);
    let (_folder, path) = file("x = 1\n");
    assert!(names(&path).expect_err("none").what.contains("describes no group"));
    assert!(names(Path::new("/nowhere.toml")).expect_err("none").what.contains("/nowhere.toml"));
}
