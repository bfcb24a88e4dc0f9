//! Whoever watches, on whatever node, from wherever, ends with what the log says: a property.
//!
//! Sessions move between nodes that answer late, twice or not at all; runs are continued, rewound and begun again, each
//! attempt with other words; clients come, go and come back at places where they or others have been.

use std::sync::Arc;

use outlive_core::limits::WATCH_RECORDS_MAX;
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{Engine, Faulty, Memory};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::world::{Client, Resets, Seen, begin, chunks, claim, end, node, open, run};
use crate::context::Context;
use crate::session::journal::Journal;

const NODES: usize = 3;
const CLIENTS_MAX: usize = 12;

#[derive(Clone, Debug)]
enum Op {
    /// Another node takes the session.
    Move,
    /// The owner begins the next attempt, keeping so many parts in four of what there is.
    Open { quarters: u64 },
    /// The owner prints.
    Print { n: usize },
    /// The owner prints more than a watcher has room for.
    Flood,
    /// Somebody attaches to a node, with nothing or with what some client had at some time.
    Attach { node: usize, had: Option<usize> },
    /// A client leaves.
    Leave { client: usize },
    /// Everybody takes what is there.
    Take,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Move),
        2 => (0..=4_u64).prop_map(|quarters| Op::Open { quarters }),
        6 => (1..4_usize).prop_map(|n| Op::Print { n }),
        1 => Just(Op::Flood),
        4 => (0..NODES, proptest::option::of(any::<usize>())).prop_map(|(node, had)| Op::Attach { node, had }),
        2 => any::<usize>().prop_map(|client| Op::Leave { client }),
        4 => Just(Op::Take),
    ]
}

/// A store that is seen through a bad network: one operation in eight goes wrong, as `seed` says.
fn through_a_bad_network(store: &Memory, seed: u64) -> Arc<dyn Engine> {
    let mut state = seed;
    Arc::new(Faulty::new(store.clone(), move |operation| {
        // xorshift: the same seed, the same faults.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match (operation, state % 32) {
            (Operation::Append { .. }, 0) => Fault::LostAck,
            (Operation::Append { .. }, 1) => Fault::LostRequest,
            (Operation::Append { .. }, 2) => Fault::Duplicate,
            (Operation::Append { .. } | Operation::Read { .. }, 3) => Fault::Unavailable,
            _ => Fault::None,
        }
    }))
}

struct Scene {
    nodes: Vec<Arc<Context>>,
    owner: usize,
    journal: Option<Journal>,
    /// Whether an attempt was begun under the present claim.
    is_open: bool,
    /// What the run's output is.
    output: Vec<String>,
    printed: u64,
    clients: Vec<Client>,
    /// What clients had at some time.
    had: Vec<Seen>,
    resets: Resets,
}

impl Scene {
    async fn new(seed: u64, resets: Resets) -> Self {
        let store = Memory::default();
        let nodes: Vec<_> = (0..NODES)
            .map(|n| node(n, through_a_bad_network(&store, seed.wrapping_add(n as u64) | 1)))
            .collect();
        let journal = Some(begin(&nodes[0]).await);
        Self {
            nodes,
            owner: 0,
            journal,
            is_open: false,
            output: Vec::new(),
            printed: 0,
            clients: Vec::new(),
            had: Vec::new(),
            resets,
        }
    }

    async fn play(&mut self, op: Op) {
        match op {
            Op::Move => {
                let to = (self.owner + 1) % NODES;
                let taken = loop {
                    // A node whose store is away tries again.
                    if let Ok(taken) = claim(&self.nodes[to], Some(self.owner)).await {
                        break taken;
                    }
                };
                let mut stale = self.journal.replace(taken).expect("somebody has it");
                // It does not know yet, and what it writes is void.
                let wrote = stale.output(run(), chunks(&["stale".to_owned()]), None).await;
                assert!(wrote.is_err(), "{wrote:?}");
                (self.owner, self.is_open) = (to, false);
            }
            Op::Open { quarters } => self.open(quarters).await,
            Op::Print { n } => self.print(n).await,
            Op::Flood => {
                for _ in 0..=WATCH_RECORDS_MAX / 16 {
                    self.print(1).await;
                }
            }
            Op::Attach { node, had } => self.attach(node, had).await,
            Op::Leave { client } => {
                if !self.clients.is_empty() {
                    let client = self.clients.swap_remove(client % self.clients.len());
                    self.had.push(client.seen.clone());
                }
            }
            Op::Take => {
                for client in &mut self.clients {
                    assert!(!client.take(), "the run has not ended: {:?}", client.seen);
                    self.had.push(client.seen.clone());
                }
            }
        }
    }

    async fn open(&mut self, quarters: u64) {
        let base = self.output.len() as u64 * quarters / 4;
        open(self.journal.as_mut().expect("somebody has it"), Some(base)).await.unwrap();
        self.output.truncate(usize::try_from(base).unwrap());
        self.is_open = true;
    }

    async fn print(&mut self, n: usize) {
        if !self.is_open {
            self.open(4).await;
        }
        let texts: Vec<_> = (0..n as u64).map(|n| format!("{}.", self.printed + n)).collect();
        self.printed += n as u64;
        let journal = self.journal.as_mut().expect("somebody has it");
        journal.output(run(), chunks(&texts), None).await.unwrap();
        self.output.extend(texts);
    }

    async fn attach(&mut self, node: usize, had: Option<usize>) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let had = had.and_then(|n| self.had.get(n.checked_rem(self.had.len())?)).cloned().unwrap_or_default();
        let client = loop {
            match Client::attach(&self.nodes[node], Seen { told: Vec::new(), ..had.clone() }).await {
                Ok(client) => break client,
                Err(problem) => assert_eq!(problem.code, "store-unavailable", "{problem}"),
            }
        };
        self.clients.push(client.with(self.resets));
    }

    /// The run ends, everybody who was there comes back, and each has what it has.
    async fn verify(mut self) -> Result<(), String> {
        end(self.journal.as_mut().expect("somebody has it")).await;
        let had: Vec<_> = (0..self.had.len()).step_by(1 + self.had.len() / CLIENTS_MAX).collect();
        self.had.push(Seen::default());
        for (nth, n) in had.into_iter().enumerate() {
            self.clients.truncate(CLIENTS_MAX - 1);
            self.attach(nth % NODES, Some(n)).await;
            let client = self.clients.pop().expect("it has just come");
            check(client, &self.output).await?;
        }
        for client in self.clients {
            check(client, &self.output).await?;
        }
        Ok(())
    }
}

async fn check(client: Client, output: &[String]) -> Result<(), String> {
    let seen = client.until_over().await;
    let ends = seen.told.iter().filter(|told| *told == "end").count();
    let strange = seen.told.iter().find(|told| !["end", "reset", "gap"].contains(&told.as_str()));
    match (seen.texts == output, ends, strange) {
        (true, 1, None) => Ok(()),
        _ => Err(format!("the log says {output:?}, and a client has {seen:?}")),
    }
}

fn play(seed: u64, ops: Vec<Op>, resets: Resets) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let mut scene = Scene::new(seed, resets).await;
        for op in ops {
            scene.play(op).await;
        }
        scene.verify().await
    })
}

fn runner(cases: u32, max_shrink_iters: u32) -> TestRunner {
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn stories() -> impl Strategy<Value = (u64, Vec<Op>)> {
    (any::<u64>(), proptest::collection::vec(op(), 1..60))
}

// P12, E4
#[test]
fn whoever_watches_on_any_node_ends_with_what_the_log_says() {
    let played = runner(120, 1_000)
        .run(&stories(), |(seed, ops)| play(seed, ops, Resets::Heeded).map_err(TestCaseError::fail));
    played.unwrap();
}

/// The property above can fail: without resets it does.
#[test]
fn without_resets_it_would_not_be_so() {
    let played = runner(120, 0)
        .run(&stories(), |(seed, ops)| play(seed, ops, Resets::Ignored).map_err(TestCaseError::fail));
    played.unwrap_err();
}
