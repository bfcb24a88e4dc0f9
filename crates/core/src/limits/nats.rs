//! Limits of the engine on NATS JetStream.

/// How long NATS may take for one answer, in milliseconds; then its outcome is unknown. Several times what a loaded
/// server takes, and less than anybody waits for a write.
pub const NATS_ANSWER_MS: u64 = 2_000;
/// Between two signs of life that a quiet connection to NATS asks for, in milliseconds. Two that stay out end it, so a
/// frozen server is left for another within three seconds.
pub const NATS_PING_MS: u64 = 1_000;
/// The longest wait between two attempts to reach NATS again, in milliseconds. A server that comes back is used at once.
pub const NATS_RECONNECT_MS: u64 = 250;
/// Between two attempts to use a NATS that is waited for when the daemon starts, in milliseconds.
pub const NATS_START_RETRY_MS: u64 = 500;
/// How long a new stream may take to have its leader and to be known everywhere, in milliseconds. An election, twice.
pub const NATS_SETTLE_MS: u64 = 15_000;
/// Between two looks whether a new stream is there, in milliseconds.
pub const NATS_SETTLE_STEP_MS: u64 = 20;
/// How many requests wait for the connection to NATS; further ones wait with their callers.
pub const NATS_OUTBOX_MAX: usize = 256;
/// How many messages of one subscription wait for whoever takes them; what comes then is lost, noticed and fetched. Eight
/// pages that are read at once.
pub const NATS_INBOX_MAX: usize = 16_384;
/// How many pages are read from NATS at once. Bounds what comes unasked into the connection's buffer.
pub const NATS_READS_MAX: usize = 8;
/// For how long NATS knows an append again that is repeated because its answer was lost, in milliseconds. An append is
/// repeated as soon as the server answers; it must be known again that much later.
pub const NATS_REPEAT_MS: u64 = 60_000;
/// How much of the end of a followed log is kept in memory, in bytes of record bodies. Four full appends: readers that
/// are woken together read it once.
pub const NATS_TAIL_BYTES_MAX: usize = 256 << 10;
/// The first look whether a followed log has grown although nobody told, in milliseconds; the wait doubles up to
/// [`NATS_LOOK_MS_MAX`] while nothing comes. Between servers a notice can be lost without a sign.
pub const NATS_LOOK_MS: u64 = 250;
/// The longest wait between two such looks, in milliseconds. Ten thousand quiet logs cost hundreds of looks a second.
pub const NATS_LOOK_MS_MAX: u64 = 16_000;
/// Between two looks whether tables have changed although nobody told, in milliseconds.
pub const NATS_TABLE_LOOK_MS: u64 = 2_000;
/// How many records that a lagging replica lacks are asked of its leader, one by one, for one page. More come with the next.
pub const NATS_LEADER_READS_MAX: usize = 64;
/// How often an append is tried again that another one in flight was in the way of. Each of those ends within
/// milliseconds.
pub const NATS_CROWDED_TRIES: u32 = 200;
/// How long the mark of a deleted row is kept, in seconds: a watch that was cut off for less learns of it.
pub const NATS_DELETED_SECONDS: u64 = 86_400;
/// Size of the pieces of a blob in NATS, in bytes. Half of the default limit of a message.
pub const NATS_PIECE_BYTES: usize = 512 << 10;
/// How many pieces of a blob are on their way at once. Bounds memory, and keeps the connection free for what is urgent.
pub const NATS_PIECES_MAX: usize = 4;
/// Of how many blobs of one session it is remembered that they are in NATS. Of others it is asked once more.
pub const NATS_PUT_KNOWN_MAX: usize = 4_096;
/// How often a blob is put again at once because another node puts or removes the same one. Each time, one of the others
/// is done.
pub const NATS_PUT_TRIES_MAX: usize = 16;

const _: () = {
    assert!(NATS_PIECE_BYTES < super::BATCH_BYTES_MAX, "a piece is a message");
    assert!(
        NATS_REPEAT_MS > 10 * NATS_ANSWER_MS,
        "an append is known again long after its answer was given up"
    );
    assert!(
        NATS_READS_MAX * (super::READ_RECORDS_MAX + 1) < NATS_INBOX_MAX,
        "pages that are read at once fit"
    );
    assert!(NATS_LOOK_MS < NATS_LOOK_MS_MAX);
};
