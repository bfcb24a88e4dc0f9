//! The clocks of one machine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::time::{Now, Tick};

use crate::schedule::{Life, Place};
use crate::world::World;

/// Time, for one life of a node.
pub(super) struct Clock {
    world: Arc<World>,
    life: Life,
}

impl Clock {
    pub(super) fn new(world: Arc<World>, life: Life) -> Self {
        Self { world, life }
    }
}

#[async_trait]
impl outlive_node::seams::Clock for Clock {
    fn now(&self) -> Now {
        let (tick, wall) = (self.world.schedule.now(), self.world.wall(self.life.node));
        Now { tick, wall, slept: Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        self.world.schedule.until(tick, Place::Node(self.life)).await;
    }
}
