//! Nodes in virtual time that hear each other through one hub, and everything that can befall them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::failover::liveness::{Liveness, Output, Pace, Why};
use outlive_core::id::{BootId, NodeId};
use outlive_core::time::{Now, Tick, WallTime};
use uuid::Uuid;

pub const PACE: Pace = Pace::LAN;

/// A member: the n-th node in its b-th life.
pub fn member(node: usize, boot: u128) -> Member {
    Member {
        node: NodeId::from_uuid(Uuid::from_u128(node as u128 + 1)),
        boot: BootId::from_uuid(Uuid::from_u128((node as u128 + 1) * 1_000 + boot)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Message {
    Beat(Member, u64),
    Goodbye(Member, u64),
    Probe(usize),
    Answer(Member),
    Dead(Member),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Arrives { to: usize, life: u128, message: Message },
    Wakes { node: usize, life: u128 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Runs,
    Frozen,
    Dead,
}

/// How a node reaches the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    Whole,
    /// Nothing gets through, and nobody says so.
    Swallows,
    /// The connection is known to be down.
    Down,
}

struct Machine {
    me: Member,
    life: u128,
    state: State,
    wire: Wire,
    liveness: Liveness,
    next_beat: u64,
    /// What came while it was frozen.
    waiting: VecDeque<Message>,
    /// When it heard each member last, by itself.
    heard: BTreeMap<Member, u64>,
}

/// What somebody concluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    pub at: u64,
    pub by: usize,
    pub life: u128,
    pub output: Output,
    /// Of a loss: when its teller had really heard that member last.
    pub heard: Option<u64>,
}

/// All of them. Time is in milliseconds.
pub struct World {
    now: u64,
    number: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    machines: Vec<Machine>,
    /// Delays of messages in turn, in milliseconds.
    delays: Vec<u64>,
    pub store_answers: bool,
    pub told: Vec<Told>,
}

fn now(ms: u64) -> Now {
    Now { tick: Tick(ms * 1_000_000), wall: WallTime(ms * 1_000), slept: Duration::ZERO }
}

impl World {
    pub fn new(nodes: usize) -> Self {
        Self::with_delays(nodes, vec![1])
    }

    pub fn with_delays(nodes: usize, delays: Vec<u64>) -> Self {
        let mut world = Self {
            now: 1_000,
            number: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            machines: Vec::new(),
            delays,
            store_answers: true,
            told: Vec::new(),
        };
        for node in 0..nodes {
            let me = member(node, 0);
            world.machines.push(Machine {
                me,
                life: 0,
                state: State::Runs,
                wire: Wire::Whole,
                liveness: Liveness::new(me, PACE, now(world.now)),
                // They do not all beat at the same time.
                next_beat: world.now + (node as u64 * 37) % 100,
                waiting: VecDeque::new(),
                heard: BTreeMap::new(),
            });
            world.wake_at(node, world.now);
        }
        world
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    fn at(&mut self, time: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number)));
        self.events.insert(self.number, event);
    }

    fn wake_at(&mut self, node: usize, time: u64) {
        let life = self.machines[node].life;
        self.at(time, Event::Wakes { node, life });
    }

    /// Lets so much time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Reverse((time, number))) = self.queue.peek().copied()
            && time <= end
        {
            self.queue.pop();
            self.now = self.now.max(time);
            match self.events.remove(&number).unwrap() {
                Event::Wakes { node, life } => self.wakes(node, life),
                Event::Arrives { to, life, message } => self.arrives(to, life, message),
            }
        }
        self.now = end;
    }

    fn wakes(&mut self, node: usize, life: u128) {
        let machine = &mut self.machines[node];
        if machine.life != life || machine.state != State::Runs {
            return;
        }
        let time = self.now;
        if time >= machine.next_beat {
            machine.next_beat = time + 100;
            let beat = Message::Beat(machine.me, machine.liveness.send());
            self.send_all(node, beat);
        }
        let machine = &mut self.machines[node];
        if self.store_answers && machine.wire == Wire::Whole {
            machine.liveness.store_answered(Tick((time.saturating_sub(5)) * 1_000_000), now(time));
        }
        machine.liveness.tick(now(time));
        let next = machine.liveness.next(now(time).tick).0.div_ceil(1_000_000).min(machine.next_beat);
        self.conclude(node);
        self.wake_at(node, next.max(time + 1));
    }

    fn arrives(&mut self, to: usize, life: u128, message: Message) {
        let machine = &mut self.machines[to];
        match machine.state {
            _ if machine.life != life || machine.wire != Wire::Whole => return,
            State::Dead => return,
            State::Frozen => {
                machine.waiting.push_back(message);
                return;
            }
            State::Runs => {}
        }
        self.hears(to, message);
    }

    fn hears(&mut self, to: usize, message: Message) {
        let (time, machine) = (self.now, &mut self.machines[to]);
        let (me, at) = (machine.me, now(time));
        match message {
            Message::Beat(member, seq) => {
                machine.liveness.beat(member, seq, at);
                if machine.liveness.heard(member) == Some(at.tick) || member == me {
                    machine.heard.insert(member, time);
                }
            }
            Message::Goodbye(member, seq) => machine.liveness.goodbye(member, seq, at),
            Message::Probe(from) => self.send_one(to, from, Message::Answer(me)),
            Message::Answer(member) => {
                machine.liveness.answered(member, at);
                machine.heard.insert(member, time);
            }
            Message::Dead(member) => machine.liveness.announced(member, at),
        }
        self.conclude(to);
    }

    fn conclude(&mut self, node: usize) {
        let outputs: Vec<Output> = self.machines[node].liveness.told().collect();
        for output in outputs {
            let heard = match output {
                Output::Lost { member, .. } => self.machines[node].heard.get(&member).copied(),
                _ => None,
            };
            let life = self.machines[node].life;
            self.told.push(Told { at: self.now, by: node, life, output, heard });
            match output {
                Output::Suspected(member) => {
                    let to = usize::try_from(member.node.as_uuid().as_u128()).unwrap() - 1;
                    self.send_one(node, to, Message::Probe(node));
                }
                Output::Announce(member) => self.send_all(node, Message::Dead(member)),
                _ => {}
            }
        }
    }

    fn send_all(&mut self, from: usize, message: Message) {
        for to in 0..self.machines.len() {
            if to != from || matches!(message, Message::Beat(..)) {
                self.send_one(from, to, message);
            }
        }
    }

    fn send_one(&mut self, from: usize, to: usize, message: Message) {
        if self.machines[from].wire != Wire::Whole {
            return;
        }
        let delay = self.delays[usize::try_from(self.number).unwrap() % self.delays.len()];
        let life = self.machines[to].life;
        self.at(self.now + delay, Event::Arrives { to, life, message });
    }

    /// It is killed.
    pub fn kill(&mut self, node: usize) {
        self.machines[node].state = State::Dead;
    }

    /// It is started again, in a new life.
    pub fn restart(&mut self, node: usize) {
        let time = self.now;
        let machine = &mut self.machines[node];
        machine.life += 1;
        machine.me = member(node, machine.life);
        machine.state = State::Runs;
        machine.liveness = Liveness::new(machine.me, PACE, now(time));
        machine.next_beat = time;
        machine.waiting.clear();
        machine.heard.clear();
        self.wake_at(node, time);
    }

    /// It says goodbye and ends.
    pub fn leave(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let goodbye = Message::Goodbye(machine.me, machine.liveness.send());
        self.send_all(node, goodbye);
        self.kill(node);
    }

    /// SIGSTOP.
    pub fn freeze(&mut self, node: usize) {
        if self.machines[node].state == State::Runs {
            self.machines[node].state = State::Frozen;
        }
    }

    /// SIGCONT.
    pub fn go_on(&mut self, node: usize) {
        if self.machines[node].state != State::Frozen {
            return;
        }
        self.machines[node].state = State::Runs;
        while let Some(message) = self.machines[node].waiting.pop_front() {
            self.hears(node, message);
        }
        self.wake_at(node, self.now);
    }

    pub fn wire(&mut self, node: usize, wire: Wire) {
        let time = self.now;
        let machine = &mut self.machines[node];
        let before = std::mem::replace(&mut machine.wire, wire);
        if machine.state == State::Runs && (before == Wire::Down) != (wire == Wire::Down) {
            machine.liveness.connection(wire != Wire::Down, now(time));
            self.conclude(node);
        }
    }

    /// The service says to this node that the connection of that one has ended.
    pub fn disconnects(&mut self, node: usize, of: usize) {
        let time = self.now;
        let of = self.machines[of].me.node;
        self.machines[node].liveness.disconnected(of, now(time));
        self.conclude(node);
    }

    /// Somebody repeats an old beat, or one comes late.
    pub fn echo(&mut self, to: usize, member: Member, seq: u64) {
        self.hears(to, Message::Beat(member, seq));
    }

    /// Its machine has slept for so long.
    pub fn sleeps(&mut self, node: usize, ms: u64) {
        let slept = Duration::from_millis(ms);
        self.leaps(node, |now| Now { wall: WallTime(now.wall.0 + ms * 1_000), slept, ..now });
    }

    /// Somebody sets the clock of its machine to this, in milliseconds.
    pub fn sets_clock(&mut self, node: usize, to: u64) {
        self.leaps(node, |now| Now { wall: WallTime(to * 1_000), ..now });
    }

    fn leaps(&mut self, node: usize, clocks: impl Fn(Now) -> Now) {
        self.machines[node].liveness.tick(clocks(now(self.now)));
        self.conclude(node);
        // The world goes on with the clocks as they were: a leap back is nothing.
    }

    pub fn is_well(&self, node: usize) -> bool {
        self.machines[node].state == State::Runs && self.machines[node].liveness.is_well()
    }

    pub fn runs(&self, node: usize) -> bool {
        self.machines[node].state == State::Runs
    }

    pub fn me(&self, node: usize) -> Member {
        self.machines[node].me
    }

    /// The losses that a node told, since the beginning.
    pub fn lost_by(&self, node: usize) -> Vec<(Member, Why, u64)> {
        let by = self.told.iter().filter(|told| told.by == node);
        by.filter_map(|told| match told.output {
            Output::Lost { member, why, .. } => Some((member, why, told.at)),
            _ => None,
        })
        .collect()
    }

    /// What a node has told in its present life.
    pub fn told_by(&self, node: usize) -> Vec<Output> {
        let teller = (node, self.machines[node].life);
        let by = self.told.iter().filter(|told| (told.by, told.life) == teller);
        by.map(|told| told.output).collect()
    }
}

/// The same as the machine's own bound.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
