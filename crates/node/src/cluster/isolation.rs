//! Carries out what `core::failover::isolation` orders: closes watchers, freezes what runs, looks at each session in
//! the store when it is back, and lets it go on or gives it up.

use std::sync::Arc;

use futures_util::StreamExt as _;
use outlive_core::failover::isolation::{Isolation, Order, Round, Verdict};
use outlive_core::id::SessionId;
use outlive_core::limits::CLUSTER_CHECKS_MAX;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Cluster, OnIsolation, owned};
use crate::context::Context;
use crate::problem;

/// What came of a look at a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    round: Round,
    session: SessionId,
    verdict: Verdict,
}

/// The hands of a node that is cut off.
pub(super) struct Hands {
    context: Arc<Context>,
    cluster: Arc<Cluster>,
    /// The looks of the present round; those of an earlier one are aborted.
    looks: JoinSet<()>,
    to: mpsc::Sender<Looked>,
    looked: mpsc::Receiver<Looked>,
}

impl Hands {
    pub(super) fn new(context: &Arc<Context>, cluster: &Arc<Cluster>) -> Self {
        let (to, looked) = mpsc::channel(CLUSTER_CHECKS_MAX);
        Self { context: Arc::clone(context), cluster: Arc::clone(cluster), looks: JoinSet::new(), to, looked }
    }

    /// What came of the next look. Cancel-safe.
    pub(super) async fn looked(&mut self) -> Looked {
        self.looked.recv().await.expect("we hold a sender")
    }

    /// Takes up what came of a look.
    pub(super) fn settle(&mut self, isolation: &mut Isolation, looked: Looked) {
        isolation.looked(looked.round, looked.session, looked.verdict);
        self.carry_out(isolation);
    }

    /// Carries out what was ordered.
    pub(super) fn carry_out(&mut self, isolation: &mut Isolation) {
        // Each may order something else; there are never more than a few rounds of that.
        loop {
            let orders: Vec<Order> = isolation.orders().collect();
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Isolate { .. } => self.isolate(),
                    Order::Look(round) => self.look(isolation, round),
                    Order::GoOn(session) => self.go_on(session),
                    Order::GiveUp(session) => self.give_up(session),
                    Order::Rejoin => {
                        tracing::info!(node = %self.cluster.settings.name, "the node is back: watchers may come again");
                        self.context.bus.mend();
                    }
                }
            }
        }
    }

    /// What is linked while the node is cut off is treated as what was there when it began.
    pub(super) fn hold(&self) {
        match self.cluster.settings.on_isolation {
            OnIsolation::Freeze => self.context.runtimes.freeze_all(),
            OnIsolation::Stop => self.context.runtimes.stop_all(),
            OnIsolation::Continue => {}
        }
    }

    fn isolate(&mut self) {
        let does = match self.cluster.settings.on_isolation {
            OnIsolation::Freeze => "its processes are frozen",
            OnIsolation::Stop => "its processes are stopped",
            OnIsolation::Continue => "its processes run on",
        };
        tracing::error!(node = %self.cluster.settings.name, "the node is cut off: its watchers are closed, {does}");
        self.context.metrics.cluster.isolated();
        self.looks.abort_all();
        self.context.bus.sever(problem::node_isolated());
        self.hold();
    }

    fn look(&mut self, isolation: &mut Isolation, round: Round) {
        self.looks.abort_all();
        // Those too that are being made or woken: a process of theirs may be linked already.
        let sessions = self.context.present();
        tracing::info!(sessions = sessions.len(), "the node was cut off: it looks what is still its own");
        isolation.begin(round, sessions.iter().copied());
        let (context, to) = (Arc::clone(&self.context), self.to.clone());
        self.looks.spawn(async move {
            let looks = sessions.into_iter().map(|session| {
                let context = Arc::clone(&context);
                async move { Looked { round, session, verdict: owned::known(&context, session).await } }
            });
            let mut looks = futures_util::stream::iter(looks).buffer_unordered(CLUSTER_CHECKS_MAX);
            while let Some(looked) = looks.next().await {
                if to.send(looked).await.is_err() {
                    return;
                }
            }
        });
        while self.looks.try_join_next().is_some() {}
    }

    fn go_on(&self, session: SessionId) {
        self.context.runtimes.thaw(session);
    }

    fn give_up(&self, session: SessionId) {
        if let Ok(Some(handle)) = self.context.handle(session) {
            tracing::warn!(%session, "the session was taken over while the node was cut off: its processes are killed");
            handle.lose();
        }
    }
}
