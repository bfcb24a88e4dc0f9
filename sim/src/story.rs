//! What clients do, and what goes wrong meanwhile.
//!
//! A story has three parts: a storm, in which work is given and everything fails that the seed says; a healing, after
//! which nothing fails any more; and a calm, in which all that was begun has to come to its end.

mod clients;
mod ledger;
mod trouble;
mod visitors;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use outlive_core::time::Tick;
use outlive_node::cluster::OnIsolation;

use crate::check;
use crate::seed::Random;
use crate::trace::{Telling, Trace};
use crate::world::{Order, Setup, Sim};

pub use ledger::{Given, Ledger, Watched};
pub use trouble::Trouble;

/// How long the calm may last until everything has ended.
const CALM: Duration = Duration::from_secs(180);
/// How long nodes may take to give back what they hold when they are asked to end.
const LAST: Duration = Duration::from_secs(40);

/// Who is in a story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// Several nodes, and clients that give them work.
    Cluster,
    /// One node, and clients that give it work.
    Alone,
    /// One node, and those who come and go at notebooks that nobody needs in memory for long.
    Visitors,
}

/// What is told.
#[derive(Clone, Debug)]
pub struct Story {
    /// The seed, from which all else follows.
    pub seed: u64,
    /// Who is in it.
    pub cast: Cast,
    /// How many nodes there are.
    pub nodes: usize,
    /// How long the storm lasts.
    pub storm: Duration,
    /// What goes wrong.
    pub troubles: Vec<Trouble>,
}

/// How a story ended.
#[derive(Debug)]
pub struct Told {
    /// What did not hold.
    pub wrong: Vec<String>,
    /// The number of all that happened.
    pub number: u64,
    /// The last of what happened, if it was kept.
    pub last: Vec<String>,
    /// How much time it covers.
    pub lasted: Duration,
}

impl Story {
    /// The story of a seed.
    #[must_use]
    pub fn of(seed: u64, cast: Cast) -> Self {
        let mut random = Random::new(seed ^ 0x5707);
        let nodes = if cast == Cast::Cluster { 3 + random.place(3) } else { 1 };
        let (storm, often) = match cast {
            Cast::Cluster | Cast::Alone => (random.millis(4_000..14_000), 450),
            // Most of what they meet is their own doing.
            Cast::Visitors => (random.millis(6_000..16_000), 200),
        };
        let is_possible = |one: &Trouble| match cast {
            Cast::Cluster => one.is_for_several(),
            Cast::Alone | Cast::Visitors => one.is_for_one_node(),
        };
        let all = Trouble::ALL.into_iter().filter(is_possible);
        let troubles = all.filter(|_| random.happens(often)).collect();
        Self { seed, cast, nodes, storm, troubles }
    }

    /// The same with this trouble alone.
    #[must_use]
    pub fn only(mut self, trouble: Trouble) -> Self {
        self.troubles = vec![trouble];
        self
    }

    /// Tells it.
    #[must_use]
    pub fn tell(&self, telling: Telling) -> Told {
        let mut random = Random::new(self.seed ^ 0x5e70);
        let on_isolation = *random.one(&[
            OnIsolation::Freeze,
            OnIsolation::Freeze,
            OnIsolation::Continue,
            OnIsolation::Stop,
        ]);
        let setup = Setup {
            nodes: self.nodes,
            is_cluster: self.cast == Cast::Cluster,
            on_isolation,
            kernel_grace: *random.one(&[Duration::from_millis(500), Duration::from_secs(5)]),
            idle: match self.cast {
                Cast::Cluster | Cast::Alone => {
                    *random.one(&[Duration::from_secs(2), Duration::from_secs(3_600)])
                }
                Cast::Visitors => random.millis(150..1_200),
            },
            sessions_max: (self.cast == Cast::Visitors && random.happens(300)).then_some(2),
        };
        let mut sim = Sim::new(self.seed, setup, Trace::new(telling));
        let ledger = Arc::new(Ledger::default());
        self.play(&mut sim, &ledger);
        let world = &sim.world;
        let mut wrong = ledger.wrong();
        wrong.extend(check::all(world, &ledger));
        let lasted = world.schedule.now().since(Tick(0));
        Told { wrong, number: world.trace.number(), last: world.trace.last(), lasted }
    }

    fn play(&self, sim: &mut Sim, ledger: &Arc<Ledger>) {
        let world = Arc::clone(&sim.world);
        check::watch(&world, ledger);
        for node in 0..self.nodes {
            world.order(node, Order::Start);
        }
        match self.cast {
            Cast::Cluster | Cast::Alone => clients::begin(sim, ledger, self.storm),
            Cast::Visitors => visitors::begin(sim, ledger, self.storm, &self.troubles),
        }
        for trouble in &self.troubles {
            trouble.begin(sim, self.storm);
        }
        let storm_over = Tick(0) + self.storm;
        sim.run(storm_over, || false);
        world.tell(None, format_args!("the storm is over"));
        trouble::heal(&world);
        let calm_over = storm_over + CALM;
        sim.run(calm_over, || ledger.is_all_done());
        if !ledger.is_all_done() {
            for what in ledger.unfinished() {
                ledger.note(format!("{what} after {} s of calm", CALM.as_secs()));
            }
            return;
        }
        // What follows from the last end: rows, releases, goodbyes.
        let settled = world.schedule.now() + Duration::from_secs(15);
        sim.run(settled, || false);
        ledger.note_all(check::settled(&world));
        clients::end(sim, ledger);
        let last = world.schedule.now() + LAST;
        sim.run(last, || ledger.is_ended(self.nodes));
        if !ledger.is_ended(self.nodes) {
            ledger.note("a node that was asked to end does not".to_owned());
        }
    }
}
