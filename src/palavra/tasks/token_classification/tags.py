"""Tagging schemes of word labels: detection, and conversion to the model's scheme."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from palavra.errors import PalavraError
from palavra.metrics.tag_schemes import ROLES, Scheme, decode_tags, detect_scheme, encode_tags, parse_tag
from palavra.tasks.labels import Labels
from palavra.tasks.token_classification.examples import TaggedSentence

# This scheme has all roles, so with it `decode_tags` reads tags of every scheme.
ANY: Scheme = "bioes"
# The prefixes of span tags, before a hyphen.
SPELLING = ROLES[ANY].replace("O", "")


def labels_of(example: TaggedSentence) -> Labels:
    """Return the labels of a labelled sentence."""
    assert example.labels is not None
    return example.labels


def normalized(example: TaggedSentence, scheme: Scheme) -> Labels:
    """Convert the labels to `scheme`. Raises PalavraError, with the source, for a label that is not a tag."""
    labels = labels_of(example)
    if scheme == "plain":
        return labels
    try:
        return tuple(encode_tags(decode_tags(labels, ANY), len(labels), scheme))
    except PalavraError as error:
        raise PalavraError(f"{example.where}: {error}") from None


def refuse_stray_tags(examples: Sequence[TaggedSentence]) -> None:
    """Raise PalavraError, with file and line, for the first label that is not a span tag if most others are: one slip
    would turn all of them into labels of single words."""
    counts = Counter(chain.from_iterable(labels_of(example) for example in examples))
    spelling = {label for label in counts if label[:1] in SPELLING and label[1:2] == "-"}
    stray = set(counts) - spelling - {"O"}
    if "O" not in counts or sum(counts[label] for label in spelling) <= sum(counts[label] for label in stray):
        return
    for example in examples:
        for number, label in enumerate(labels_of(example)):
            if label in stray:
                raise PalavraError(
                    f"{example.where}: word {number + 1}, {example.words[number]!r}, has the label {label!r}, where "
                    "most others are span tags (B-, I-): correct it, or give --scheme=plain for labels of single words"
                )


def types_of(tags: Iterable[str]) -> list[str]:
    """Return the span labels of the tags, in order."""
    return sorted({parse_tag(tag)[1] for tag in tags if tag != "O"})


def tags_of(types: Iterable[str], scheme: Scheme) -> Labels:
    """Return O and every tag of the scheme for these types."""
    roles = ROLES[scheme].replace("O", "")
    return ("O", *(f"{role}-{name}" if name else role for name in types for role in roles))


def scheme_of(names: Labels) -> Scheme:
    """Return the scheme of a label set: IOB1 if a type has I- without B-, because only there can I- begin a span."""
    scheme = detect_scheme([names])
    begun = {parse_tag(name)[1] for name in names if parse_tag(name)[0] == "B"}
    inside = {parse_tag(name)[1] for name in names if parse_tag(name)[0] == "I"}
    return "iob1" if scheme == "bio" and inside - begun else scheme
