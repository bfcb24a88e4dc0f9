//! Layers, origins, directories and sockets.

use super::*;

fn load(env: &[(&str, &str)], flags: &[(&'static str, &str)], home: &Path) -> Result<Config, Failure> {
    let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(*value));
    Config::load(&Sources {
        env: &env,
        flags: flags.iter().map(|(key, value)| (*key, ("a-flag", (*value).to_owned()))).collect(),
        cwd: "/somewhere".into(),
        home: Some(home.to_owned()),
        uid: 1234,
    })
}

#[test]
fn defaults_follow_xdg() {
    let home = tempfile::tempdir().expect("a directory");
    let config = load(&[], &[], home.path()).expect("defaults are valid");
    assert_eq!(config.state_dir.value, home.path().join(".local/state/outlive"));
    assert_eq!(config.cache_dir.value, home.path().join(".cache/outlive"));
    assert_eq!(config.runtime_dir.value, Path::new("/tmp/outlive-1234"));
    assert_eq!(config.socket.value, Path::new("/tmp/outlive-1234/outlive.sock"));
    let env =
        [("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/run/user/1"), ("XDG_CACHE_HOME", "not/absolute")];
    let config = load(&env, &[], home.path()).expect("valid");
    assert_eq!(config.state_dir.value, Path::new("/s/outlive"));
    assert_eq!(config.socket.value, Path::new("/run/user/1/outlive/outlive.sock"));
    assert_eq!(config.cache_dir.value, home.path().join(".cache/outlive"));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_and_each_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join(".config/outlive/config.toml");
    std::fs::create_dir_all(file.parent().expect("has one")).expect("made");
    std::fs::write(&file, "log_level = \"debug\"\n\nstate_dir = \"~/mine\"\ncache_dir = \"here\"\n")
        .expect("written");
    let config = load(&[], &[], home.path()).expect("valid");
    assert_eq!(config.state_dir.value, home.path().join("mine"));
    assert_eq!(config.state_dir.origin, Origin::File { path: file.clone(), line: 3 });
    assert_eq!(config.cache_dir.value, file.with_file_name("here"), "relative to the file");
    let config = load(&[("OUTLIVE_STATE_DIR", "env")], &[], home.path()).expect("valid");
    assert_eq!(config.state_dir.value, Path::new("/somewhere/env"));
    assert_eq!(config.state_dir.origin.to_string(), "$OUTLIVE_STATE_DIR");
    let config =
        load(&[("OUTLIVE_STATE_DIR", "/env")], &[("state_dir", "/flag")], home.path()).expect("valid");
    assert_eq!(config.state_dir.value, Path::new("/flag"));
    assert_eq!(config.state_dir.origin.to_string(), "--a-flag");
    assert_eq!(config.log_level.value, "debug");
}

#[test]
fn daemons_with_their_own_state_have_their_own_socket() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = |env: &[(&str, &str)]| load(env, &[], home.path()).expect("valid").socket.value;
    let usual = socket(&[]);
    let one = socket(&[("OUTLIVE_STATE_DIR", "/one")]);
    let two = socket(&[("OUTLIVE_STATE_DIR", "/two")]);
    assert!(usual != one && one != two, "{usual:?} {one:?} {two:?}");
    assert_eq!(one.parent(), usual.parent(), "claims are shared");
    let explicit = socket(&[("OUTLIVE_STATE_DIR", "/one"), ("OUTLIVE_RUNTIME_DIR", "/r")]);
    assert_eq!(explicit, Path::new("/r/outlive.sock"));
}

#[test]
fn a_wrong_flag_value_names_its_origin() {
    let home = tempfile::tempdir().expect("a directory");
    let failure = load(&[("OUTLIVE_START_DAEMON", "maybe")], &[], home.path()).expect_err("not a flag");
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.what.contains("$OUTLIVE_START_DAEMON"), "{}", failure.what);
    let config = load(&[("OUTLIVE_START_DAEMON", "0")], &[], home.path()).expect("valid");
    assert!(!config.start_daemon.value);
}

#[test]
fn a_named_file_must_exist() {
    let home = tempfile::tempdir().expect("a directory");
    let failure = load(&[("OUTLIVE_CONFIG", "/nowhere/c.toml")], &[], home.path()).expect_err("missing");
    assert!(failure.what.contains("/nowhere/c.toml"), "{}", failure.what);
}

#[test]
fn budgets_have_bounds_and_units() {
    let home = tempfile::tempdir().expect("a directory");
    let config = load(&[], &[], home.path()).expect("valid");
    assert_eq!(config.idle_timeout_s.value, 30);
    assert_eq!((config.max_sessions.value, config.memory_bytes_max.value), (None, None));
    let said = [
        ("OUTLIVE_IDLE_TIMEOUT_S", "5"),
        ("OUTLIVE_MAX_SESSIONS", "100"),
        ("OUTLIVE_MEMORY_BYTES_MAX", "2G"),
    ];
    let config = load(&said, &[("max_sessions", "7")], home.path()).expect("valid");
    assert_eq!(config.idle_timeout_s.value, 5);
    assert_eq!((config.max_sessions.value, config.memory_bytes_max.value), (Some(7), Some(2 << 30)));
    let rows = config.rows();
    let row = rows.iter().find(|(name, ..)| *name == "max_sessions").expect("it is shown");
    assert_eq!((row.1.as_str(), row.2.to_string().as_str()), ("7", "--a-flag"));
    for wrong in ["0", "604801", "soon", "-1"] {
        let failure =
            load(&[("OUTLIVE_IDLE_TIMEOUT_S", wrong)], &[], home.path()).expect_err("out of bounds");
        assert!(failure.what.contains("from 1 to 604800"), "{}", failure.what);
    }
    let failure = load(&[("OUTLIVE_MEMORY_BYTES_MAX", "much")], &[], home.path()).expect_err("no size");
    assert!(
        failure.what.contains("512M") && failure.what.contains("$OUTLIVE_MEMORY_BYTES_MAX"),
        "{}",
        failure.what
    );
}
