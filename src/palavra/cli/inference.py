"""Inference commands."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from palavra.cli.app import app
from palavra.cli.parameters import Device, Json, Masking, Model, Task, TextFile, readable, takes_options, texts_of
from palavra.cli.printing import one_line, print_json_line, print_row, print_text
from palavra.cli.streams import print_note
from palavra.errors import PalavraError


@app.command()
def fill(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts with [MASK] where a word is missing.")] = None,
    file: TextFile = None,
    top: Annotated[int | None, typer.Option(help="Proposals for each [MASK].  [default: 5]")] = None,
    order: Annotated[
        Literal["parallel", "iterative"] | None,
        typer.Option(
            help="Predict every [MASK] in one pass (parallel), or fill the most certain one, predict again, and so on "
            "(iterative).  [default: parallel; with --n-best iterative]"
        ),
    ] = None,
    n_best: Annotated[
        int | None, typer.Option(help="Show this many ways to fill the whole text; [MASK][MASK] is one blank.")
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="With --n-best, iterative order: width of the beam search.  [default: --n-best]")
    ] = None,
    blank: Annotated[
        str | None, typer.Option(help="With --n-best: tokens that the one [MASK] stands for, such as 2 or 1-3.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fill blanks: the most probable tokens for every [MASK], or ways to fill them all, best first."""
    from palavra.inference.loading import load
    from palavra.inference.masked import MaskedModel
    from palavra.inference.streaming import fill_all, fillings_all

    if n_best is None and (beam is not None or blank is not None):
        raise PalavraError("--beam and --blank are for whole fillings: give --n-best too")
    if n_best is not None and top is not None:
        raise PalavraError("--top is for proposals for each [MASK], --n-best for whole fillings: give one of the two")
    lengths = None if blank is None else _lengths(blank)
    loaded = load(model, device=device)
    loaded.check_offers("fill")
    assert isinstance(loaded, MaskedModel)
    wanted, name = texts_of(texts, file)
    if n_best is None:
        for text, blanks in fill_all(loaded, wanted, 5 if top is None else top, name, order or "parallel"):
            _show_blanks(text, blanks, order, as_json)
        return
    found = fillings_all(loaded, wanted, n_best, name, order=order or "iterative", beam=beam, lengths=lengths)
    for text, fillings in found:
        _show_fillings(text, fillings, lengths is not None, as_json)


def _lengths(blank: str) -> tuple[int, int]:
    """Parse the minimum and maximum number of tokens: "2" or "1-3"."""
    fewest, _, most = blank.partition("-")
    try:
        return int(fewest), int(most or fewest)
    except ValueError:
        raise PalavraError(f"--blank is {blank!r}: it must be a number of tokens, or a range as in 1-3") from None


def _show_blanks(text: str, blanks: Sequence[Any], order: str | None, as_json: bool) -> None:
    """Print the proposals for each mask of a text."""
    if as_json:
        masks = [[vars(fill) for fill in blank.fills] for blank in blanks]
        readings = {"readings": [blank.reading for blank in blanks]} if order == "iterative" else {}
        print_json_line({"text": text, "fills": masks, **readings})
        return
    print_text(text)
    for blank in blanks:
        if len(blanks) > 1:
            print_row(f"  blank {blank.index + 1}" + (f", filled {blank.reading}." if order == "iterative" else ""))
        for found in blank.fills:
            print_row(f"  {found.probability:6.1%}  {one_line(found.token)}")


def _show_fillings(text: str, fillings: Sequence[Any], by_token: bool, as_json: bool) -> None:
    """Print the ways to fill a text; `by_token`: with the probability per token that ranks them."""
    if as_json:
        ways = [
            {
                "text": way.text,
                "probability": way.probability,
                "probability_per_token": way.probability_per_token,
                "log_probability": way.log_probability,
                "blanks": [{"text": one.text, "tokens": [vars(fill) for fill in one.tokens]} for one in way.blanks],
            }
            for way in fillings
        ]
        print_json_line({"text": text, "fillings": ways})
        return
    print_text(text)
    for way in fillings:
        shown = f"{way.probability:7.1%}" if way.probability >= 0.001 else f"{way.probability:7.0e}"
        each = f"  {way.probability_per_token:6.1%} a token" if by_token else ""
        print_row(f" {shown}{each}  {one_line(' / '.join(blank.text for blank in way.blanks))}")


@app.command()
def generate(
    model: Model,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue.  [default: start a new text]", show_default=False)
    ] = None,
    file: Annotated[str | None, typer.Option(help="One prompt a line; - for standard input.", metavar="<path>")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most new tokens.  [default: what fits in the context]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token; higher values vary more.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most probable tokens.")] = None,
    top_p: Annotated[
        float, typer.Option(help="Sample from the most probable tokens whose probabilities sum to this.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Drop tokens below this fraction of the most probable token's probability.")
    ] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1, tokens seen before become less probable.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this string. Repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    samples: Annotated[int, typer.Option(help="Continuations of each prompt.")] = 1,
    overflow: Annotated[
        Literal["error", "slide"],
        typer.Option(help="When the context is full: stop with an error, or continue with its last half."),
    ] = "error",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Continue a prompt with a causal model."""
    from palavra.inference.causal import CausalModel
    from palavra.inference.generation import GenerationOptions
    from palavra.inference.loading import load
    from palavra.inference.mixed import MixedModel
    from palavra.inference.streaming import generate_all

    options: GenerationOptions = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": tuple(map(readable, stop or ())),
        "seed": seed,
        "overflow": overflow,
    }
    prompt = readable(prompt or "")
    loaded = load(model, device=device)
    loaded.check_offers("generate")
    assert isinstance(loaded, CausalModel | MixedModel)
    if file is None and samples == 1 and not as_json:
        _stream(loaded, prompt, options)
        return
    prompts, name = ([prompt], None) if file is None else texts_of([prompt] if prompt else None, file)
    for text, found in generate_all(loaded, prompts, options, samples, name):
        for number, one in enumerate(found, start=1):
            if as_json:
                print_json_line({"prompt": text, "sample": number, **vars(one)})
            else:
                print_text(f"[{number}] {text}{one.text}" if samples > 1 else f"{text}{one.text}")


def _stream(model: Any, prompt: str, options: Any) -> None:
    """Print a prompt and its continuation as it is generated, and why it ended if early."""
    pieces = model.stream(prompt, **options)
    first = next(pieces, "")  # before printing, since this may fail
    print_text(prompt + first, end="")
    try:
        for piece in pieces:
            print_text(piece, end="")
    finally:
        print_text("")
    found, asked = pieces.continuation, options["max_tokens"]
    if found.reason == "length" and len(found.tokens) != asked:
        context = model.model.config.context
        print_note(f"(the context of {context} tokens is full: --max-tokens N --overflow slide continues)")
    elif found.reason == "end" and asked is not None:
        print_note(f"(the model ended the text after {len(found.tokens)} of {asked} tokens)")


@app.command()
def score(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to score.")] = None,
    file: TextFile = None,
    per_token: Annotated[bool, typer.Option("--per-token", help="Show every token's log-probability too.")] = False,
    masking: Masking = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score texts: log-likelihood, perplexity, bits per byte."""
    from palavra.inference.causal import CausalModel
    from palavra.inference.loading import load
    from palavra.inference.masked import MaskedModel
    from palavra.inference.streaming import score_all

    loaded = load(model, device=device)
    loaded.check_offers("score")
    assert isinstance(loaded, MaskedModel | CausalModel)
    wanted, name = texts_of(texts, file)
    found = score_all(loaded, wanted, per_token=per_token, masking=masking, name=name)
    for number, one in enumerate(found):
        if as_json:
            print_json_line(_score_json(one, per_token))
            continue
        if number == 0:
            print_row("log-likelihood  tokens  perplexity  bits per byte  text")
        print_row(
            f"{one.log_likelihood:14.2f}  {one.tokens:6}  {one.perplexity:10.2f}  {one.bits_per_byte:13.3f}  "
            f"{one_line(one.text)}"
        )
        for token in one.per_token:
            shown = one_line(one.text[token.start : token.stop] or token.token)
            print_row(f"{token.log_probability:14.2f}  {shown}")


def _score_json(one: Any, per_token: bool) -> dict[str, Any]:
    """Return a score as JSON; a rate per unit that the text lacks is null."""
    values = {
        "text": one.text,
        "log_likelihood": one.log_likelihood,
        "tokens": one.tokens,
        "words": one.words,
        "bytes": one.bytes,
    }
    for key in ("perplexity", "perplexity_per_word", "bits_per_byte"):
        value = getattr(one, key)
        values[key] = None if math.isnan(value) else value
    return values | ({"per_token": [vars(token) for token in one.per_token]} if per_token else {})


@app.command()
def follows(
    model: Model,
    first: Annotated[str, typer.Argument(help="A text.", show_default=False)],
    second: Annotated[str, typer.Argument(help="The text that may follow it.", show_default=False)],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Ask a model that learned next sentences (masked+nsp, BERT) whether one text follows another."""
    from palavra.inference.loading import load
    from palavra.inference.masked import MaskedModel

    loaded = load(model, device=device)
    if not isinstance(loaded, MaskedModel):
        loaded.check_offers("follows")
    assert isinstance(loaded, MaskedModel)
    found = loaded.follows(readable(first), readable(second))
    if as_json:
        print_json_line(vars(found))
        return
    print_row(f"{found.probability:6.1%}  follows")
    if found.truncated:
        print_note("the texts are longer than the model reads: they were cut")


@app.command()
def embed(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.")] = None,
    file: TextFile = None,
    pooling: Annotated[
        Literal["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", "token"] | None,
        typer.Option(
            help="How the vectors of all tokens become one for each text; token: one for each token.  [default: that "
            "of the model's modules.json, else mean; for causal models lasttoken]"
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What stands before every text: a name of the model's prompts, or a text.  [default: the model's "
            "default prompt]"
        ),
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each vector to length 1.")] = False,
    truncate_dim: Annotated[
        int | None, typer.Option(help="Keep this many numbers of each vector, for models trained so (Matryoshka).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write .npy, .parquet or .jsonl.  [default: JSON lines on stdout]", show_default=False),
    ] = None,
    device: Device = "auto",
) -> None:
    """Embed texts, or their tokens, as vectors. Every model can; those of sentence-transformers give its vectors."""
    from palavra.inference.export import as_json, check_target, write_embeddings
    from palavra.inference.loading import load
    from palavra.inference.streaming import Embedded
    from palavra.output import output_file

    with ExitStack() as stack:
        temporary = None
        if out is not None:
            check_target(out, pooling, [model, *([] if file is None else [file])])
            temporary = stack.enter_context(output_file(out))  # before the work, which it may end
        found = Embedded(
            load(model, device=device), texts_of(texts, file)[0], pooling,
            prompt=None if prompt is None else readable(prompt), normalize=normalize, truncate_dim=truncate_dim,
        )  # fmt: skip
        if out is not None and temporary is not None:
            write_embeddings(found, temporary, out.suffix)
        else:
            for some in found:
                for content in as_json(some):
                    print_json_line(content)
    if found.cut:
        print_note(f"warning: {found.cut} of {found.texts} texts were longer than the model reads and were cut")
    if out is not None:
        print_note(f"{found.texts} texts -> {out}")


@app.command()
@takes_options("predict")
def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to predict; of two texts the first and the second in turn.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            help="Records with columns (.csv .tsv .jsonl .json .parquet .xlsx .ods, hf://, or the kind's own files), "
            "else one text a line; - for standard input."
        ),
    ] = None,
    task: Task = None,
    *,
    options: dict[str, Any],
    top: Annotated[
        int | None, typer.Option(help="How many of the most probable classes or answers to list.  [default: 5]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Predict with a fine-tuned model: texts or records in, JSON lines out, in order."""
    from palavra.api.predict import predict_inputs
    from palavra.inference.finetuned import FineTunedModel
    from palavra.inference.loading import load

    loaded = load(model, device=device)
    loaded.check_offers("predict")
    assert isinstance(loaded, FineTunedModel)
    for one in predict_inputs(loaded, list(map(readable, texts or ())), file, task=task, top=top, **options):
        print_json_line(one)
