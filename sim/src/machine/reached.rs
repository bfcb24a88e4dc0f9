//! The machines as one node reaches them.

use super::*;

/// The processes of one machine, for one life of its node.
pub struct Reached {
    world: Arc<World>,
    life: Life,
}

impl Reached {
    /// The processes, for this life of a node.
    #[must_use]
    pub fn new(world: Arc<World>, life: Life) -> Self {
        Self { world, life }
    }
}

impl Runtimes for Reached {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (world, life, key) = (&self.world, self.life, order.process);
        world.tell(Some(life.node), format_args!("{} is launched for {}", short(key), short(order.session)));
        let identity = ShimIdentity {
            session: order.session,
            process: key,
            node: node_id(life.node),
            machine_boot: "one".to_owned(),
            shim_pid: 1,
            shim_start: 1,
            pid: Some(1),
            pid_start: Some(1),
            cgroups: Vec::new(),
        };
        let process = Process {
            state: State::Runs,
            works: BTreeMap::new(),
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            count: 0,
            missed: Vec::new(),
        };
        let now = world.schedule.now();
        let program = order.spec.program.clone();
        let shim = Shim {
            identity,
            order,
            records: BTreeMap::new(),
            last: Src(0),
            acked: Src(0),
            link: None,
            process,
            told_at: now,
            said_at: now,
            heard: now,
            is_refused: false,
        };
        let before = world.machines.lock().shims.insert((life.node, key), shim);
        assert!(before.is_none(), "{key} is launched twice on one machine");
        let link = world.machines.connect(world, life, key, Src(0));
        let wait = world.seed.draw(("boot", life.node, key)).millis(1..80);
        later(world, life.node, key, wait, move |mut acting| acting.boots(&program));
        link
    }

    fn adopt(&self, found: &FoundShim, acked: Src) -> Link {
        let key = found.identity.process;
        self.world.tell(Some(self.life.node), format_args!("{} is adopted behind {acked}", short(key)));
        self.world.machines.connect(&self.world, self.life, key, acked)
    }

    fn found(&self) -> Vec<FoundShim> {
        let inner = self.world.machines.lock();
        let mine = inner.shims.iter().filter(|((node, _), shim)| *node == self.life.node && !shim.is_refused);
        mine.map(|(_, shim)| FoundShim { identity: shim.identity.clone(), of_earlier_boot: false }).collect()
    }

    fn refuse(&self, found: &FoundShim, reason: &str) {
        let (node, process) = (self.life.node, found.identity.process);
        self.world.tell(Some(node), format_args!("{} is refused: {reason}", short(process)));
        later(&self.world, node, process, Duration::from_micros(100), |mut acting| acting.refuse());
    }

    fn freeze_all(&self) {
        self.world.machines.each(
            &self.world,
            |shim| shim.is_linked(self.life),
            |acting| acting.freeze(false),
        );
    }

    fn thaw(&self, process: ProcessKey) {
        let is_it = |shim: &Shim| shim.is_linked(self.life) && shim.identity.process == process;
        self.world.machines.each(&self.world, is_it, |acting| acting.thaw());
    }

    fn stop_all(&self) {
        let mine: Vec<_> = {
            let inner = self.world.machines.lock();
            let linked = inner.shims.iter().filter(|(_, shim)| shim.is_linked(self.life));
            linked.map(|((_, process), _)| *process).collect()
        };
        for process in mine {
            let stop = StopEvidence { why: StopWhy::Drain, step: StopStep::Term };
            later(&self.world, self.life.node, process, Duration::from_millis(2), move |mut acting| {
                acting.dies(ExitStatus::Signal { number: 15, core_dumped: false }, Some(stop));
            });
        }
    }

    fn beat_all(&self) {
        let now = self.world.schedule.now();
        let mut inner = self.world.machines.lock();
        for shim in inner.shims.values_mut().filter(|shim| shim.is_linked(self.life)) {
            shim.heard = now;
        }
    }
}
