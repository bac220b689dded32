"""Spans of words and their tags in BIO, IOB1 and BIOES, and Viterbi search for the best valid tag sequence.

Tags are decoded as in conlleval (Tjong Kim Sang and Buchholz 2000, CoNLL-2000 shared task), which accepts every
sequence of tags: an I- that continues no span begins one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

Scheme = Literal["bio", "iob1", "bioes", "plain"]
ROLES: dict[Scheme, str] = {"bio": "BIO", "iob1": "BIO", "bioes": "BIESO"}
ROLES_OF_NO_SCHEME_HERE = "LU"  # BILOU writes L for E and U for S

# Replaces log 0, so that a path through tags of probability 0 beats one that the scheme forbids.
LOWEST = -1e9
# Most elements of one step of a search over many sentences, and of the back-pointers of all its steps.
STEP_ELEMENTS = 2**21
MEMORY_ELEMENTS = 2**24


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """The words of a sentence from `start` up to, not including, `end`, counted from 0, and their label."""

    start: int
    end: int
    label: str


class Transitions(NamedTuple):
    """Which tags may follow which: `allowed` (K, K) bool from row to column, `start` and `end` (K,) bool."""

    allowed: BoolArray
    start: BoolArray
    end: BoolArray


@lru_cache(maxsize=2**16)
def parse_tag(tag: str) -> tuple[str, str]:
    """Return role and label of a tag: B and PER for `B-PER`, B and "" for `B`, O and "" for `O`."""
    role, _, label = tag.partition("-")
    return role, label


def _roles(tags: Sequence[str], scheme: Scheme) -> list[tuple[str, str]]:
    if scheme == "plain":
        raise ValueError("plain labels spell no spans")
    parsed = [parse_tag(tag) for tag in tags]
    for tag, (role, _) in zip(tags, parsed, strict=True):
        if len(role) != 1 or role not in ROLES[scheme] or (role == "O" and tag != "O"):
            known = ", ".join(role if role == "O" else f"{role}-" for role in ROLES[scheme])
            raise PalavraError(f"the tag '{tag}' is none of {known}; correct the tag or choose another scheme")
    return parsed


def decode_tags(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """Return the spans of one sentence's tags, in order, as leniently as conlleval.

    One rule covers all schemes: a span begins at B- and S-, and at any I- or E- that does not continue a span of the
    same label; it ends before the next span, after E- and S-, and before O. A bare `B` has the empty label. Raises
    PalavraError for a tag that is not in the scheme.
    """
    spans = []
    begin: int | None = None
    previous_role, previous_label = "O", ""
    for position, (role, label) in enumerate([*_roles(tags, scheme), ("O", "")]):
        begins = role != "O" and (role in "BS" or previous_role in "OES" or label != previous_label)
        if begin is not None and (begins or role == "O"):
            spans.append(Span(begin, position, previous_label))
            begin = None
        if begins:
            begin = position
        previous_role, previous_label = role, label
    return spans


def encode_tags(spans: Iterable[Span], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence of `length` words, the inverse of `decode_tags`. Raises PalavraError for a span
    outside the sentence, an empty one, and two that overlap."""
    if scheme == "plain":
        raise ValueError("plain labels spell no spans")
    ordered = sorted(spans)
    for span in ordered:
        if not 0 <= span.start < span.end <= length:
            raise PalavraError(f"{span} does not lie in a sentence of {length} words; correct the span or leave it out")
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise PalavraError(f"{one} and {other} overlap, which tags cannot express; keep one of the two")
    tags = ["O"] * length
    previous = Span(-1, -1, "")
    for span in ordered:
        touches = previous.end == span.start and previous.label == span.label
        for position, role in enumerate(_roles_of_span(span.end - span.start, scheme, touches), span.start):
            tags[position] = f"{role}-{span.label}" if span.label else role
        previous = span
    return tags


def _roles_of_span(length: int, scheme: Scheme, touches: bool) -> str:
    """Return the roles of a span of `length` words; `touches`: the word before ends a span of the same label."""
    if scheme == "bioes":
        return "S" if length == 1 else "B" + "I" * (length - 2) + "E"
    return ("I" if scheme == "iob1" and not touches else "B") + "I" * (length - 1)


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Detect the scheme of the tags of all sentences: bio, bioes, or plain for labels of single words such as parts of
    speech. IOB1 is reported as bio, the scheme to train with; `decode_tags` reads both by one rule. Raises PalavraError
    for BILOU tags."""
    tags = {tag for sentence in sentences for tag in sentence}
    roles = {parse_tag(tag)[0] for tag in tags}
    labelled_outside = any(tag.startswith("O-") for tag in tags)
    if not roles or labelled_outside or not roles <= set(ROLES["bioes"] + ROLES_OF_NO_SCHEME_HERE):
        return "plain"
    if roles & set(ROLES_OF_NO_SCHEME_HERE):
        if "B" in roles and "O" in roles:
            raise PalavraError("the tags are those of BILOU, which is not read; write E- for L- and S- for U-")
        return "plain"
    return "bioes" if roles & set("ES") else "bio"


def transitions(names: Sequence[str], scheme: Scheme) -> Transitions:
    """Return the transitions that the scheme allows among the tags `names` (K,), all if plain. A bioes span ends in E-
    or S-; I- in bio and B- in iob1 follow B- or I- of their label. Raises PalavraError for a tag not in the scheme."""
    if scheme == "plain":
        every = np.ones(len(names), dtype=bool)
        return Transitions(np.ones((len(names), len(names)), dtype=bool), every, every.copy())
    parsed = _roles(names, scheme)
    role = np.array([role for role, _ in parsed])
    label = np.array([label for _, label in parsed])
    open_before = np.isin(role, ["B", "I"])  # a span may continue after this tag
    same = open_before[:, None] & (label[:, None] == label[None, :])
    continues = np.isin(role, {"bio": ["I"], "iob1": ["B"], "bioes": ["I", "E"]}[scheme])
    allowed = np.where(continues[None, :], same, True)
    if scheme == "bioes":
        allowed &= continues[None, :] | ~open_before[:, None]
    return Transitions(allowed, ~continues, ~open_before if scheme == "bioes" else np.ones(len(names), dtype=bool))


def viterbi(
    log_probabilities: npt.NDArray[np.floating], lengths: npt.NDArray[np.integer], allowed: BoolArray, start: BoolArray,
    end: BoolArray,
) -> IntArray:  # fmt: skip
    """Return the most probable allowed tags (N,) int64 of each sentence (Viterbi 1967, with log-probabilities of tags
    but not of transitions); for `allowed`, `start` and `end` see `transitions`.

    log_probabilities (N, K) of the concatenated sentences; `lengths` (S,) in words. A sentence whose most probable tags
    are allowed needs no search. Raises PalavraError for a log-probability that is NaN, ValueError for shapes that do
    not fit and a sentence without an allowed sequence.
    """
    words: IntArray = np.asarray(lengths, dtype=np.int64)
    if log_probabilities.ndim != 2 or int(words.sum()) != len(log_probabilities) or (words <= 0).any():
        raise ValueError("lengths must be positive and add up to the number of rows")
    if log_probabilities.shape[1] != len(start) or allowed.shape != (len(start), len(start)) or len(end) != len(start):
        raise ValueError("log-probabilities and transitions must be of the same tags")
    if np.isnan(log_probabilities).any():
        raise PalavraError("the model's scores of tags are not numbers: it has diverged; train with a lower rate")
    tags: IntArray = log_probabilities.argmax(1).astype(np.int64)
    if len(tags) == 0:
        return tags
    firsts: IntArray = np.cumsum(words) - words
    wrong = np.zeros(len(tags), dtype=bool)
    wrong[1:] = ~allowed[tags[:-1], tags[1:]]
    wrong[firsts] = ~start[tags[firsts]]
    wrong[firsts + words - 1] |= ~end[tags[firsts + words - 1]]
    searched = np.flatnonzero(np.logical_or.reduceat(wrong, firsts))
    # Sort by length, descending, so that the unfinished sentences at a position always come first.
    searched = searched[np.argsort(-words[searched], kind="stable")]
    log_transitions = Transitions(*(np.where(array, 0.0, -np.inf) for array in (allowed, start, end)))
    position = 0
    while position < len(searched):
        longest = int(words[searched[position]])
        rows = max(1, min(STEP_ELEMENTS // len(start) ** 2, MEMORY_ELEMENTS // (longest * len(start))))
        chosen = searched[position : position + rows]
        _search(log_probabilities, firsts[chosen], words[chosen], log_transitions, tags)
        position += rows
    return tags


def _search(
    log_probabilities: npt.NDArray[np.floating], firsts: IntArray, lengths: IntArray, log_transitions: Transitions,
    tags: IntArray,
) -> None:  # fmt: skip
    """Write the best tags of the sentences at rows `firsts` (A,), sorted by length, descending, into `tags`."""
    to_from = np.ascontiguousarray(log_transitions.allowed.T)
    going_on = np.searchsorted(-lengths, -np.arange(int(lengths[0])), side="left")  # sentences longer than t
    came_from = np.zeros((len(going_on), len(lengths), log_probabilities.shape[1]), dtype=np.int32)

    def scores(position: int, rows: int) -> npt.NDArray[np.float64]:
        emitted: npt.NDArray[np.float64] = log_probabilities[firsts[:rows] + position].astype(np.float64)
        return np.maximum(emitted, LOWEST, out=emitted)

    score = scores(0, len(lengths)) + log_transitions.start
    for position, rows in enumerate(going_on[1:], 1):
        paths = score[:rows, None, :] + to_from
        best = paths.argmax(2)
        came_from[position, :rows] = best
        score[:rows] = np.take_along_axis(paths, best[..., None], 2)[..., 0] + scores(position, rows)
    score += log_transitions.end
    if np.isneginf(score.max(1)).any():
        raise ValueError("no sequence of these tags is allowed for a sentence")
    tag = score.argmax(1)
    for position in range(len(going_on) - 1, -1, -1):
        rows = going_on[position]
        tags[firsts[:rows] + position] = tag[:rows]
        tag[:rows] = came_from[position, np.arange(rows), tag[:rows]]
