//! What those who edit the notebook live send, and what they are sent.
//!
//! A round takes what waits of all of them: their updates are applied, then journaled together, and only then sent on and
//! answered, so that nobody sees what a crash could take back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use outlive_document::live::ApplyError;
use outlive_document::live::wire::{self, Forged, Message};
use outlive_protocol::http::Problem;
use outlive_store::Durability;

use super::super::journal::WriteError;
use super::super::notebook::{NotebookPlane, restore, with_sources};
use super::super::peers::{Arrival, PeerId, Wish};
use super::Task;
use super::document::{Change, refused};

/// What a round has gathered.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    /// Who wants what it lacks, with its state vector: once, however often it asks.
    asked: BTreeMap<PeerId, Vec<u8>>,
    /// Who wants to know where the others are.
    curious: BTreeSet<PeerId>,
}

impl Task {
    pub(super) async fn peers_wish(&mut self, wish: Wish) -> Result<(), WriteError> {
        match wish {
            Wish::Frames(frames) => self.frames(frames).await?,
            Wish::Left(peers) => {
                if let Some(plane) = &mut self.notebook {
                    peers.into_iter().for_each(|peer| plane.left(peer));
                }
                self.show();
            }
            Wish::Refill(peer) => {
                self.project_outputs().await?;
                if let Some(plane) = &mut self.notebook {
                    plane.refill(peer);
                }
            }
        }
        Ok(())
    }

    async fn frames(&mut self, frames: Vec<Arrival>) -> Result<(), WriteError> {
        let mut round = Round::default();
        for arrival in frames {
            if arrival.is_void() {
                continue;
            }
            for message in wire::messages(&arrival.frame) {
                let taken = match message {
                    Ok(message) => self.message(arrival.peer, message, &mut round).await?,
                    Err(forged) => Err(forged_frame(&forged)),
                };
                if let Err(problem) = taken {
                    self.cut(arrival.peer, problem);
                    break;
                }
            }
        }
        self.close_round(&mut round).await?;
        if let Some(plane) = &mut self.notebook {
            for (peer, state_vector) in round.asked {
                plane.answer(peer, &state_vector);
            }
            for peer in round.curious {
                plane.tell_awareness(peer);
            }
        }
        Ok(())
    }

    async fn close_round(&mut self, round: &mut Round) -> Result<(), WriteError> {
        let changes = std::mem::take(&mut round.changes);
        if changes.is_empty() { Ok(()) } else { self.changed(changes, Durability::Written).await }
    }

    async fn message(
        &mut self,
        peer: PeerId,
        message: Message<'_>,
        round: &mut Round,
    ) -> Result<Result<(), Problem>, WriteError> {
        if let (Message::Step2(_) | Message::Update(_), Err(problem)) = (&message, self.takes_edits()) {
            return Ok(Err(problem));
        }
        let Some(plane) = &mut self.notebook else { return Ok(Ok(())) };
        match message {
            Message::Step1(state_vector) => drop(round.asked.insert(peer, state_vector.to_vec())),
            Message::Step2(update) | Message::Update(update) => match plane.document.live().apply(update) {
                Ok(applied) => {
                    round.changes.extend(applied.update.map(|update| (Some(peer), update)));
                    round.changes.extend(applied.corrections.map(|update| (None, update)));
                }
                Err(error @ ApplyError::Broken { .. }) => {
                    let problem = refused(&error);
                    tracing::warn!(session = %self.session.spec.id, %error, "a peer's update broke the document");
                    // What was taken before it in this round is in no log yet.
                    self.close_round(round).await?;
                    self.read_document_again().await?;
                    return Ok(Err(problem));
                }
                Err(error) => return Ok(Err(refused(&error))),
            },
            Message::Awareness(states) => {
                if let Err(forged) = plane.heard(peer, states) {
                    return Ok(Err(forged_frame(&forged)));
                }
            }
            Message::AwarenessQuery => drop(round.curious.insert(peer)),
            // A kind of a later version of the protocol.
            Message::Other(..) => {}
        }
        Ok(Ok(()))
    }

    fn cut(&mut self, peer: PeerId, problem: Problem) {
        tracing::info!(session = %self.session.spec.id, %problem, "a peer is let go");
        if let Some(plane) = &mut self.notebook {
            plane.peers.cut(peer, problem);
            plane.left(peer);
        }
        self.show();
    }

    async fn read_document_again(&mut self) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let blobs = plane.document.blobs().clone();
        match restore::again(&self.context, &self.session, blobs).await {
            Ok(document) => {
                plane.document = document;
                Ok(())
            }
            Err(restore::RestoreError::Read(error)) => Err(WriteError::Read(error)),
            Err(error) => Err(WriteError::Document(Box::new(error))),
        }
    }
}

impl NotebookPlane {
    /// What a peer is sent first: what we have, so that it sends what we lack, and who is there.
    pub(super) fn welcome(&mut self, peer: PeerId) {
        let state_vector = self.document.live().state_vector();
        self.peers.send(peer, Message::Step1(&state_vector).encode().into());
        self.tell_awareness(peer);
    }

    /// Sends what a peer with this state vector lacks.
    fn answer(&mut self, peer: PeerId, state_vector: &[u8]) {
        if !self.peers.is_there(peer) {
            return;
        }
        match self.document.live().since(state_vector) {
            Ok(update) => {
                self.known.insert(peer, state_vector.to_vec());
                self.peers.send(peer, Message::Step2(&update).encode().into());
            }
            Err(forged) => {
                self.peers.cut(peer, forged_frame(&forged));
                self.left(peer);
            }
        }
    }

    /// Sends all that a peer may lack whose queue was emptied.
    fn refill(&mut self, peer: PeerId) {
        let live = self.document.live();
        let since = self.known.get(&peer).and_then(|known| live.since(known).ok());
        let update = since.unwrap_or_else(|| live.state());
        let mut frames: Vec<Bytes> = vec![Message::Step2(&update).encode().into()];
        frames.extend(self.awareness.all().map(|states| Message::Awareness(&states).encode().into()));
        self.peers.refill(peer, frames);
    }

    /// Sends changes to everybody but those who made them.
    pub(super) fn relay(&mut self, changes: &[Change]) {
        if self.peers.is_empty() {
            return;
        }
        for (from, update) in changes {
            let frame = Message::Update(update).encode().into();
            self.peers.relay(*from, &frame);
        }
    }

    fn tell_awareness(&mut self, peer: PeerId) {
        if let Some(states) = self.awareness.all() {
            self.peers.send(peer, Message::Awareness(&states).encode().into());
        }
    }

    /// A peer says who and where it is.
    fn heard(&mut self, peer: PeerId, states: &[u8]) -> Result<(), Forged> {
        if !self.peers.is_there(peer) {
            return Ok(());
        }
        let noticed = self.awareness.apply(states)?;
        let Some(relay) = noticed.relay else { return Ok(()) };
        for client in noticed.clients {
            // Who speaks for a client last takes it along when it goes.
            if self.awareness.has(client) {
                self.speakers.insert(client, peer);
            } else {
                self.speakers.remove(&client);
            }
        }
        self.peers.relay(Some(peer), &Message::Awareness(&relay).encode().into());
        Ok(())
    }

    /// A peer has gone, and those it spoke for with it.
    pub(super) fn left(&mut self, peer: PeerId) {
        self.known.remove(&peer);
        let clients: Vec<u64> =
            self.speakers.extract_if(.., |_, speaker| *speaker == peer).map(|(client, _)| client).collect();
        if let Some(gone) = self.awareness.remove(&clients) {
            self.peers.relay(None, &Message::Awareness(&gone).encode().into());
        }
    }
}

fn forged_frame(forged: &Forged) -> Problem {
    Problem::new(422, "forged-update", "The update is not valid", with_sources(forged))
        .hint("join again; if it happens again, the client does not speak the y-sync protocol as others do")
}
