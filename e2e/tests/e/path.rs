//! One session has a path, on all nodes.

use std::fs;

use outlive_e2e::Session;
use outlive_e2e::cluster::Cluster;
use outlive_e2e::notebook::with_cells;
use serde_json::json;

// E10b: a path that one node's session has, opened at another: the same session, joined from both.
#[test]
fn a_path_is_joined_from_another_node() {
    let mut cluster = Cluster::of(2);
    let path = cluster.volume().join("a.ipynb");
    fs::write(&path, with_cells(&["print(1)"]).to_string()).expect("the shared directory");
    let here = Session::open(&cluster.members[0].world.api(), &path);
    let there = Session::open(&cluster.members[1].world.api(), &path);
    assert_eq!(here.id, there.id);
    there.add_cell("print('from the other node')");
    assert_eq!(here.sources(), ["print(1)", "print('from the other node')"]);
    // The claim moves with the session.
    cluster.members[0].lose();
    assert_eq!(cluster.moved_from(&here.id, 0), 1);
    let again = Session::open(&cluster.members[1].world.api(), &path);
    assert_eq!(again.id, here.id);
    assert_eq!(again.sources(), ["print(1)", "print('from the other node')"]);
    again.save(&json!({}));
    assert!(fs::read_to_string(&path).expect("the file").contains("from the other node"));
}

// E10b: two nodes race for one path: one wins, the loser's error names the holder, and the file is the winner's.
#[test]
fn two_nodes_race_for_a_path() {
    let cluster = Cluster::of(2);
    for round in 0..10 {
        let path = cluster.volume().join(format!("race-{round}.ipynb"));
        let sessions: Vec<_> = (0..2)
            .map(|n| {
                let session =
                    Session::untitled(&cluster.members[n].world.api(), &json!({"cwd": cluster.volume()}));
                session.add_cell(&format!("'of node {n}'"));
                session
            })
            .collect();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let saves: Vec<_> = sessions
                .iter()
                .enumerate()
                .map(|(n, session)| {
                    let (api, path) = (cluster.members[n].world.api(), path.clone());
                    let at = session.path("/save");
                    scope.spawn(move || api.request("POST", &at, Some(&json!({"path": path}))))
                })
                .collect();
            saves.into_iter().map(|save| save.join().expect("it is answered")).collect()
        });
        let winners: Vec<_> = (0..2).filter(|&n| answers[n].status == 200).collect();
        assert_eq!(winners.len(), 1, "{answers:#?}");
        let (winner, loser) = (winners[0], 1 - winners[0]);
        let problem = answers[loser].json();
        assert_eq!(problem["code"], "path-already-open", "{problem}");
        assert_eq!(problem["facts"]["session"], sessions[winner].id, "{problem}");
        let file = fs::read_to_string(&path).expect("the winner's file");
        assert!(file.contains(&format!("of node {winner}")) && !file.contains(&format!("of node {loser}")));
        let sources = sessions[loser].sources().concat();
        assert!(
            sources.contains(&format!("of node {loser}")) && !sources.contains(&format!("of node {winner}"))
        );
    }
}
