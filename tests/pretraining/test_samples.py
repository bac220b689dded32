"""The texts with blanks that a report shows: from anywhere in a document, whatever the text looks like."""

from pathlib import Path

import pytest

from palavra.data.shards import Corpus
from palavra.log import Log
from palavra.pretraining.corpus import prepare_shards
from palavra.pretraining.samples import blank_texts
from palavra.recipe import DataConfig
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

SENTENCES = [f"O gato preto viu a lua {place} e voltou tarde." for place in ("no jardim", "em Roma", "na rua", "daqui")]
POEM = "\n".join(["Canto I", "", *(f"verso de {word} sem ponto nem fim" for word in ("amor", "mar", "sol", "dor"))])


def corpus_of(text: str, folder: Path, vocab_size: int = 400) -> tuple[Corpus, Tokenizer]:
    """A text as one document, tokenized."""
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.train([text] * 3, TokenizerConfig(vocab_size=vocab_size))
    tokenizer.save(folder / "tokenizer")
    prepare_shards(DataConfig(sources=(str(path),)), tokenizer, folder / "data", Log(quiet=True))
    return Corpus.open(folder / "data", tokenizer.fingerprint), tokenizer


@pytest.mark.parametrize(
    "text",
    [
        " ".join(SENTENCES * 3),
        "Capítulo I\n\nDe como\n\n" + "\n".join(SENTENCES),
        POEM * 4,
        # A first sentence far longer than what is shown.
        "muito " * 300 + "longe. " + " ".join(SENTENCES),
    ],
    ids=["prose", "headings", "poem", "long"],
)
@pytest.mark.parametrize("vocab_size", [262, 400])
def test_a_text_of_one_document_has_blanks(text: str, tmp_path: Path, vocab_size: int) -> None:
    """Also where every word is several tokens, as in a vocabulary of hardly more than bytes."""
    corpus, tokenizer = corpus_of(text, tmp_path, vocab_size)
    found = blank_texts(corpus, tokenizer, 64)
    assert found
    for blanked in found:
        assert blanked.count(tokenizer.mask_token) == 1
        assert "\n" not in blanked
        assert not blanked.startswith(tokenizer.mask_token)
        assert len(tokenizer.encode_prompt(blanked)) <= 62


def test_the_blank_is_a_whole_word_of_one_token_where_there_is_one(tmp_path: Path) -> None:
    corpus, tokenizer = corpus_of(" ".join(SENTENCES * 3), tmp_path)
    for blanked in blank_texts(corpus, tokenizer, 64):
        before, after = blanked.split(tokenizer.mask_token)
        (original,) = {s for s in SENTENCES if s.startswith(before) and s.endswith(after)}
        word = original[len(before) : len(original) - len(after)]
        assert word in original.replace(".", "").split()
        assert len(tokenizer.encode(" " + word)) == 1


def test_a_text_without_spaces_has_blanks(tmp_path: Path) -> None:
    corpus, tokenizer = corpus_of("吾輩は猫である名前はまだ無い" * 20, tmp_path)
    assert blank_texts(corpus, tokenizer, 64)
