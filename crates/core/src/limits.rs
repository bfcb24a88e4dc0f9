//! Every cap, timeout, queue size and retry, unit last, each with its reason. `cargo xtask limits` writes
//! docs/limits.md from this file and those beside it; configuration may move a value only inside the bounds asserted here.

mod cluster;
mod nats;

pub use cluster::*;
pub use nats::*;

/// Longest frame body on the shim link and in the store, in bytes. Above one full chunk batch; an allocation of
/// this size is made only after the header has been checked.
pub const FRAME_BYTES_MAX: usize = 1_000_000;
/// Longest batch that an engine takes, in bytes. Below NATS' default message limit of 1 MiB, with room for its
/// headers, so that what one engine takes every engine takes.
pub const BATCH_BYTES_MAX: usize = 1_000_000;
/// Longest body of one log record, in bytes. A batch less what an engine adds to it: position and lane.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 64;
/// Longest chunk held inline, in bytes. A larger message content goes to a blob, a larger piece of text is split.
pub const CHUNK_BYTES_MAX: usize = 262_144;
/// How much waiting output an owner puts into one append, in bytes. Large enough to reach hundreds of thousands of
/// chunks a second, small enough to keep a watcher's latency low.
pub const COALESCE_BYTES_MAX: usize = 65_536;
/// Largest blob, in bytes. One message of a kernel; beyond this it is cut, and the chunk says so.
pub const BLOB_BYTES_MAX: u64 = 1 << 30;
/// How much output a shim keeps in memory while the daemon has not acknowledged it, in bytes. Then it spools.
pub const SHIM_MEMORY_BYTES_MAX: usize = 4 << 20;
/// How much of what a kernel has said may wait in a shim to be looked at, in bytes; then the kernel waits. Several
/// full socket buffers, so that a busy kernel is not stopped and started for nothing.
pub const KERNEL_QUEUE_BYTES_MAX: usize = 8 << 20;
/// How much a shim spools to disk while no daemon takes it, in bytes. Then it lets the program wait.
pub const SPOOL_BYTES_MAX: u64 = 2 << 30;
/// The least that a shim can be told to keep in memory, and to spool, in bytes: a frame of any size.
pub const KEEP_BYTES_MIN: u64 = FRAME_BYTES_MAX as u64;
/// The most that a shim can be told to keep in memory, in bytes: it is there for each process.
pub const SHIM_MEMORY_BYTES_MOST: u64 = 256 << 20;
/// What a spool leaves free on its file system, in bytes.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;
/// How many unacknowledged records a daemon reads ahead from one shim. Bounds the daemon's memory for one process.
pub const SHIM_WINDOW_RECORDS_MAX: usize = 1_024;
/// How much unacknowledged output a daemon reads ahead from one shim, in bytes. What a shim keeps in memory; one record
/// always fits.
pub const SHIM_WINDOW_BYTES_MAX: u64 = 4 << 20;
/// How much of standard error and output is kept as a tail, in bytes. A long traceback with its chain fits.
pub const STDERR_TAIL_BYTES_MAX: usize = 65_536;
/// Longest line that is looked at by the diagnosis, in bytes.
pub const EVIDENCE_LINE_BYTES_MAX: usize = 1_024;
/// How many evidence lines a cause keeps.
pub const EVIDENCE_LINES_MAX: usize = 12;
/// Largest file of matchers, in bytes. Many times the built-in ones.
pub const MATCHERS_BYTES_MAX: usize = 1 << 20;
/// How many matchers a file may have. Each of them is tried on each line of a tail.
pub const MATCHERS_MAX: usize = 500;
/// How many patterns one list of a matcher may have.
pub const MATCHER_PATTERNS_MAX: usize = 64;
/// Largest compiled pattern of a matcher, in bytes. A repetition of a repetition grows beyond any bound.
pub const MATCHER_PATTERN_BYTES_MAX: usize = 1 << 20;
/// Largest compiled set of all patterns, in bytes, and as much again for what it remembers of a search.
pub const MATCHERS_SET_BYTES_MAX: usize = 32 << 20;
/// Longest text that a matcher's title or remedy takes from a line, in bytes.
pub const MATCHER_CAPTURE_BYTES_MAX: usize = 240;
/// How many causes of an exception that a runner tells of are kept. A longer chain repeats itself.
pub const LAST_WORDS_CAUSES_MAX: usize = 8;

/// Time between heartbeats, in milliseconds.
pub const HEARTBEAT_PERIOD_MS: u64 = 600;
/// How long a heartbeat's echo may take, in milliseconds, before it counts as missed.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 500;
/// Misses in a row that make a process `unresponsive`. 4 × 600 ms keeps P2's 3 s with a period to spare.
pub const HEARTBEAT_MISSES: u32 = 4;
/// A pause of the whole machine longer than this, in milliseconds, restarts the heartbeat instead of counting.
pub const SUSPENDED_MS: u64 = 2_000;

/// How long a daemon of a cluster may say nothing, in milliseconds, before the shim of a runner or a command freezes it: as
/// long as a node takes that is cut off. A kernel is left to its daemon for as long as other nodes leave it.
pub const SHIM_GUARD_MS: u64 = 2_000;
/// The shortest such time, in milliseconds. A daemon that is only busy must not stop what it supervises.
pub const SHIM_GUARD_MS_MIN: u64 = 1_000;
/// How often a daemon of a cluster tells each shim that it is there, in milliseconds, if it says nothing else: several times
/// before the guard is tired of waiting. Each wakes a small process.
pub const SHIM_BEAT_MS: u64 = 300;

/// How long a process may take from spawn to ready, in milliseconds. A cold import of a large environment from a
/// network disk takes tens of seconds.
pub const READY_TIMEOUT_MS: u64 = 60_000;
/// Between two looks at a kernel's socket that does not listen yet, in milliseconds. ZeroMQ's own retries grow to a
/// second: this saves about 100 ms of a kernel's start.
pub const PROBE_PERIOD_MS: u64 = 5;
/// How many last lines of a tool that makes a Python environment stand in an error. pip's own reason fits.
pub const INSTALL_TAIL_LINES_MAX: usize = 12;
/// How long pip waits for one answer of an index, in seconds: an offline machine is told soon.
pub const INSTALL_ANSWER_SECONDS: u64 = 15;
/// How often pip asks an index again.
pub const INSTALL_RETRIES_MAX: u32 = 2;
/// From `shutdown_request` to SIGTERM, in milliseconds: atexit handlers run in it.
pub const STOP_ASK_MS: u64 = 5_000;
/// From SIGTERM to SIGKILL, in milliseconds.
pub const STOP_TERM_MS: u64 = 5_000;
/// How long a session may take to end when the daemon is asked to end everything, in milliseconds: the whole ladder,
/// and as much again for a slow disk.
pub const SESSION_END_MS: u64 = 20_000;
/// After a death: how long channels are drained before every run gets its End, in milliseconds (DESIGN §6).
pub const DRAIN_MS: u64 = 250;
/// After an interrupt that a run's time limit caused: how long until its process is stopped, in milliseconds.
pub const TIMEOUT_GRACE_MS: u64 = 5_000;

/// Restarts within [`RESTART_PERIOD_MS`] before a supervisor gives up.
pub const RESTARTS_MAX: u32 = 3;
/// How many restarts a history remembers. A policy that allows more would be one that never gives up.
pub const RESTART_HISTORY_MAX: usize = 100;
/// The period of restart intensity, in milliseconds; so long up, and the count starts anew.
pub const RESTART_PERIOD_MS: u64 = 60_000;
/// The wait before the first restart, in milliseconds.
pub const BACKOFF_MS: u64 = 200;
/// The longest wait before a restart, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 10_000;

/// Longest line of the runner protocol with its newline, in bytes. Short enough for a shell to hold in a variable.
pub const RUNNER_LINE_BYTES_MAX: usize = 65_536;
/// Longest run of raw bytes in a frame of the runner protocol, in bytes: one large answer or image. It is held in memory.
pub const RUNNER_BYTES_MAX: usize = 16 << 20;
/// Longest input of a task, in bytes of JSON. It goes through the log and the shim link whole, so it fits one record.
pub const TASK_INPUT_BYTES_MAX: usize = 512 << 10;
/// Longest name or idempotency key of a task, in bytes. Both are kept in memory as long as the task is known, and go to the
/// runner in a line.
pub const TASK_WORD_BYTES_MAX: usize = 1_024;
/// How many members a group may have. Each is a process of its own.
pub const GROUP_MEMBERS_MAX: usize = 64;
/// How many tasks a runner may take at a time, whatever it says of itself.
pub const RUNNER_CONCURRENCY_MAX: u32 = 1_024;
/// How long a task may wait while no runner of its group is ready, in milliseconds: a model of some size is loaded in that.
pub const TASK_WAIT_MS: u64 = 300_000;
/// How long a cancelled task may take to end, in milliseconds.
pub const CANCEL_GRACE_MS: u64 = 5_000;
/// How long a runner may load without progress, in milliseconds.
pub const STALL_LOAD_MS: u64 = 120_000;
/// How long the first frame of a task may take, in milliseconds.
pub const STALL_FIRST_CHUNK_MS: u64 = 300_000;
/// How long a task may be silent between two frames, in milliseconds.
pub const STALL_CHUNK_MS: u64 = 300_000;
/// How often a runner's progress is told at most, in milliseconds: people cannot read faster.
pub const PROGRESS_MS: u64 = 250;
/// How much may wait in a shim for a runner to read it, in bytes: some tens of the largest tasks. More are refused.
pub const RUNNER_OUTBOX_BYTES_MAX: usize = 16 << 20;
/// How long a runner may live on after it has closed its channel, in milliseconds. One that is ending does not take so long.
pub const CHANNEL_CLOSED_MS: u64 = 1_000;
/// How long a runner may live on after it has said `end`, in milliseconds: its own clean-up runs in it, as after a
/// request to stop.
pub const RUNNER_SAID_END_MS: u64 = STOP_ASK_MS;
/// How many harmless violations of its protocol are told of one runner. The next ones say nothing new.
pub const VIOLATIONS_TOLD_MAX: u32 = 16;
/// How many ended tasks a group remembers. Older ones are forgotten with their output.
pub const TASKS_REMEMBERED_MAX: usize = 10_000;
/// How many ended runs a session remembers that is kept open. Older ones are forgotten with their output; the notebook
/// keeps what they put into it.
pub const RUNS_REMEMBERED_MAX: usize = 10_000;
/// How many ended runs or tasks are forgotten at a time: one record for many.
pub const RUNS_FORGOTTEN_AT_ONCE: usize = 100;
/// How many forgotten runs or tasks leave the log at a time: each time, parts of it are written anew.
pub const RUNS_TRIMMED_AT_ONCE: usize = 1_000;
/// How many runners one task may lose. A task that ends whoever takes it must not end all of them, again and again.
pub const TASK_ATTEMPTS_MAX: u64 = 5;
/// How many nodes one task may lose. That is not its fault, as a rule; one that takes its machine down must not take all of
/// them down, one after the other.
pub const TASK_NODES_LOST_MAX: u64 = 10;
/// How many changes of its owner a session remembers. A rolling upgrade is one for each node.
pub const TAKEOVERS_REMEMBERED_MAX: usize = 16;
/// How many lines the explanation has that a task is told when its runner dies. A whole page of `outlive explain`.
pub const TASK_ERROR_LINES_MAX: usize = 60;
/// How many breaches of the protocol that it lives on after one process is reported for. More say nothing new.
pub const VIOLATIONS_NOTED_MAX: usize = 10;
/// How many failure reports a session or a group remembers.
pub const REPORTS_REMEMBERED_MAX: usize = 100;
/// How many inputs wait in a session's mailbox; then the sender is told `busy`.
pub const MAILBOX_MAX: usize = 256;
/// Largest source that is run at once, in bytes of JSON: it goes through the log and to the shim whole, so it fits one
/// record and one frame.
pub const RUN_SOURCE_BYTES_MAX: usize = 900_000;
/// How much of what is queued together goes into one record, in bytes of JSON; a single run may be larger.
pub const QUEUED_TOGETHER_BYTES_MAX: usize = 512 << 10;
/// How many runs may be queued in one session.
pub const QUEUED_RUNS_MAX: usize = 10_000;
/// How far a watcher may fall behind in memory, in records; then it reads from the log.
pub const WATCH_RECORDS_MAX: usize = 1_024;
/// How far a watcher may fall behind in memory, in bytes of output; then it reads from the log. A dozen of the largest
/// chunks: a reader that is only late for a moment is not sent there.
pub const WATCH_BYTES_MAX: usize = 4 << 20;
/// How long a watcher waits for a store that does not answer before its stream ends as `store-unavailable`, in
/// milliseconds. A server that restarts is back by then; behind it a client looks for another node.
pub const WATCH_PATIENCE_MS: u64 = 2_000;
/// How many changes of a session's state are at hand for those who watch it; who lacks more is told of a gap. Some
/// hundred cells that are run one after the other.
pub const STATE_CHANGES_MAX: usize = 512;
/// How much they may hold, in bytes, about. A thousand sessions that are busy keep a quarter of a gigabyte.
pub const STATE_CHANGES_BYTES_MAX: usize = 256 << 10;
/// How long it may take until a watcher is told that others have come or gone, in milliseconds, when nothing else has
/// changed: a thousand that come at once are few events for each of them.
pub const PEERS_SHOWN_MS: u64 = 1_000;
/// Longest request body of the API, in bytes.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// How deep JSON from outside may nest. serde_json's own limit is 128; this is what our answers promise.
pub const JSON_DEPTH_MAX: usize = 128;
/// How much of a run's source its view shows, in bytes. A client wants to know which cell it is, not all of it.
pub const RUN_SOURCE_VIEW_BYTES_MAX: usize = 4_096;
/// How many waiting runs a session's view lists. A page shows no more; the list of runs has them all.
pub const QUEUE_VIEW_RUNS_MAX: usize = 100;
/// How many chunks an owner puts into one append. Bounds the header of a record, whatever the size of its chunks.
pub const COALESCE_RECORDS_MAX: usize = 1_024;
/// The wait before a store that is unavailable is asked again, in milliseconds: long enough not to spin on a full disk.
pub const STORE_RETRY_MS: u64 = 500;
/// The wait before a store that loses its answers is asked a second time, in milliseconds; it doubles up to
/// [`STORE_RETRY_MS`]. The first time it is asked at once: one lost answer is nothing unusual.
pub const STORE_DOUBT_MS: u64 = 4;
/// How often in a row a store has to refuse a session's record, [`STORE_RETRY_MS`] apart, until whoever asks the session is
/// told and does not wait: a server that is restarted is back by then.
pub const STORE_STALL_TRIES: u32 = 4;
/// How long a connection may take to say who it is, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 2_000;
/// How long a session with a live kernel is left to its node after that node was lost, in milliseconds: a daemon that
/// crashed is back sooner, with the kernel's memory.
pub const KERNEL_GRACE_MS: u64 = 5_000;
/// Comment on a quiet event stream, in milliseconds, so that a client can tell quiet from dead.
pub const SSE_COMMENT_MS: u64 = 250;
/// How many events are joined into one write of an event stream, in bytes. One large write costs what one small one
/// costs; a single event may be larger.
pub const SSE_BATCH_BYTES: usize = 65_536;
/// Longest chat answer that is held in memory, in bytes: one that is not streamed, and one that is streamed and may be
/// begun again, whose text is compared. Some hundred times what models say in one turn.
pub const CHAT_ANSWER_BYTES_MAX: usize = 16 << 20;
/// How many batches wait for one reader of an event stream; then its stream is not read on. With the batch size this
/// bounds what a slow reader costs to about a megabyte.
pub const SSE_BATCHES_MAX: usize = 8;
/// How long a reader of an event stream may take nothing of a full queue, in milliseconds, before its stream is ended
/// as `slow-reader`. A reader that is paged or suspended for a moment survives; one that is gone costs nothing for long.
pub const SSE_STALL_MS: u64 = 30_000;
/// How long a client may take no byte of an answer, in milliseconds, before its connection is closed. Longer than
/// [`SSE_STALL_MS`], so that a slow reader has time to read why it was cut.
pub const WRITE_STALL_MS: u64 = 60_000;
/// How many connections one listener serves at a time; further ones are told so. Above a thousand watchers, and well
/// below a usual hard limit of file descriptors.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send a request's head, and how long a kept-alive connection may be idle, in
/// milliseconds.
pub const REQUEST_HEAD_MS: u64 = 10_000;
/// Longest head of a request, in bytes, and what is buffered of an answer. Browsers and servers agree on 8 to 64 KiB.
pub const REQUEST_HEAD_BYTES_MAX: usize = 65_536;
/// How long a client may take to send a request's body, in milliseconds. 16 MiB over a slow link.
pub const REQUEST_BODY_MS: u64 = 30_000;
/// How long the server waits after a failed accept, in milliseconds: out of descriptors, it must not spin.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
/// How long answers that are under way may take at shutdown, in milliseconds, before their connections are cut.
pub const SERVER_SHUTDOWN_MS: u64 = 2_000;

/// How long the store may take to answer before a node that is asked whether it is ready says no, in milliseconds.
/// Balancers ask every few seconds and wait for one.
pub const READY_STORE_MS: u64 = 1_000;

/// Between two pings of a WebSocket, in milliseconds. Proxies cut what is quiet for 30 to 60 s.
pub const WEBSOCKET_PING_MS: u64 = 20_000;
/// How long nothing may come over a WebSocket, in milliseconds: its client owes an answer to each ping, and may miss two.
pub const WEBSOCKET_SILENCE_MS: u64 = 60_000;
/// How long a WebSocket's client may take to answer the close, in milliseconds. It is not waited for longer, as nothing
/// depends on it; at shutdown it has to fit [`SERVER_SHUTDOWN_MS`].
pub const WEBSOCKET_CLOSE_MS: u64 = 1_000;
/// What is read at once of a WebSocket, in bytes, and the longest message where clients have nothing to say. It is
/// allocated for each of a thousand watchers.
pub const WEBSOCKET_READ_BUFFER_BYTES: usize = 4_096;

/// Group commit: the longest time between an acknowledged append and its fsync, in milliseconds.
pub const FSYNC_MS: u64 = 5;
/// A log segment is closed at this size, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// How many records one read of a log returns at most. A page that a watcher turns into events in a few milliseconds.
pub const READ_RECORDS_MAX: usize = 1_024;
/// How much one read of a log returns at most, in bytes of record bodies. Bounds a late reader's memory.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// How much of a log one read looks at, at most, in bytes, however little of it is wanted. Bounds how long one read
/// takes.
pub const READ_SCAN_BYTES_MAX: usize = 16 << 20;
/// Distance of the places in a segment at which a reader can start, in bytes. A late reader skips half of it.
pub const SEGMENT_MARK_BYTES: u64 = 64 << 10;
/// How much of a document's updates must be behind a snapshot, in bytes, before a segment that is still appended to is
/// closed so that they can be removed from it. Less is not worth a file of its own, for ever.
pub const TRIM_BYTES_MIN: u64 = 256 << 10;
/// How much the table file's pages may take up in memory, in bytes. Rows are few and small.
pub const TABLE_CACHE_BYTES: usize = 1 << 20;
/// How much of a log's end is kept in memory for live readers, in bytes of record bodies. With 50 idle sessions this
/// stays a small part of the daemon's 30 MB.
pub const TAIL_CACHE_BYTES_MAX: usize = 64 << 10;
/// How many sessions that are not in memory are looked at, when a notebook is opened, for one whose file was renamed to it:
/// each is a look at the disk.
pub const RENAMED_LOOKS_MAX: usize = 256;

/// How long such a session may take to be back and to follow its file, in milliseconds; then the file is opened anew.
pub const FOLLOW_WAIT_MS: u64 = 5_000;

/// Longest value of a table row, in bytes. Rows are claims and settings, never content.
pub const TABLE_VALUE_BYTES_MAX: usize = 64 << 10;
/// The wait before tables that failed are written again, in milliseconds: all that wait on a full disk share it.
pub const TABLES_RETRY_MS: u64 = 250;
/// How many damaged table files are kept, the latest. Each was put aside by another start of the daemon.
pub const TABLES_ASIDE_MAX: usize = 4;
/// How many table changes a watcher may fall behind; then it is told of a gap and scans again.
pub const TABLE_WATCH_CHANGES_MAX: usize = 1_024;
/// How long an ended session's log is kept, in days.
pub const RETENTION_DAYS: u64 = 30;
/// How much ended sessions may hold in all, in bytes; then the oldest go first.
pub const RETENTION_BYTES_MAX: u64 = 10 << 30;
/// How often ended sessions are looked through, in milliseconds. They are kept for days, so an hour is often enough.
pub const RETENTION_PERIOD_MS: u64 = 3_600_000;
/// How long a blob that nothing names is kept, in milliseconds.
pub const BLOB_GRACE_MS: u64 = 3_600_000;

/// How much text of one cell is put into a notebook file, in bytes. The log keeps all of it.
pub const NOTEBOOK_STREAM_BYTES_MAX: usize = 10 << 20;
/// How much one rich output may hold to be put into a notebook file, in bytes.
pub const NOTEBOOK_OUTPUT_BYTES_MAX: u64 = 512 << 20;
/// How many outputs of one cell are put into a notebook file. A page that shows more is of no use, and each costs memory.
pub const NOTEBOOK_OUTPUTS_MAX: usize = 10_000;
/// How much the rich outputs of one cell may hold in memory, in bytes; blobs are read when the file is written.
pub const NOTEBOOK_RICH_BYTES_MAX: usize = 64 << 20;
/// Longest update of a live document that a peer may send, in bytes. A pasted notebook of thousands of cells fits; what
/// does not is refused before anything is allocated for it.
pub const DOCUMENT_UPDATE_BYTES_MAX: usize = 8 << 20;
/// How many cells, texts, maps and lists one update of a live document may add before it is applied with a stack of its
/// own. The library deletes nested ones by recursion; this many nested ones fit the stack of any thread.
pub const DOCUMENT_NESTED_MAX: usize = 500;
/// How many of them one update may add at all. 25,000 pasted cells; each level of a forged nesting costs stack.
pub const DOCUMENT_NESTED_HARD_MAX: usize = 100_000;
/// Stack for an update that adds many, in bytes. [`DOCUMENT_NESTED_HARD_MAX`] levels in a debug build; only what is used
/// is ever memory.
pub const DOCUMENT_STACK_BYTES: usize = 256 << 20;
/// How deep lists, maps and texts may nest in a live document. The notebook's model needs 5 (cells, cell, outputs,
/// output, text).
pub const DOCUMENT_DEPTH_MAX: usize = 16;
/// Largest rich output that stands in a live document itself, in bytes; a larger one stands there as a reference.
/// Every peer holds the document in memory: a table or a small plot fits.
pub const DOCUMENT_OUTPUT_BYTES_MAX: usize = 64 << 10;
/// How much the rich outputs of one cell may hold in a live document, in bytes; further ones are references.
pub const DOCUMENT_CELL_OUTPUTS_BYTES_MAX: usize = 1 << 20;
/// How much text of one cell's streams stands in a live document, in bytes. Thousands of lines; nobody reads more of
/// them in a page, and every peer pays for it.
pub const DOCUMENT_STREAM_BYTES_MAX: usize = 256 << 10;
/// Longest id of a cell that peers and callers may give, in bytes. nbformat's own limit is 64.
pub const CELL_ID_BYTES_MAX: usize = 64;
/// Longest awareness state of one client of a live document, in bytes: name, colour, cursor and selections.
pub const AWARENESS_STATE_BYTES_MAX: usize = 16 << 10;
/// How many clients' awareness one live document keeps. Each takes up to [`AWARENESS_STATE_BYTES_MAX`].
pub const AWARENESS_CLIENTS_MAX: usize = 1_024;
/// Longest frame that somebody who edits live may send, in bytes: the largest update with its header.
pub const PEER_FRAME_BYTES_MAX: usize = DOCUMENT_UPDATE_BYTES_MAX + 1_024;
/// How much of one peer may wait for its session, in bytes; then it waits in its socket. One frame of any size fits.
pub const PEER_INPUT_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX;
/// How much of all peers of one session may wait for it, in bytes. Several of the largest updates at once.
pub const PEERS_INPUT_BYTES_MAX: usize = 32 << 20;
/// What a frame counts at least while it waits for its session, in bytes. Bounds how many small ones wait: 256.
pub const PEER_FRAME_BYTES_MIN: usize = 32 << 10;
/// How many frames of all who edit one notebook wait for its session. Each peer alone is bounded by
/// [`PEER_INPUT_BYTES_MAX`]; with many they wait their turn.
pub const PEER_FRAMES_MAX: usize = 256;
/// How many frames of peers are taken into one round, so that the kernel's output and wishes are heard in between.
/// Their updates are one append.
pub const PEER_ROUND_FRAMES_MAX: usize = 64;
/// How much may wait to be sent to one peer, in bytes; then it is told of a gap and gets all anew. Some seconds of a
/// firehose over a slow link, and far less than what a hundred slow peers could cost otherwise.
pub const PEER_QUEUE_BYTES_MAX: usize = 4 << 20;
/// How long a peer may take nothing while something waits for it, in milliseconds, before it is cut. As for readers of
/// event streams.
pub const PEER_STALL_MS: u64 = 30_000;
/// How many may edit one notebook live. Each update is handed to every one of them.
pub const PEERS_MAX: usize = 512;
/// How long a run waits for the edits that it is to see, in milliseconds. They are usually on their way already, over
/// the asker's other connection.
pub const REQUIRED_WAIT_MS: u64 = 2_000;
/// How many askers of one session may wait for edits; further ones are told `busy`.
pub const REQUIRED_WAITING_MAX: usize = 64;
/// How much of a line is quoted where a cell does not read as its asker has seen it, in characters: a line of a terminal.
pub const SOURCE_QUOTED_CHARS_MAX: usize = 80;
/// Shortest time between two updates with a notebook's outputs for those who edit it live, in milliseconds. Nobody reads
/// faster, and each update goes to all of them and into the log.
pub const DOCUMENT_PROJECT_MS: u64 = 50;
/// How many bytes of updates a document's log holds behind its last snapshot before there is a new one, at least. A
/// restart reads and applies them in some milliseconds.
pub const DOCUMENT_COMPACT_BYTES_MIN: u64 = 1 << 20;
/// Largest notebook file that is opened, in bytes. It is held in memory, with a copy while it is written.
pub const NOTEBOOK_FILE_BYTES_MAX: u64 = 1 << 30;
/// Quiet time after a change of a watched file before it is told, in milliseconds: an editor's save is several
/// changes.
pub const FILE_QUIET_MS: u64 = 50;
/// Longest time from a change of a watched file to its hint, in milliseconds, however long its burst lasts.
pub const FILE_HINT_MS_MAX: u64 = 500;
/// Time between two looks at a file that the kernel does not watch for us, in milliseconds. A person who changes a
/// file elsewhere hardly notices; a thousand looks cost a few milliseconds.
pub const FILE_POLL_MS: u64 = 2_000;
/// Time after which the kernel is asked again to watch what it refused to, and after which it is looked whether each
/// watched directory is still where it was, in milliseconds.
pub const FILE_WATCH_RETRY_MS: u64 = 30_000;
/// Quiet time before an autosave, in milliseconds.
pub const AUTOSAVE_QUIET_MS: u64 = 2_000;
/// Longest time that changes stay unsaved, in milliseconds.
pub const AUTOSAVE_MAX_MS: u64 = 10_000;
/// How often one save begins anew because the file was changed meanwhile. Whoever changes it more often than that writes
/// it all the time: the save is tried again later.
pub const SAVE_TRIES_MAX: u32 = 5;
/// How many trusted notebooks are remembered, the latest. Each save of changed code is one; a scan of them takes
/// milliseconds.
pub const TRUST_KEYS_MAX: usize = 10_000;
/// How long a session without a live kernel, work and clients stays in the daemon's memory, in seconds. Long enough for
/// a page to be loaded again; coming back takes milliseconds.
pub const IDLE_TIMEOUT_S: u64 = 30;
/// The least that it can be set to, in seconds.
pub const IDLE_TIMEOUT_S_MIN: u64 = 1;
/// The most that it can be set to, in seconds: a week.
pub const IDLE_TIMEOUT_S_MAX: u64 = 604_800;
/// The most sessions that a daemon can be told to keep in memory. Each costs some kilobytes, and a descriptor or two.
pub const SESSIONS_MAX: u64 = 1_000_000;
/// How often a daemon with a budget looks whether it is exceeded, in milliseconds. Memory grows slowly beside this, and
/// the look reads /proc.
pub const BUDGET_PERIOD_MS: u64 = 2_000;
/// How often a daemon gives back the memory of sessions that have left it, in milliseconds. It takes some milliseconds.
pub const GIVE_BACK_PERIOD_MS: u64 = 10_000;
/// How long before an idle kernel is stopped for a budget that is announced, in milliseconds: whoever looks on can run
/// something.
pub const EVICT_NOTICE_MS: u64 = 10_000;
/// The wait before an eviction that only somebody's look was in the way of is tried again, in milliseconds.
pub const EVICT_RETRY_MS: u64 = 1_000;
/// How long a session that was given to another node is left to it, in milliseconds, before anybody may claim it. A
/// hint reaches that node within a millisecond, and its claim is one append.
pub const RELEASED_TO_MS: u64 = 300;
/// How long each claimant of a session whose node was lost waits for the one before it in the order of claimants, in
/// milliseconds. A claim takes a few on a store of three servers; a claimant that died just now costs one such step.
pub const TAKEOVER_STEP_MS: u64 = 150;
/// How many sessions a node takes over at once; the others wait for the end of one. A log is read whole for each, and
/// a survivor must not die of what it takes over.
pub const TAKEOVERS_AT_ONCE: usize = 8;
/// How long a node that could not take a session over lets all others have another turn, in milliseconds, beside their
/// steps.
pub const TAKEOVER_RETRY_MS: u64 = 1_000;
/// How often a node looks for sessions whose owner is no member, in milliseconds: notices that were missed, all nodes
/// lost at once. It goes through the rows that are in memory.
pub const TAKEOVER_SWEEP_MS: u64 = 3_000;
/// How long an owner must be unknown before its sessions are taken over, in milliseconds: a node that has just joined
/// may claim before its first heartbeat is heard.
pub const TAKEOVER_UNKNOWN_MS: u64 = 2_000;
/// How much memory a machine must have left for its node to take a session over, in bytes. A kernel takes up a hundred
/// MiB at least, and what is here already must live on.
pub const TAKEOVER_MEMORY_BYTES_MIN: u64 = 256 << 20;
/// How many of its latest takeovers a node tells of; those of each session stand in its log.
pub const TAKEOVERS_SHOWN_MAX: usize = 64;
/// How many sessions a node gives away at once. Each writes what it still has and stops a process.
pub const DRAIN_AT_ONCE: usize = 64;
/// How long a drained node waits for the others to take what it gave away, in milliseconds, before it says what they have
/// taken. A claim is there within some milliseconds.
pub const DRAIN_TAKEN_MS: u64 = 300;
/// How often a node brings the rows of its sessions up to date that others list, in milliseconds. People read them.
pub const LISTING_PERIOD_MS: u64 = 1_000;
/// Files that are kept free for clients who come, and for what goes on, when new sessions are refused.
pub const SPARE_FDS: u64 = 16;
/// Files that an open session may need at once: its log, claim and notebook, a shim's socket and pidfd.
pub const SESSION_FDS: u64 = 8;
/// How long a session may be past its deadline before it counts as one that should have gone, in milliseconds. Longer
/// than the writing of a large notebook takes.
pub const ZOMBIE_GRACE_MS: u64 = 60_000;
/// For how long what all sessions take up on the disk is not measured again, in milliseconds: it looks at every file.
pub const METRICS_STORE_MS: u64 = 10_000;
/// Longest path of a Unix socket, in bytes (sun_path less its NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How much text of outputs and sources one answer to an agent holds, in bytes. A language model reads all of it and pays
/// for all of it; the rest is there when it asks.
pub const MCP_TEXT_BYTES_MAX: usize = 32 << 10;
/// How much text of one run an answer has at least, in bytes, however many runs it tells of: enough for an exception.
pub const MCP_RUN_TEXT_BYTES_MIN: usize = 1 << 10;
/// How many runs one answer to an agent shows with their output.
pub const MCP_RUNS_SHOWN_MAX: usize = 24;
/// How many runs, sessions or cells one answer to an agent lists at most.
pub const MCP_LISTED_MAX: usize = 200;
/// Largest image that an agent is given, in bytes of base64. Models take about 5 MB in all; a plot has a tenth of this.
pub const MCP_IMAGE_BYTES_MAX: usize = 1 << 20;
/// How many images one answer to an agent holds; further ones are named only.
pub const MCP_IMAGES_MAX: usize = 4;
/// Largest blob that is read for an agent, in bytes; of a larger one it is told where it is.
pub const MCP_BLOB_BYTES_MAX: u64 = 8 << 20;
/// How many chunks at the end of a long run are looked through for what an agent is shown of its end.
pub const MCP_TAIL_CHUNKS: u64 = 64;
/// How long an agent's `run` waits unless it says otherwise, in seconds. Several clients give up on any request after 60.
pub const MCP_WAIT_S: u64 = 50;
/// How long it may ask to wait, in seconds. What runs longer is asked for by its run id.
pub const MCP_WAIT_S_MAX: u64 = 600;
/// How often an agent that waits is told that it goes on, in milliseconds: well before clients give up on a request.
pub const MCP_PROGRESS_MS: u64 = 5_000;
/// How long a tool that waits for runs goes on when their node is lost, in milliseconds, until another node has them: a
/// kernel's grace and a takeover, several times over.
pub const MCP_MOVE_MS: u64 = 20_000;
/// Between two looks whether it has, in milliseconds.
pub const MCP_MOVED_MS: u64 = 250;
/// How many failures `explain` tells an agent at once, the latest ones.
pub const MCP_REPORTS_MAX: usize = 5;
/// Largest request of an agent over HTTP, in bytes: a notebook's worth of edits.
pub const MCP_REQUEST_BYTES_MAX: usize = 8 << 20;

const _: () = {
    assert!(
        CHUNK_BYTES_MAX * 2 < FRAME_BYTES_MAX,
        "a frame holds a full chunk and its header with room to spare"
    );
    assert!(COALESCE_BYTES_MAX + CHUNK_BYTES_MAX < BATCH_BYTES_MAX, "a coalesced append fits a batch");
    assert!(COALESCE_BYTES_MAX + CHUNK_BYTES_MAX < RECORD_BYTES_MAX, "a coalesced record fits");
    assert!(BATCH_BYTES_MAX <= FRAME_BYTES_MAX, "a batch fits a frame of a segment file");
    assert!(BATCH_BYTES_MAX < 1 << 20, "NATS' default limit");
    assert!(HEARTBEAT_MISSES as u64 * HEARTBEAT_PERIOD_MS + HEARTBEAT_TIMEOUT_MS <= 3_000, "P2");
    assert!(STOP_ASK_MS + STOP_TERM_MS + DRAIN_MS < SESSION_END_MS, "the ladder fits");
    assert!(BUDGET_PERIOD_MS < EVICT_NOTICE_MS, "a notice is looked at again before it ends");
    assert!(IDLE_TIMEOUT_S_MIN <= IDLE_TIMEOUT_S && IDLE_TIMEOUT_S <= IDLE_TIMEOUT_S_MAX, "in its bounds");
    assert!(2 * WEBSOCKET_PING_MS < WEBSOCKET_SILENCE_MS, "a lost answer to a ping is no death");
    assert!(WEBSOCKET_CLOSE_MS < SERVER_SHUTDOWN_MS, "WebSockets end before their connections are cut");
    assert!(MCP_WAIT_S <= MCP_WAIT_S_MAX, "in its bounds");
    assert!(AUTOSAVE_QUIET_MS < AUTOSAVE_MAX_MS, "quiet first, then the ceiling");
    assert!(FILE_QUIET_MS < FILE_HINT_MS_MAX, "quiet first, then the ceiling");
    assert!(FILE_POLL_MS < FILE_WATCH_RETRY_MS, "a pass of retries is one of the looks");
    assert!(DOCUMENT_NESTED_MAX < DOCUMENT_NESTED_HARD_MAX, "few fit any stack, many need their own");
    assert!(
        DOCUMENT_STACK_BYTES / DOCUMENT_NESTED_HARD_MAX >= 2_048,
        "a level of recursion in a debug build"
    );
    assert!(DOCUMENT_OUTPUT_BYTES_MAX <= DOCUMENT_CELL_OUTPUTS_BYTES_MAX, "one output fits its cell");
    assert!(PEER_FRAME_BYTES_MAX <= PEER_INPUT_BYTES_MAX, "any frame that is taken fits");
    assert!(
        PEER_INPUT_BYTES_MAX / PEER_FRAME_BYTES_MIN >= PEER_ROUND_FRAMES_MAX,
        "one peer alone fills a round"
    );
    assert!(PEERS_MAX <= AWARENESS_CLIENTS_MAX, "every peer can say where it is");
    assert!(HEARTBEAT_TIMEOUT_MS <= HEARTBEAT_PERIOD_MS, "one beat is out at a time");
    assert!(SUSPENDED_MS > HEARTBEAT_PERIOD_MS, "an ordinary wait is no suspension");
    assert!(SHIM_GUARD_MS >= SHIM_GUARD_MS_MIN, "in its bounds");
    assert!(SHIM_BEAT_MS * 3 < SHIM_GUARD_MS_MIN, "two lost beats are no silence");
    assert!(RESTARTS_MAX as usize <= RESTART_HISTORY_MAX, "the history holds what is counted");
    assert!(KEEP_BYTES_MIN <= SHIM_MEMORY_BYTES_MAX as u64, "in its bounds");
    assert!(SHIM_MEMORY_BYTES_MAX as u64 <= SHIM_MEMORY_BYTES_MOST, "in its bounds");
    assert!(KEEP_BYTES_MIN <= SPOOL_BYTES_MAX, "in its bounds");
    assert!(STORE_DOUBT_MS < STORE_RETRY_MS, "doubt grows");
    assert!(BACKOFF_MS < BACKOFF_MS_MAX, "back-off grows");
    assert!(SSE_STALL_MS < WRITE_STALL_MS, "a slow reader can still be told why its stream ends");
    assert!(SSE_COMMENT_MS * 4 <= 1_000, "a client may take a second of silence for death");
};
