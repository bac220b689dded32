"""Run a model on a stream of texts, some thousand at a time, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from palavra.errors import PalavraError
from palavra.inference.causal import CausalModel
from palavra.inference.embedding import Embedding, Pooling
from palavra.inference.embeds_text import EmbedsText
from palavra.inference.filling import Blank
from palavra.inference.generation import Continuation, GenerationOptions
from palavra.inference.infilling import Filling, Order
from palavra.inference.masked import MaskedModel
from palavra.inference.mixed import MixedModel
from palavra.inference.scoring import Masking, Score
from palavra.limits import batched, utf8_size
from palavra.option import does_not_apply

ScoreMasking = Masking | Literal["none"]
Found = TypeVar("Found")

# Enough for full batches of texts of like length, few enough for a vector of each of their tokens to fit.
CHUNK_TEXTS = 4096
CHUNK_BYTES = 1 << 19
# Prompts that are continued together: results are to be seen before all are done.
CHUNK_PROMPTS = 32


def chunked(texts: Iterable[str], most: int | None = None) -> Iterator[list[str]]:
    """The texts in order, in lists of so many texts (`most`, where given) and bytes as are worked on together."""
    return batched(texts, most or CHUNK_TEXTS, utf8_size, CHUNK_BYTES)


def fill_all(
    model: MaskedModel, texts: Iterable[str], top: int = 5, name: str | None = None, order: Order = "parallel"
) -> Iterator[tuple[str, list[Blank]]]:
    """Each text with its blanks, as `MaskedModel.fill`; where the texts are lines of the file `name`, an error
    in one of them says in which."""
    fill = model.fill
    return _filled(texts, lambda chunk: fill(chunk, top, order), model.masked, name)


def fillings_all(
    model: MaskedModel, texts: Iterable[str], n_best: int = 5, name: str | None = None, *,
    order: Order = "iterative", beam: int | None = None, lengths: tuple[int, int] | None = None,
) -> Iterator[tuple[str, list[Filling]]]:  # fmt: skip
    """Yield each text with its fillings, as `MaskedModel.fillings`; errors as `fill_all`."""
    fillings, masked = model.fillings, model.masked
    return _filled(
        texts, lambda chunk: fillings(chunk, n_best, order=order, beam=beam, lengths=lengths),
        lambda text: masked(text, lengths), name,
    )  # fmt: skip


def _filled(
    texts: Iterable[str], fill: Callable[[list[str]], Sequence[Found]], masked: Callable[[str], object],
    name: str | None,
) -> Iterator[tuple[str, Found]]:  # fmt: skip
    """Each text with what `fill` finds, some thousand at a time; after an error, `masked` tells which text cannot be
    read."""
    done = 0
    for chunk in chunked(texts):
        try:
            filled = fill(chunk)
        except PalavraError:
            if name is not None:
                _check_lines(masked, chunk, name, done + 1)
            raise
        yield from zip(chunk, filled, strict=True)
        done += len(chunk)


def _check_lines(masked: Callable[[str], object], texts: list[str], name: str, first: int) -> None:
    """Raise PalavraError for the first text that cannot be filled, with its line."""
    for line, text in enumerate(texts, first):
        try:
            masked(text)
        except PalavraError as error:
            raise PalavraError(f"{name}:{line}: {error}") from None


def masking_of(model: MaskedModel | CausalModel, masking: ScoreMasking | None) -> ScoreMasking:
    """How a model's texts are masked to score them where `masking` is asked for: None is its default, "none" the score
    of a causal model, or of a `MixedModel` read from left to right. Raises PalavraError for what it cannot do."""
    if isinstance(model, CausalModel):
        if masking is not None:
            raise PalavraError(does_not_apply("--masking", "a causal language model, which masks nothing"))
        return "none"
    if masking == "none" and not isinstance(model, MixedModel):
        raise PalavraError("--masking=none is for models trained with --objective=causal+masked: use token or word")
    return masking or "word"


def scorer(
    model: MaskedModel | CausalModel, masking: ScoreMasking, per_token: bool = False
) -> Callable[[Sequence[str]], list[Score]]:
    """Return the model's `score` with a masking that `masking_of` gave."""
    if masking != "none":
        assert isinstance(model, MaskedModel)
        return lambda texts: model.score(texts, per_token, masking)
    causal = model.causal if isinstance(model, MixedModel) else model
    assert isinstance(causal, CausalModel)
    return lambda texts: causal.score(texts, per_token)


def score_all(
    model: MaskedModel | CausalModel, texts: Iterable[str], *, per_token: bool = False,
    masking: ScoreMasking | None = None, name: str | None = None,
) -> Iterator[Score]:  # fmt: skip
    """The score of each text, `masking` as in `masking_of`. Where the texts are lines of the file `name`, an error in
    one of them says in which."""
    used = masking_of(model, masking)
    done, score = 0, scorer(model, used, per_token)
    for chunk in chunked(texts):
        if name is not None and used != "none":
            room = model.model.config.context - 2
            _check_lengths(model, chunk, room, f"the model reads at most {room}: split it", name, done + 1)
        yield from score(chunk)
        done += len(chunk)


def generate_all(
    model: CausalModel | MixedModel, prompts: Iterable[str], options: GenerationOptions, samples: int = 1,
    name: str | None = None,
) -> Iterator[tuple[str, list[Continuation]]]:  # fmt: skip
    """Each prompt with its continuations, as `CausalModel.generate` with these options; where the prompts are lines of
    the file `name`, an error in one of them says in which."""
    done, generate = 0, model.generate
    for chunk in chunked(prompts, CHUNK_PROMPTS):
        if name is not None and options.get("overflow", "error") == "error":
            new = options.get("max_tokens") or 1
            room = model.model.config.context - 1 - new
            why = f"with {new} new ones the context has room for {max(room, 0)}: shorten it, or use --overflow=slide"
            _check_lengths(model, chunk, room, why, name, done + 1)
        yield from zip(chunk, generate(chunk, samples=samples, **options), strict=True)
        done += len(chunk)


def _check_lengths(
    model: MaskedModel | CausalModel, texts: list[str], room: int, why: str, name: str, first: int
) -> None:
    """Raise PalavraError for the first text of more than `room` tokens, with its line."""
    for line, ids in enumerate(model.tokenizer.encode_many(texts), first):
        if len(ids) > room:
            raise PalavraError(f"{name}:{line} has {len(ids)} tokens, {why}")


class Embedded:
    """The embeddings of many texts, in order, a list at a time; `texts` and `cut` count those so far."""

    def __init__(
        self, model: EmbedsText, texts: Iterable[str], pooling: Pooling | None = None, *, prompt: str | None = None,
        normalize: bool = False, truncate_dim: int | None = None,
    ):  # fmt: skip
        self._source = texts

        def embed(some: list[str]) -> list[Embedding]:
            return model.embed(some, pooling, prompt=prompt, normalize=normalize, truncate_dim=truncate_dim)

        self._embed = embed
        self.texts = self.cut = 0

    def __iter__(self) -> Iterator[list[Embedding]]:
        for chunk in chunked(self._source):
            found = self._embed(chunk)
            self.texts += len(found)
            self.cut += sum(one.truncated for one in found)
            yield found
