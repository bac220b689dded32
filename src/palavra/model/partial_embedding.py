"""Token embeddings of which only some rows are trained: those of the tokens that occur in a run's texts.

The gradient of the other rows is always zero. A dense gradient, its norm and the optimizer's moments would still be
computed for the whole vocabulary, which is half of a small pretrained model and most of a multilingual one.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.transformer import Embeddings


class PartialEmbedding(nn.Embedding):
    """ids (N,) -> (N, D), like the embedding (V, D) it is made from.

    `weight` (U, D) holds the rows `trained` (U,), in ascending order; `kept` (V - U, D) holds the others, which are
    neither trained nor decayed.
    """

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
        # The row of each token in `weight`, with those of `kept` after it.
        self.register_buffer("place", place)
        self.place: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(N,) ids -> (N, D)."""
        place, size = self.place[input], len(self.weight)
        trained = F.embedding(place.clamp(max=size - 1), self.weight)
        kept = F.embedding((place - size).clamp(min=0), self.kept)
        return torch.where((place < size)[:, None], trained, kept)

    def merged(self) -> nn.Embedding:
        """Return an ordinary embedding with the same vectors."""
        whole = torch.cat([self.weight.detach(), self.kept])[self.place]
        return nn.Embedding(self.num_embeddings, self.embedding_dim, _weight=whole)


def split_embedding(embeddings: Embeddings, trained: npt.NDArray[np.integer]) -> None:
    """Train only the vectors of the `trained` tokens (U,). Does nothing if these are all tokens, or none."""
    table = embeddings.token.weight
    rows = torch.from_numpy(np.unique(trained).astype(np.int64)).to(table.device)
    if 0 < len(rows) < len(table):
        embeddings.token = PartialEmbedding(table, rows)


def merge_embedding(embeddings: Embeddings) -> None:
    """Put the vectors of all tokens back in one table."""
    if isinstance(embeddings.token, PartialEmbedding):
        embeddings.token = embeddings.token.merged()
