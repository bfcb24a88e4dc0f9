"""Three nodes on one NATS. A story is told on one of them and watched at all three; then that node is killed.

    python3 examples/three-nodes/demo.py

It needs a built outlive (OUTLIVE_BIN, target/release/outlive) or Rust to build it, and Python 3.10. It takes 20 seconds, and
leaves nothing behind.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from machines import HERE, PATIENCE, ROOT, Node, three_nodes  # noqa: E402

sys.path.insert(0, str(ROOT / "python/outlive/src"))

from runner import story  # noqa: E402

SEED = 2
WORDS = 300
SECONDS_PER_WORD = 0.03
FATAL_WORD = 110
FRAME = 0.05
BEGAN = time.monotonic()
IS_TERMINAL = sys.stdout.isatty()
IS_COLOURED = IS_TERMINAL and "NO_COLOR" not in os.environ


def ink(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if IS_COLOURED else text


def bold(text: str) -> str:
    return ink("1", text)


def say(text: str) -> None:
    print(f"{ink('2', f'{time.monotonic() - BEGAN:5.1f} s')}  {text}", flush=True)


class Watcher:
    """Somebody who follows the task from one node with the command line, which goes elsewhere by itself if it has to."""

    def __init__(self, node: Node, task: str) -> None:
        self.node = node
        self.pieces: list[str] = []
        #: When there were so many words for the first time.
        self.firsts: list[float] = []
        command = [node.program, "task", "attach", "poet", task, "--json"]
        self.process = subprocess.Popen(
            command, env=node.environment, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        """Folds the events as docs/design/api.md says: what a lost attempt had said behind its last save is void."""
        assert self.process.stdout
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "reset":
                del self.pieces[event["keep"] :]
            elif event["event"] == "output":
                assert event["first"] == len(self.pieces) + 1, f"a piece is missing or comes twice: {event}"
                self.pieces.extend(chunk["text"] for chunk in event["chunks"] if chunk["kind"] == "text")
                self.firsts.extend(itertools.repeat(time.monotonic(), len(self.pieces) - len(self.firsts)))

    def must_go_on(self) -> None:
        last = self.firsts[-1] if self.firsts else BEGAN
        if time.monotonic() > last + PATIENCE:
            sys.exit(f"nothing has come at {self.node.name} for {PATIENCE:.0f} s")

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def after(self, moment: float) -> float | None:
        """When the first word came that was told after this moment, and not on its way then."""
        return next((at for at in self.firsts if at > moment + 2 * SECONDS_PER_WORD), None)


class Stage:
    """The end of what each watcher sees, a line each: live on a terminal, now and then elsewhere."""

    def __init__(self, watchers: list[Watcher]) -> None:
        self.watchers, self.is_up, self.shown = watchers, False, -1

    def draw(self, writer: str, lost: str | None) -> None:
        if not IS_TERMINAL:
            words = len(self.watchers[-1].pieces) // 50
            if words > self.shown:
                self.shown = words
                say("   ".join(f"at {watcher.node.name}: {len(watcher.pieces)} words" for watcher in self.watchers))
            return
        width = max(shutil.get_terminal_size().columns - 24, 10)
        if self.is_up:
            print(f"\033[{len(self.watchers)}A", end="")
        for watcher in self.watchers:
            name = watcher.node.name
            role = ink("31", "killed  ") if name == lost else ink("32", "tells   ") if name == writer else "watches "
            text = watcher.text.rstrip()
            seen = text if len(text) <= width else "…" + text[1 - width :]
            print(f"\r\033[K  {bold(name)}  {role} {len(watcher.pieces):3}  {seen}")
        self.is_up = True
        sys.stdout.flush()


def play(nodes: list[Node]) -> int:
    owner, survivor = nodes[0], nodes[1]
    owner.run("up", "runners.toml")
    wishes = [f"seed={SEED}", f"words={WORDS}", f"seconds_per_word={SECONDS_PER_WORD}"]
    submitted = owner.run("task", "submit", "poet", "tell", "--idempotent", "--detach", "--json", *wishes)
    say(f"{bold(owner.name)} tells a story of {WORDS} words; somebody watches at each node\n")
    watchers = [Watcher(node, json.loads(submitted)["id"]) for node in nodes]
    late = watchers[-1]

    stage = Stage(watchers)
    while len(late.pieces) < FATAL_WORD:
        late.must_go_on()
        stage.draw(owner.name, None)
        time.sleep(FRAME)
    killed, place = time.monotonic(), len(late.pieces)
    count = owner.lose()
    print()
    say(f"{ink('1;31', f'kill -9: {owner.name} is gone')}, with all {count} processes that ran there\n")

    stage, heir = Stage(watchers), ""
    while any(watcher.process.poll() is None for watcher in watchers):
        late.must_go_on()
        if not heir and late.after(killed):
            heir = json.loads(survivor.run("explain", "poet", "--takeovers", "--json"))[-1]["to_name"]
        stage.draw(heir, owner.name)
        time.sleep(FRAME)
    for watcher in watchers:
        watcher.thread.join(PATIENCE)
    stage.draw(heir, owner.name)
    print()
    is_exact = report(watchers, owner, killed, place)
    print(f"\n{ink('2', '$ outlive explain poet --takeovers')}")
    print(survivor.run("explain", "poet", "--takeovers"), end="")
    return 0 if is_exact else 1


def report(watchers: list[Watcher], owner: Node, killed: float, place: int) -> bool:
    """What everybody has seen, compared with the story as it is told where nobody is killed."""
    words = list(itertools.islice(story(SEED), WORDS))
    expected = "".join(f"{word} " for word in words)
    cut = f"…{' '.join(words[place - 4 : place])} {ink('1;31', '✂')} {' '.join(words[place : place + 4])}…"
    say(f"the story is told. Where {owner.name} died: {cut}\n")
    print(f"         {'who watched at':23} {'new word after the kill':25} {'each word once'}")
    for watcher in watchers:
        at = f"{watcher.node.name}, which was killed" if watcher.node is owner else watcher.node.name
        first = watcher.after(killed)
        pause = "none" if first is None else f"{first - killed:.2f} s"
        verdict = ink("32", "yes") if watcher.text == expected else ink("1;31", "NO")
        print(f"         {at:23} {pause:25} {verdict}")
    exact = sum(watcher.text == expected for watcher in watchers)
    said = f"{exact} of {len(watchers)} watchers have the same story as if nothing had happened"
    print("\n         " + ink("1;32" if exact == len(watchers) else "1;31", said))
    return exact == len(watchers)


def main() -> int:
    # So that all is taken away however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with three_nodes(say) as nodes:
            say(f"NATS, and three nodes that know each other: {', '.join(bold(node.name) for node in nodes)}")
            return play(nodes)
    except KeyboardInterrupt:
        print("\nended early; nothing is left")
        return 130


if __name__ == "__main__":
    sys.exit(main())
