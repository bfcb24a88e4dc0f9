//! The links to the members' shims: each has orders of its own that wait, so that a shim which does not read holds up
//! nobody else, and all are heard in turns. The shim of an earlier process of a member is heard out too.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::ops::Bound;
use std::task::{Context, Poll};

use outlive_core::id::ProcessKey;
use outlive_protocol::shim::ToShim;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::seams::{FromLink, Link};

/// The link to a shim.
struct ToShimOf {
    to: PollSender<ToShim>,
    /// Orders that the shim has not taken yet. There are no more than its tasks, their cancels, a stop and an
    /// acknowledgement.
    waiting: VecDeque<ToShim>,
    from: mpsc::Receiver<FromLink>,
}

/// All links of a group.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<ProcessKey, ToShimOf>,
    /// Who was heard last and so is heard last now.
    last: Option<ProcessKey>,
}

impl Links {
    /// One more process is behind a link.
    pub(super) fn insert(&mut self, link: Link) {
        let Link { process, to, from } = link;
        let link = ToShimOf { to: PollSender::new(to), waiting: VecDeque::new(), from };
        self.links.insert(process, link);
    }

    /// Whether there is one to this process.
    pub(super) fn has(&self, process: ProcessKey) -> bool {
        self.links.contains_key(&process)
    }

    /// The link has said its last.
    pub(super) fn remove(&mut self, process: ProcessKey) {
        self.links.remove(&process);
    }

    /// An order to a process that is gone has lost its point: its end is reported already.
    pub(super) fn order(&mut self, process: ProcessKey, order: ToShim) {
        let Some(link) = self.links.get_mut(&process) else { return };
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

    /// All links, without the orders that wait.
    pub(super) fn into_all(self) -> impl Iterator<Item = Link> {
        self.links.into_iter().filter_map(|(process, link)| {
            let to = link.to.get_ref().cloned()?;
            Some(Link { process, to, from: link.from })
        })
    }

    /// What the next link says, in turns; `None` is its end. Waits for ever where there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> (ProcessKey, Option<FromLink>) {
        poll_fn(|context| {
            for link in self.links.values_mut() {
                link.give(context);
            }
            let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
            let (last, links) = (self.last, &mut self.links);
            for (process, link) in links.range_mut((after, Bound::Unbounded)) {
                if let Poll::Ready(said) = link.from.poll_recv(context) {
                    self.last = Some(*process);
                    return Poll::Ready((*process, said));
                }
            }
            if let Some(last) = last {
                for (process, link) in links.range_mut(..=last) {
                    if let Poll::Ready(said) = link.from.poll_recv(context) {
                        self.last = Some(*process);
                        return Poll::Ready((*process, said));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What a link says right now.
    pub(super) fn try_next(&mut self, process: ProcessKey) -> Option<FromLink> {
        self.links.get_mut(&process)?.from.try_recv().ok()
    }
}

impl ToShimOf {
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
