//! How clients reach a node: what they ask runs among the node's own tasks, as behind a server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::{FutureExt as _, StreamExt as _};
use outlive_node::Node;
use outlive_node::api::{Delivered, Events};
use outlive_protocol::http::Problem;
use tokio::sync::{mpsc, oneshot};

use super::{Sim, World};
use crate::schedule::{Life, Place};
use crate::seed::Random;

/// How often a server says that it is there while it has nothing else to say.
const COMMENT: Duration = Duration::from_millis(250);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where a node's present life takes requests.
#[derive(Default)]
pub(super) struct Door {
    pub(super) life: Option<Life>,
    pub(super) node: Option<Arc<Node>>,
    pub(super) tasks: Option<tokio::runtime::Handle>,
}

/// Somebody who wants something of a node.
pub(super) struct Knock {
    life: Life,
    asked: Box<dyn FnOnce(Arc<Node>) -> BoxFuture<'static, ()> + Send>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Called<T> {
    /// An answer.
    Answered(T),
    /// Nobody is there: nothing was done.
    Nobody,
    /// The connection ended, or nothing came for long: what was asked may have been done.
    Lost,
}

/// What a watcher hears.
#[derive(Debug)]
pub enum Told {
    /// An event.
    Event(Box<Delivered>),
    /// The server is there.
    Comment,
    /// The stream has ended.
    End,
}

impl World {
    /// Asks a node something. How long that takes is the client's own luck: of clients that lose a node at once, nobody
    /// knows which hears of it first.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        node: usize,
        luck: &mut Random,
        asked: impl AsyncAsked<T>,
    ) -> Called<T> {
        let (answer, answered) = oneshot::channel();
        let (there, back) = (luck.micros(50..600), luck.micros(50..600));
        self.schedule.sleep(there, Place::Clients).await;
        let Some(life) = self.life(node).filter(|_| self.node(node).is_some()) else { return Called::Nobody };
        let world = Arc::clone(self);
        let asked = move |node: Arc<Node>| {
            async move {
                let result = asked.ask(node).await;
                world.schedule.after(back, Place::Clients, move || drop(answer.send(result)));
            }
            .boxed()
        };
        self.knock(life, asked);
        let over = self.schedule.sleep(PATIENCE, Place::Clients);
        match select(answered, over).await {
            Either::Left((Ok(result), _)) => Called::Answered(result),
            Either::Left((Err(_), _)) | Either::Right(_) => Called::Lost,
        }
    }

    /// Follows events of a node, as over a connection that says something at least every quarter of a second.
    pub async fn follow(
        self: &Arc<Self>,
        node: usize,
        luck: &mut Random,
        asked: impl AsyncAsked<Result<Events, Problem>>,
    ) -> Called<Result<mpsc::UnboundedReceiver<Told>, Problem>> {
        let world = Arc::clone(self);
        let (to, heard) = mpsc::unbounded_channel();
        let way = Random::new(luck.number());
        let called = self.call(node, luck, Attach { world, asked, to, way }).await;
        match called {
            Called::Answered(Ok(())) => Called::Answered(Ok(heard)),
            Called::Answered(Err(problem)) => Called::Answered(Err(problem)),
            Called::Nobody => Called::Nobody,
            Called::Lost => Called::Lost,
        }
    }

    fn knock(&self, life: Life, asked: impl FnOnce(Arc<Node>) -> BoxFuture<'static, ()> + Send + 'static) {
        let knock = Knock { life, asked: Box::new(asked) };
        self.knocks.lock().expect("nothing panics while it holds the knocks").push(knock);
    }
}

impl Sim {
    /// Lets a request in, when the node does something again.
    pub(super) fn open(&mut self, knock: Knock) {
        let world = Arc::clone(&self.world);
        let Knock { life, asked } = knock;
        self.world.schedule.after(Duration::from_micros(1), Place::Node(life), move || {
            let (node, tasks) = {
                let door = world.door(life.node);
                (door.node.clone(), door.tasks.clone())
            };
            if let (Some(node), Some(tasks)) = (node, tasks) {
                drop(tasks.spawn(asked(node)));
            }
        });
    }
}

/// Something that is asked of a node.
pub trait AsyncAsked<T>: Send + 'static {
    /// Asks it, among the tasks of the node.
    fn ask(self, node: Arc<Node>) -> impl Future<Output = T> + Send;
}

impl<T, F, A> AsyncAsked<T> for F
where
    F: FnOnce(Arc<Node>) -> A + Send + 'static,
    A: Future<Output = T> + Send,
{
    fn ask(self, node: Arc<Node>) -> impl Future<Output = T> + Send {
        self(node)
    }
}

struct Attach<A> {
    world: Arc<World>,
    asked: A,
    to: mpsc::UnboundedSender<Told>,
    /// How long things take to the client.
    way: Random,
}

impl<A: AsyncAsked<Result<Events, Problem>>> AsyncAsked<Result<(), Problem>> for Attach<A> {
    async fn ask(self, node: Arc<Node>) -> Result<(), Problem> {
        let Self { world, asked, to, way } = self;
        let id = node_index(&world, &node);
        let events = asked.ask(node).await?;
        let Some(life) = id else { return Ok(()) };
        let pipe = Pipe { world: Arc::clone(&world), life, to, way, last: world.schedule.now() };
        if let Some(tasks) = world.door(life.node).tasks.clone() {
            drop(tasks.spawn(pump(pipe, events)));
        }
        Ok(())
    }
}

fn node_index(world: &World, node: &Arc<Node>) -> Option<Life> {
    let is_it = |at: &usize| world.node(*at).is_some_and(|other| Arc::ptr_eq(&other, node));
    (0..world.setup.nodes).find(is_it).and_then(|at| world.life(at))
}

/// What is on its way to a client stays in order.
struct Pipe {
    world: Arc<World>,
    life: Life,
    to: mpsc::UnboundedSender<Told>,
    way: Random,
    last: outlive_core::time::Tick,
}

impl Pipe {
    fn push(&mut self, told: Told) {
        let wait = self.way.micros(30..500);
        let at = (self.world.schedule.now() + wait).max(self.last + Duration::from_nanos(1));
        self.last = at;
        let to = self.to.clone();
        self.world.schedule.at(at, Place::Clients, move || drop(to.send(told)));
    }
}

async fn pump(mut pipe: Pipe, mut events: Events) {
    while !pipe.to.is_closed() {
        let quiet = pipe.world.schedule.sleep(COMMENT, Place::Node(pipe.life));
        match select(events.next(), quiet).await {
            Either::Left((Some(event), _)) => pipe.push(Told::Event(Box::new(event))),
            Either::Left((None, _)) => return pipe.push(Told::End),
            Either::Right(_) => pipe.push(Told::Comment),
        }
    }
}
