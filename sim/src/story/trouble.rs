//! What goes wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::schedule::Place;
use crate::seed::Random;
use crate::world::{Order, Sim, World};
use crate::{store, wire};

/// A kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trouble {
    /// The store's answers get lost.
    LostAnswers,
    /// Questions to the store get lost, or are refused.
    LostQuestions,
    /// Questions to the store arrive when nobody waits for them any more.
    LateQuestions,
    /// Records are stored twice.
    Twice,
    /// Two claims are stored in one place.
    DoubleAdmitted,
    /// Readers see the past.
    Lagging,
    /// Changes of tables are missed.
    Gaps,
    /// The store is slow.
    SlowStore,
    /// The store says nothing for seconds.
    SilentStore,
    /// The power of the store fails: the newest of what need not be durable is lost.
    LostTail,
    /// Messages between nodes are lost, late and doubled.
    BadWire,
    /// Nodes are cut off, both ways or one way.
    Cuts,
    /// One node does not hear another one.
    Deaf,
    /// Daemons are killed, and started again sooner or later.
    Kills,
    /// Machines lose power, and are started again.
    PowerLoss,
    /// Daemons stand still.
    Freezes,
    /// Somebody sets clocks.
    Clocks,
    /// Nodes hand over all they have, and are started again.
    Drains,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::LostAnswers,
        Self::LostQuestions,
        Self::LateQuestions,
        Self::Twice,
        Self::DoubleAdmitted,
        Self::Lagging,
        Self::Gaps,
        Self::SlowStore,
        Self::SilentStore,
        Self::LostTail,
        Self::BadWire,
        Self::Cuts,
        Self::Deaf,
        Self::Kills,
        Self::PowerLoss,
        Self::Freezes,
        Self::Clocks,
        Self::Drains,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for (n, letter) in format!("{self:?}").char_indices() {
            if letter.is_uppercase() && n > 0 {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// Whether a node that is alone can have it.
    #[must_use]
    pub const fn is_for_one_node(self) -> bool {
        !matches!(
            self,
            Self::BadWire
                | Self::Cuts
                | Self::Deaf
                | Self::Drains
                | Self::DoubleAdmitted
                | Self::Lagging
                | Self::PowerLoss
        )
    }

    /// Whether several nodes can have it and nothing but what it hits is lost. Not with a service that forgets what it has
    /// acknowledged, which is set up so that it does not; nor while one node does not hear another one that everybody else
    /// hears: then a path that is being claimed may be claimed twice. Both are there for `--only`.
    #[must_use]
    pub const fn is_for_several(self) -> bool {
        !matches!(self, Self::LostTail | Self::Deaf)
    }

    /// It begins.
    pub(super) fn begin(self, sim: &Sim, storm: Duration) {
        let world = &sim.world;
        let mut random = world.seed.draw(("trouble", self.name()));
        let often = random.of(5..80);
        match self {
            Self::LostAnswers => faults(world, |faults| faults.lost_answer = often),
            Self::LostQuestions => faults(world, |faults| {
                faults.lost_question = often;
                faults.unavailable = often / 2;
            }),
            Self::LateQuestions => faults(world, |faults| faults.late = often),
            Self::Twice => faults(world, |faults| faults.twice = often),
            Self::DoubleAdmitted => faults(world, |faults| faults.double_admitted = 500),
            Self::Lagging => faults(world, |faults| faults.lagging = often * 5),
            Self::Gaps => faults(world, |faults| faults.gap = often * 3),
            Self::SlowStore => faults(world, |faults| faults.slow_us = 1_000 + often * 1_000),
            Self::BadWire => {
                world.wire.suffer(wire::Faults { lost: often, twice: often, slow_us: random.of(300..60_000) })
            }
            Self::Deaf => {
                let (from, to) = (random.place(world.setup.nodes), random.place(world.setup.nodes));
                world.wire.deafen(from, to);
            }
            Self::SilentStore
            | Self::LostTail
            | Self::Cuts
            | Self::Kills
            | Self::PowerLoss
            | Self::Freezes
            | Self::Clocks
            | Self::Drains => {
                let world = Arc::clone(world);
                sim.client(self.again_and_again(world, random, storm));
            }
        }
    }

    async fn again_and_again(self, world: Arc<World>, mut random: Random, storm: Duration) {
        loop {
            let wait = random.millis(300..4_000);
            world.schedule.sleep(wait, Place::Clients).await;
            if world.schedule.now() > outlive_core::time::Tick(0) + storm {
                return;
            }
            self.strike(&world, &mut random).await;
        }
    }

    async fn strike(self, world: &Arc<World>, random: &mut Random) {
        let node = random.place(world.setup.nodes);
        let sleep = |wait| world.schedule.sleep(wait, Place::Clients);
        match self {
            Self::SilentStore => {
                let until = world.schedule.now() + random.millis(500..6_000);
                world.tell(None, format_args!("the store is silent until {}", until.0));
                world.store.fall_silent(until);
            }
            Self::LostTail => {
                // The store of a node that is alone is on its own disk.
                if world.setup.nodes == 1 {
                    world.order(node, Order::LosePower);
                }
                world.store.lose_power(world);
                sleep(random.millis(20..3_000)).await;
                world.order(node, Order::Start);
            }
            Self::Cuts => {
                use crate::wire::Cut::{In, Out};
                let all: [&[wire::Cut]; 4] = [&[In, Out], &[In, Out], &[In], &[Out]];
                let how = *random.one(&all);
                world.wire.cut(world, node, how);
                sleep(random.millis(50..7_000)).await;
                world.wire.mend(world, node);
            }
            Self::Kills | Self::PowerLoss => {
                world.order(node, if self == Self::Kills { Order::Kill } else { Order::LosePower });
                sleep(random.millis(20..9_000)).await;
                world.order(node, Order::Start);
            }
            Self::Freezes => {
                world.order(node, Order::Freeze);
                let long = random.happens(400);
                sleep(if long { random.millis(500..12_000) } else { random.millis(5..500) }).await;
                world.order(node, Order::Thaw);
            }
            Self::Clocks => {
                let hours = i64::try_from(random.of(0..10)).expect("it is small") - 5;
                world.set_clock(node, hours * 3_600_000_000);
            }
            Self::Drains => drain(world, random, node).await,
            // They are there all the time.
            _ => {}
        }
    }
}

async fn drain(world: &Arc<World>, random: &mut Random, node: usize) {
    use outlive_node::api::Api as _;
    let how = outlive_protocol::http::Drain { cell_grace_ms: 0, stop: false };
    let drained = world
        .call(node, random, move |node: Arc<outlive_node::Node>| async move { node.drain(how).await })
        .await;
    world.tell(None, format_args!("n{node} is drained: {drained:?}"));
    world.schedule.sleep(random.millis(10..500), Place::Clients).await;
    world.order(node, Order::Kill);
    world.schedule.sleep(random.millis(100..3_000), Place::Clients).await;
    world.order(node, Order::Start);
}

fn faults(world: &World, change: impl FnOnce(&mut store::Faults)) {
    let mut faults = world.store.faults();
    change(&mut faults);
    world.store.suffer(faults);
}

/// Nothing goes wrong from now on, and every node is there.
pub(super) fn heal(world: &Arc<World>) {
    world.store.suffer(store::Faults::default());
    world.wire.heal(world);
    for node in 0..world.setup.nodes {
        world.order(node, Order::Thaw);
        world.order(node, Order::Start);
    }
}
