//! The cluster as this node sees it, for people: the nodes, and what `doctor` says of them.

use outlive_core::limits::CLUSTER_SKEW_MS;
use outlive_protocol::http::{ClusterNode, ClusterView, DoctorCheck, DoctorLevel, NodeState};
use outlive_store::Connection;

use super::{Cluster, Standing};

impl Cluster {
    /// The nodes, by name, and why nobody is suspected.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let members = self.members.borrow().clone();
        let sessions = self.directory.counts();
        let mut nodes: Vec<ClusterNode> = members
            .seen
            .iter()
            .map(|(member, seen)| ClusterNode {
                member: *member,
                name: seen.name.clone(),
                url: seen.url.clone(),
                state: seen.state,
                since: seen.since,
                version: seen.version.clone(),
                // What a life left that is over is its node's next life's, or is being taken over.
                sessions: if seen.is_gone() { 0 } else { sessions.get(&member.node).copied().unwrap_or(0) },
                clock_skew_ms: seen.clock_skew_ms,
                is_me: *member == self.me,
            })
            .collect();
        nodes.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
        ClusterView { nodes, guard: members.guard.clone(), takeovers: self.takeovers() }
    }

    /// What there is to say of the cluster when somebody asks whether all is well.
    #[must_use]
    pub fn diagnose(&self) -> DoctorCheck {
        let members = self.members.borrow().clone();
        let name = &self.settings.name;
        let check = |level, found: String, hint: Option<&str>| DoctorCheck {
            name: "cluster".to_owned(),
            level,
            found,
            hint: hint.map(str::to_owned),
        };
        let connection = self.settings.transport.connection().borrow().clone();
        if let Connection::Down { why } = connection {
            let hint = "look at the network between this node and the NATS servers, and at their logs";
            return check(
                DoctorLevel::Error,
                format!("node {name} is not connected to NATS: {why}"),
                Some(hint),
            );
        }
        let others = members.seen.iter().filter(|(member, _)| **member != self.me);
        let named = others.clone().map(|(_, seen)| format!("{} {}", seen.name, said(seen.state)));
        let named: Vec<String> =
            std::iter::once(format!("{name} (this node) {}", stands(*self.standing.borrow())))
                .chain(named)
                .collect();
        let found = named.join(", ");
        if let Some(guard) = &members.guard {
            return check(
                DoctorLevel::Warning,
                format!("{found}; nobody is taken for dead now: {guard}"),
                None,
            );
        }
        if *self.standing.borrow() != Standing::Ready {
            return check(DoctorLevel::Warning, found, Some("`outlive nodes` shows how it goes on"));
        }
        let skewed =
            others.filter(|(_, seen)| !seen.is_gone() && seen.clock_skew_ms.unsigned_abs() > CLUSTER_SKEW_MS);
        let skewed: Vec<String> = skewed
            .map(|(_, seen)| {
                let seconds = seen.clock_skew_ms.unsigned_abs() / 1_000;
                let way = if seen.clock_skew_ms > 0 { "ahead of" } else { "behind" };
                format!("the clock of {} is {seconds} s {way} ours", seen.name)
            })
            .collect();
        if skewed.is_empty() {
            return check(DoctorLevel::Ok, found, None);
        }
        let hint = "let all nodes keep time by NTP: the times in logs and reports are off by as much; takeovers do not \
                    depend on them";
        check(DoctorLevel::Warning, format!("{found}; {}", skewed.join(", ")), Some(hint))
    }
}

const fn said(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "is joining",
        NodeState::Alive => "is alive",
        NodeState::Suspected => "is suspected",
        NodeState::Isolated => "is cut off",
        NodeState::Draining => "is draining",
        NodeState::Dead => "is dead",
        NodeState::Left => "has left",
    }
}

const fn stands(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining => "is joining",
        Standing::Ready => "is ready",
        Standing::Isolated { .. } => "is cut off",
        Standing::Reuniting => "is back and looks what is still its own",
        Standing::Draining => "is draining",
    }
}
