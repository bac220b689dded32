"""Generate text token by token."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Sample, pack
from palavra.errors import PalavraError
from palavra.inference.sampling import SamplingConfig, choose
from palavra.model.cache import Decoder, StepModel
from palavra.model.finite import check_numbers

Overflow = Literal["error", "slide"]
Reason = Literal["end", "stop", "length"]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How to generate.

    At most `max_tokens` new tokens (None: as many as the context has room for). `sampling` chooses each, with the
    randomness of `seed`; `samples` independent continuations of each prompt. A text ends before the `stop`
    string that it holds first. `overflow`: a text longer than the model's context is an "error", or the model goes on
    ("slide") with the first token and the last half of the context, read anew whenever the context is full.
    """

    max_tokens: int | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: tuple[str, ...] = ()
    seed: int = 0
    samples: int = 1
    overflow: Overflow = "error"

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise PalavraError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if self.samples < 1:
            raise PalavraError(f"samples is {self.samples}: it must be at least 1")
        if self.seed < 0:
            raise PalavraError(f"seed is {self.seed}: it must not be negative")
        if "" in self.stop:
            raise PalavraError("a stop string is empty: every text would end at once")
        if self.overflow not in ("error", "slide"):
            raise PalavraError(f"overflow is {self.overflow!r}: it must be error or slide")


class GenerationOptions(TypedDict, total=False):
    """The options of `generate`: the fields of `GenerationConfig`, but `samples`, and of `SamplingConfig`."""

    max_tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    repetition_penalty: float
    stop: str | Sequence[str]
    seed: int
    overflow: Overflow


def generation_config(samples: int, options: GenerationOptions) -> GenerationConfig:
    """Return the configuration of so many samples with these options. Raises PalavraError for one out of bounds."""
    values: dict[str, Any] = dict(options)
    if "stop" in values:
        stop = values["stop"]
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    sampling = {each.name: values.pop(each.name) for each in fields(SamplingConfig) if each.name in values}
    return GenerationConfig(sampling=SamplingConfig(**sampling), samples=samples, **values)


@dataclass(frozen=True)
class Continuation:
    """`text` that follows a prompt and its `tokens`; `reason` it ended: the model's "end" token, a "stop" string
    (which `text` leaves out, not `tokens`), or its "length"."""

    text: str
    tokens: tuple[int, ...]
    reason: Reason

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return the row of a table."""
        yield {"text": self.text, "tokens": len(self.tokens), "reason": self.reason}


class Generator:
    """Continues token sequences side by side: sample s of prompt p is row p x samples + s.

    `prompts` are token ids with the opening token in front. `end_id` ends a row; `banned` tokens are never chosen.
    Sample 0 has the randomness of the `first` one, so that samples may be made a few at a time. Equal prompts draw the
    same, others independently: no row depends on the rows beside it. Raises PalavraError for a prompt without room.
    """

    def __init__(
        self, steps: StepModel, prompts: Sequence[Sequence[int]], config: GenerationConfig, *,
        end_id: int | None = None, banned: Sequence[int] = (), first: int = 0,
    ):  # fmt: skip
        self.config, self.context = config, steps.model.config.context
        self._end_id, self._banned = end_id, list(banned)
        self.limits = [self._limit(len(prompt)) for prompt in prompts for _ in range(config.samples)]
        self._prompts = prompts
        self._texts = [list(prompt) for prompt in prompts for _ in range(config.samples)]
        self._random = [
            # Of the prompt itself, not of its place: it has the same samples alone and beside others.
            np.random.default_rng([config.seed, first + sample, *prompt])
            for prompt in prompts
            for sample in range(config.samples)
        ]
        self._rows = list(range(len(self._texts)))
        longest = max(len(text) + limit for text, limit in zip(self._texts, self.limits, strict=True))
        self._decoder = Decoder(steps, len(self._rows), min(self.context, longest))
        self._vocab_size = steps.model.config.vocab_size

    def _limit(self, length: int) -> int:
        """Return the most new tokens after a prompt of this length."""
        room = self.context - length
        wanted = self.config.max_tokens
        if self.config.overflow == "slide":
            return self.context if wanted is None else wanted
        if room < 1 or (wanted is not None and wanted > room):
            raise PalavraError(
                f"a prompt of {length} tokens and {wanted or 1} new ones pass the model's context of {self.context}: "
                'shorten the prompt, lower max_tokens, or let the context slide with overflow="slide"'
            )
        return room if wanted is None else wanted

    def finish(self, row: int) -> None:
        """Generate no further tokens for a row."""
        self.limits[row] = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """One token for each row that continues: (row, token)."""
        logits = self._prefill()
        seen = self._seen(logits) if self.config.sampling.repetition_penalty != 1 else None
        while True:
            tokens = self._choose(logits, seen)
            new = list(zip(self._rows, tokens.tolist(), strict=True))
            for row, token in new:
                self._texts[row].append(token)
                self.limits[row] = 0 if token == self._end_id else self.limits[row] - 1
            yield new
            going = np.array([i for i, row in enumerate(self._rows) if self.limits[row] > 0], dtype=np.int64)
            if not len(going):
                return
            if seen is not None:
                seen[torch.arange(len(tokens)), torch.from_numpy(tokens)] = True
            if len(going) < len(self._rows):
                self._rows = [self._rows[i] for i in going]
                self._decoder.keep(going)
                tokens = tokens[going]
                seen = None if seen is None else seen[torch.from_numpy(going)]
            self._slide()
            logits = self._decoder.step(tokens)

    def _prefill(self) -> Tensor:
        """Read every prompt once; logits (R, V)."""
        numbers = np.arange(len(self._prompts))
        whole = [prompt if len(prompt) <= self.context else self._window(prompt) for prompt in self._prompts]
        logits = self._read(whole, numbers)
        if self.config.samples > 1:
            prompt_of = np.repeat(numbers, self.config.samples)
            self._decoder.keep(prompt_of)
            logits = logits[torch.from_numpy(prompt_of).to(logits.device)]
        return logits

    def _read(self, texts: Sequence[Sequence[int]], rows: npt.NDArray[np.integer]) -> Tensor:
        """Read texts in the place of what the decoder's `rows` held; logits (R, V)."""
        samples = [Sample(input_ids=np.array(text, dtype=np.int64)) for text in texts]
        return self._decoder.prefill(pack(samples), rows)

    def _window(self, text: Sequence[int]) -> list[int]:
        """What the model keeps of a text beyond the context: its first token and the last half of the context."""
        return [text[0], *text[-max(1, self.context // 2 - 1) :]]

    def _slide(self) -> None:
        """Read anew what full rows keep, all but the token that comes next."""
        full = np.flatnonzero(self._decoder.lengths >= self.context)
        if len(full):
            self._read([self._window(self._texts[self._rows[index]][:-1]) for index in full], full)

    def _seen(self, logits: Tensor) -> Tensor:
        """(R, V) bool: the tokens of each row so far."""
        seen = torch.zeros(len(self._rows), self._vocab_size, dtype=torch.bool, device=logits.device)
        for i, row in enumerate(self._rows):
            seen[i, self._texts[row]] = True
        return seen

    @torch.inference_mode()
    def _choose(self, logits: Tensor, seen: Tensor | None) -> npt.NDArray[np.int64]:
        check_numbers(logits)
        if self._banned:
            logits[:, self._banned] = -torch.inf
        greedy = self.config.sampling.temperature == 0
        uniforms = None if greedy else np.array([self._random[row].random() for row in self._rows])
        return choose(logits, seen, self.config.sampling, uniforms)


class Detokenizes(Protocol):
    """What turning tokens into text needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`."""


class Detokenizer:
    """The text of tokens that come one by one after those of a prompt, never half a character."""

    def __init__(self, tokenizer: Detokenizes, prompt: Sequence[int]):
        # Whether a first word begins with a space depends on what stands before it.
        self._tokenizer, self._ids = tokenizer, list(prompt[-8:])
        self._start, self._stop = 0, len(self._ids)

    def push(self, token: int) -> str:
        """Return the text that one more token completes; empty while a character is incomplete."""
        self._ids.append(token)
        return self._new_text(complete=False)

    def flush(self) -> str:
        """Return the rest at the end, with U+FFFD for an incomplete character."""
        return self._new_text(complete=True)

    def _new_text(self, complete: bool) -> str:
        before = self._tokenizer.decode(self._ids[self._start : self._stop])
        text = self._tokenizer.decode(self._ids[self._start :])
        if len(text) <= len(before) or (text.endswith("\ufffd") and not complete):
            return ""
        self._start, self._stop = self._stop, len(self._ids)
        return text[len(before) :]


class StopFilter:
    """Passes text on up to the stop string that is complete first (of several, the longest), and holds back what may
    become one. How the text is cut into pieces does not matter."""

    def __init__(self, stop: Sequence[str]):
        self._stop, self._held, self.stopped = tuple(stop), "", False

    def push(self, text: str) -> str:
        """Return the part of the text so far that cannot become a stop string."""
        if self.stopped or not self._stop:
            return "" if self.stopped else text
        self._held += text
        found = [(at + len(string), at) for string in self._stop if (at := self._held.find(string)) >= 0]
        if found:
            self.stopped = True
            _, start = min(found)
            kept, self._held = self._held[:start], ""
            return kept
        begun = (size for string in self._stop for size in range(1, len(string)) if self._held.endswith(string[:size]))
        safe = len(self._held) - max(begun, default=0)
        kept, self._held = self._held[:safe], self._held[safe:]
        return kept

    def flush(self) -> str:
        """Return the text held back that did not become a stop string."""
        kept, self._held = self._held, ""
        return kept


class _Row:
    """One continuation as it grows."""

    def __init__(self, tokenizer: Detokenizes, prompt: Sequence[int], config: GenerationConfig, end_id: int | None):
        self._detokenizer, self._filter = Detokenizer(tokenizer, prompt[1:]), StopFilter(config.stop)
        self._end_id, self.text = end_id, ""
        self.tokens: list[int] = []
        self.reason: Reason = "length"

    def push(self, token: int) -> str:
        """Return the new text that is complete."""
        self.tokens.append(token)
        if token == self._end_id:
            self.reason = "end"
            return ""
        return self._let_through(self._detokenizer.push(token))

    def flush(self) -> str:
        """Return the rest of the text at its end."""
        if self._filter.stopped:
            return ""
        text, rest = self._let_through(self._detokenizer.flush()), self._filter.flush()
        self.text += rest
        return text + rest

    def _let_through(self, text: str) -> str:
        text = self._filter.push(text)
        if self._filter.stopped:
            self.reason = "stop"
        self.text += text
        return text


def continuations(
    steps: StepModel, tokenizer: Detokenizes, prompts: Sequence[Sequence[int]],
    config: GenerationConfig, *, end_id: int | None = None, banned: Sequence[int] = (), first: int = 0,
) -> list[list[Continuation]]:  # fmt: skip
    """`config.samples` continuations of each prompt (token ids). Arguments and errors as `Generator`'s."""
    generator = Generator(steps, prompts, config, end_id=end_id, banned=banned, first=first)
    rows = [_Row(tokenizer, prompt, config, end_id) for prompt in prompts for _ in range(config.samples)]
    for step in generator:
        for number, token in step:
            rows[number].push(token)
            if rows[number].reason == "stop":
                generator.finish(number)
    for row in rows:
        row.flush()
    done = [Continuation(row.text, tuple(row.tokens), row.reason) for row in rows]
    bounds = range(0, len(done) + 1, config.samples)
    return [done[start:stop] for start, stop in pairwise(bounds)]


class Stream(Iterator[str]):
    """The pieces of one continuation as they are completed; together they are its text."""

    def __init__(self, generator: Generator, row: _Row):
        self._row, self._pieces = row, _pieces(generator, row)

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def continuation(self) -> Continuation:
        """Return the continuation so far; at its end with the reason."""
        return Continuation(self._row.text, tuple(self._row.tokens), self._row.reason)


def stream(
    steps: StepModel, tokenizer: Detokenizes, prompt: Sequence[int],
    config: GenerationConfig, *, end_id: int | None = None, banned: Sequence[int] = (),
) -> Stream:  # fmt: skip
    """The (first) continuation of one prompt (token ids) piece by piece. Arguments and errors as `Generator`'s."""
    config = replace(config, samples=1)
    generator = Generator(steps, [prompt], config, end_id=end_id, banned=banned)
    return Stream(generator, _Row(tokenizer, prompt, config, end_id))


def _pieces(generator: Generator, row: _Row) -> Iterator[str]:
    for ((_, token),) in generator:
        if text := row.push(token):
            yield text
        if row.reason == "stop":
            return
    if text := row.flush():
        yield text
