"""Token vectors of which only some are trained: those of the tokens that a run's texts hold.

The gradient of all others is zero in every step, yet a dense one, its norm and the optimizer's moments would be
computed for the whole vocabulary, which is half of a small pretrained model and most of a multilingual one.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.transformer import Embeddings


class PartialEmbedding(nn.Embedding):
    """ids (N,) -> (N, D), as the embedding (V, D) it is made of, of which `weight` (U, D) are the rows `trained` (U,)
    in ascending order, and `kept` (V - U, D) the others, which never move (nor decay)."""

    def __init__(self, table: Tensor, trained: Tensor):
        rows, width = table.shape
        super().__init__(rows, width, device="meta")
        others = torch.ones(len(table), dtype=torch.bool, device=table.device)
        others[trained] = False
        others = others.nonzero()[:, 0]
        self.weight = nn.Parameter(table.detach()[trained])
        self.register_buffer("kept", table.detach()[others])
        self.kept: Tensor
        place = torch.empty(len(table), dtype=torch.int64, device=table.device)
        place[torch.cat([trained, others])] = torch.arange(len(table), device=table.device)
        # Where the row of each token stands in `weight`, and in `kept` behind it.
        self.register_buffer("place", place)
        self.place: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(N,) ids -> (N, D)."""
        place, size = self.place[input], len(self.weight)
        trained = F.embedding(place.clamp(max=size - 1), self.weight)
        kept = F.embedding((place - size).clamp(min=0), self.kept)
        return torch.where((place < size)[:, None], trained, kept)

    def merged(self) -> nn.Embedding:
        """An ordinary embedding with the same vectors."""
        whole = torch.cat([self.weight.detach(), self.kept])[self.place]
        return nn.Embedding(self.num_embeddings, self.embedding_dim, _weight=whole)


def split_embedding(embeddings: Embeddings, trained: npt.NDArray[np.integer]) -> None:
    """Let only the vectors of the `trained` tokens (U,) be learned, at least one. Where these are all, nothing
    changes."""
    table = embeddings.token.weight
    rows = torch.from_numpy(np.unique(trained).astype(np.int64)).to(table.device)
    if 0 < len(rows) < len(table):
        embeddings.token = PartialEmbedding(table, rows)


def merge_embedding(embeddings: Embeddings) -> None:
    """Put the vectors of all tokens in one table again."""
    if isinstance(embeddings.token, PartialEmbedding):
        embeddings.token = embeddings.token.merged()
