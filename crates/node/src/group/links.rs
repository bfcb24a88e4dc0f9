//! The links to the members' shims: each has orders of its own that wait, so that a shim which does not read holds up
//! nobody else, and all are heard in turns.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::ops::Bound;
use std::task::{Context, Poll};

use outlive_core::id::{ProcessKey, RuntimeId};
use outlive_protocol::shim::ToShim;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::seams::{FromLink, Link};

/// The link to a member's shim.
struct ToMember {
    process: ProcessKey,
    to: PollSender<ToShim>,
    /// Orders that the shim has not taken yet. There are no more than its tasks, their cancels, a stop and an
    /// acknowledgement.
    waiting: VecDeque<ToShim>,
    from: mpsc::Receiver<FromLink>,
}

/// All links of a group.
#[derive(Default)]
pub(super) struct Links {
    members: BTreeMap<RuntimeId, ToMember>,
    /// Who was heard last and so is heard last now.
    last: Option<RuntimeId>,
}

impl Links {
    /// A member's process is behind this link from now on.
    pub(super) fn insert(&mut self, link: Link) {
        let Link { process, to, from } = link;
        let link = ToMember { process, to: PollSender::new(to), waiting: VecDeque::new(), from };
        self.members.insert(process.runtime, link);
    }

    /// Whether there is one.
    pub(super) fn has(&self, member: RuntimeId) -> bool {
        self.members.contains_key(&member)
    }

    /// The process behind a member's link.
    pub(super) fn process(&self, member: RuntimeId) -> Option<ProcessKey> {
        self.members.get(&member).map(|link| link.process)
    }

    /// The link has said its last.
    pub(super) fn remove(&mut self, member: RuntimeId) -> Option<ProcessKey> {
        self.members.remove(&member).map(|link| link.process)
    }

    /// An order to a process that is gone has lost its point: its end is reported already.
    pub(super) fn order(&mut self, process: ProcessKey, order: ToShim) {
        let Some(link) = self.members.get_mut(&process.runtime) else { return };
        if link.process != process {
            return;
        }
        match (&order, link.waiting.back_mut()) {
            // The later acknowledgement says what the earlier one does.
            (ToShim::Ack { .. }, Some(last @ ToShim::Ack { .. })) => *last = order,
            _ => link.waiting.push_back(order),
        }
        if let Some(to) = link.to.get_ref() {
            while let Ok(permit) = to.try_reserve() {
                let Some(order) = link.waiting.pop_front() else { break };
                permit.send(order);
            }
        }
    }

    /// What the next link says, in turns; `None` is its end. Waits for ever where there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> (RuntimeId, Option<FromLink>) {
        poll_fn(|context| {
            for link in self.members.values_mut() {
                link.give(context);
            }
            let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
            let (last, members) = (self.last, &mut self.members);
            for (id, link) in members.range_mut((after, Bound::Unbounded)) {
                if let Poll::Ready(said) = link.from.poll_recv(context) {
                    self.last = Some(*id);
                    return Poll::Ready((*id, said));
                }
            }
            if let Some(last) = last {
                for (id, link) in members.range_mut(..=last) {
                    if let Poll::Ready(said) = link.from.poll_recv(context) {
                        self.last = Some(*id);
                        return Poll::Ready((*id, said));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What a link says right now.
    pub(super) fn try_next(&mut self, member: RuntimeId) -> Option<FromLink> {
        self.members.get_mut(&member)?.from.try_recv().ok()
    }
}

impl ToMember {
    /// Passes on what waits, as far as the shim takes it.
    fn give(&mut self, context: &mut Context<'_>) {
        while !self.waiting.is_empty() {
            match self.to.poll_reserve(context) {
                Poll::Ready(Ok(())) => {
                    let order = self.waiting.pop_front().expect("there is one");
                    // It was reserved, so an error says that nobody listens any more.
                    let _gone = self.to.send_item(order);
                }
                Poll::Ready(Err(_)) => self.waiting.clear(),
                Poll::Pending => return,
            }
        }
    }
}
