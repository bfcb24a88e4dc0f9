//! Limits of several nodes: of the way from node to node, and of what a node believes of the others.

use super::{REQUEST_HEAD_MS, SSE_COMMENT_MS};

/// How long a connection to another node may take, in milliseconds. Within a machine room it takes one; a node that is
/// gone with its machine answers nothing at all.
pub const OWNER_CONNECT_MS: u64 = 300;
/// How long nothing may come of a stream that another node sends, in milliseconds: four of its comments or pings.
pub const OWNER_SILENCE_MS: u64 = 4 * SSE_COMMENT_MS;
/// How long an answer of another node is waited for, in milliseconds, before it is asked whether it is there at all. It
/// may be at work for long; one that is stopped keeps its connections and says nothing.
pub const OWNER_ANSWER_MS: u64 = 500;
/// How long a connection to another node is kept for the next request, in milliseconds; less than the other side keeps
/// it ([`REQUEST_HEAD_MS`]), so that no request meets one that is just being closed.
pub const OWNER_IDLE_MS: u64 = 5_000;
/// How many connections to one node are kept while nobody needs them. Streams have their own each.
pub const OWNER_IDLE_MAX: usize = 32;
/// Longest refusal of another node that is looked into, in bytes.
pub const OWNER_REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Longest event or message of another node that is carried to a client, in bytes. A coalesced record with its JSON
/// escapes, or a whole notebook for somebody who joins, stays below it.
pub const OWNER_EVENT_BYTES_MAX: usize = 64 << 20;
/// Between two pings of a WebSocket of a node that is one of several, in milliseconds: as comments on event streams,
/// they tell whoever listens that the node is there.
pub const WEBSOCKET_BEAT_MS: u64 = SSE_COMMENT_MS;

/// Between two heartbeats of a node within a machine room, in milliseconds. Three nodes cost each other 30 messages a
/// second, below a thousandth of a core.
pub const CLUSTER_BEAT_MS: u64 = 100;
/// For how long a node may be silent within a machine room, in milliseconds, before it is dead if it did not answer
/// either: three beats, and half of one for the way.
pub const CLUSTER_SUSPECT_MS: u64 = 350;
/// As [`CLUSTER_BEAT_MS`], over a wide area, where a packet that was lost takes a round trip to come again.
pub const CLUSTER_WIDE_BEAT_MS: u64 = 250;
/// As [`CLUSTER_SUSPECT_MS`], over a wide area.
pub const CLUSTER_WIDE_SUSPECT_MS: u64 = 700;
/// For how long a node may stay silent after our own connection was cut, in milliseconds. It was perhaps cut off too, and
/// clients wait for up to some seconds between two tries to connect.
pub const CLUSTER_REUNION_MS: u64 = 4_000;
/// How long more than half of a cluster must be silent until that is believed, in milliseconds. A switch that starts
/// again takes longer, but then our own beats do not come back either.
pub const CLUSTER_MAJORITY_MS: u64 = 1_500;
/// In a cluster of more nodes than this, each is watched by a few others.
pub const CLUSTER_NEIGHBOURS_ABOVE: usize = 30;
/// By how many. All of them are lost at once in one of a million cases where one of twenty nodes is.
pub const CLUSTER_NEIGHBOURS: usize = 5;
/// For how long a node that has gone is remembered and shown, in milliseconds.
pub const CLUSTER_GONE_MS: u64 = 600_000;
/// How many nodes that have gone are remembered.
pub const CLUSTER_GONE_MAX: usize = 256;
/// For how long a node goes on that is cut off or whose store is silent, in milliseconds; then it freezes what runs on
/// it. Its sessions may be taken over from then on, so that effects overlap no longer than this.
pub const CLUSTER_ISOLATION_MS: u64 = 2_000;
/// Between two looks whether the store answers, in milliseconds. Twice before a node counts as cut off.
pub const CLUSTER_STORE_MS: u64 = 1_000;
/// As [`CLUSTER_STORE_MS`], while it does not answer: what is frozen waits for it.
pub const CLUSTER_STORE_AGAIN_MS: u64 = 100;
/// Between two signs of life of a daemon to its shims, in milliseconds. Their guards wait for seconds.
pub const CLUSTER_SHIM_BEAT_MS: u64 = 500;
/// How many sessions a node that is back looks at in the store at the same time.
pub const CLUSTER_CHECKS_MAX: usize = 32;
/// How far the clocks of two nodes may be apart before `doctor` warns, in milliseconds. Times in records and the ages of
/// sessions are off by as much; nothing else depends on them.
pub const CLUSTER_SKEW_MS: u64 = 5_000;
/// How often what is known of the members is shown anew while nothing has changed, in milliseconds.
pub const CLUSTER_SHOWN_MS: u64 = 1_000;
/// How long a node listens whether its name is in use before it joins, in times of what it may be silent for.
pub const CLUSTER_NAME_SILENCES: u32 = 3;

const _: () = {
    assert!(OWNER_IDLE_MS < REQUEST_HEAD_MS, "a kept connection is not one that the other side closes");
    assert!(OWNER_ANSWER_MS < OWNER_SILENCE_MS, "asked before it counts as silent");
    assert!(3 * CLUSTER_BEAT_MS < CLUSTER_SUSPECT_MS, "three beats are missed");
    assert!(2 * CLUSTER_WIDE_BEAT_MS < CLUSTER_WIDE_SUSPECT_MS, "two beats are missed");
    assert!(CLUSTER_WIDE_SUSPECT_MS < CLUSTER_ISOLATION_MS, "a short cut freezes nothing");
    assert!(
        CLUSTER_ISOLATION_MS <= CLUSTER_REUNION_MS,
        "others are not taken for dead before they can be back"
    );
    assert!(2 * CLUSTER_STORE_MS <= CLUSTER_ISOLATION_MS, "the store is asked more than once");
};
