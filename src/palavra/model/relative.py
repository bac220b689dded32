"""Terms of the attention scores that depend on the distance of query and key, for packed sequences.

Tokens of one sequence stand side by side in a row, so the distance of two slots is that of their tokens, and one matrix
of distances serves all rows. Legend: H heads, d units of a head, B blocks of Q queries and K keys, R distances.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.model.config import ModelConfig, RelativeAttention
from palavra.model.dropout import Dropout

# Queries (H, B, Q, d), keys (H, B, K, d) and distances query - key (1 or B, Q, K) int64 -> (H, 1 or B, Q, K), which is
# added to the scaled scores.
ScoreTerm = Callable[[Tensor, Tensor, Tensor], Tensor]


class DistanceEmbedding(nn.Module):
    """The vectors of distances, which all layers share, or one number for each head ("bias")."""

    def __init__(self, config: ModelConfig, relative: RelativeAttention):
        super().__init__()
        bias = relative.kind == "bias"
        width = config.num_heads if bias else config.hidden_size
        self.embedding = nn.Embedding(relative.buckets if bias else 2 * relative.reach, width)
        self.norm = nn.LayerNorm(width, config.norm_eps) if relative.norm and not bias else nn.Identity()

    def forward(self) -> Tensor:
        """Return them all, (buckets, H) or (R, D)."""
        out: Tensor = self.norm(self.embedding.weight)
        return out


class RelativeBias(nn.Module):
    """A number for each head and bucket of distances (Raffel et al. 2020; Song et al. 2020, arXiv:2004.09297)."""

    def __init__(self, config: ModelConfig, relative: RelativeAttention):
        super().__init__()
        del config
        self.config = relative

    def term(self, table: Tensor, qkv: nn.Module) -> ScoreTerm:
        """table (buckets, H) -> the term."""
        del qkv

        def added(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
            del q
            most = k.shape[2] - 1
            every = torch.arange(-most, most + 1, device=distance.device)
            of_distance = F.embedding(two_sided_buckets(every, self.config), table).T
            return of_distance[:, distance + most]

        return added


class DisentangledScores(nn.Module):
    """Products of queries with vectors of distances, and of keys with them (DeBERTa, He et al. 2021, eq. 4)."""

    def __init__(self, config: ModelConfig, relative: RelativeAttention):
        super().__init__()
        self.config, self.heads = relative, config.num_heads
        own = not relative.shared_projections
        width, projected = config.hidden_size, config.num_heads * config.head_width
        self.key = nn.Linear(width, projected) if own and relative.content_to_position else None
        self.query = nn.Linear(width, projected) if own and relative.position_to_content else None
        self.dropout = Dropout(config.dropout)

    def term(self, vectors: Tensor, qkv: nn.Module) -> ScoreTerm:
        """vectors (R, D) and the layer's fused projection -> the term."""

        def added(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
            # Only distances that occur between the K keys of a block are projected.
            most, reach = k.shape[2] - 1, self.config.reach
            low, high = max(0, reach - most), min(2 * reach, reach + most + 1)
            queries, keys = self._project(self.dropout(vectors[low:high]), qkv)
            every = torch.arange(-most, most + 1, device=distance.device)
            number = (log_buckets(every, self.config) + reach).clamp(low, high - 1) - low
            number = number[distance + most]
            parts = []
            if self.config.content_to_position:
                parts.append(_gather(q @ keys[:, None].transpose(-1, -2), number))
            if self.config.position_to_content:
                # The queries of tokens are scaled already (see `attention_scale`); those of distances are not.
                scale = (1 + self.config.content_to_position + self.config.position_to_content) ** -0.5
                found = _gather(k @ (queries * scale)[:, None].transpose(-1, -2), number.transpose(-1, -2))
                parts.append(found.transpose(-1, -2))
            total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
            return total * float(q.shape[-1] ** -0.5)

        return added

    def _project(self, vectors: Tensor, qkv: nn.Module) -> tuple[Tensor, Tensor]:
        """(R, D) -> queries and keys of distances, (H, R, d) each."""
        if self.config.shared_projections:
            queries, keys, _ = qkv(vectors).chunk(3, dim=-1)
        else:
            queries, keys = (vectors if part is None else part(vectors) for part in (self.query, self.key))
        shape = len(vectors), self.heads, -1
        return queries.view(shape).transpose(0, 1), keys.view(shape).transpose(0, 1)


RELATIVE: dict[str, Callable[[ModelConfig, RelativeAttention], "RelativeBias | DisentangledScores"]] = {
    "bias": RelativeBias,
    "disentangled": DisentangledScores,
}


def _gather(products: Tensor, number: Tensor) -> Tensor:
    """Choose from products (H, B, Q, R) those of the numbers (1 or B, Q, K) -> (H, B, Q, K)."""
    return products.gather(-1, number.expand(*products.shape[:-1], number.shape[-1]))


def two_sided_buckets(distance: Tensor, config: RelativeAttention) -> Tensor:
    """Return the bucket of each distance: half of them for either sign, of these the first half exact and the others in
    logarithmic ranges up to `max_distance` (Raffel et al. 2020)."""
    half = config.buckets // 2
    exact, far = half // 2, distance.abs()
    steps = torch.log(far.clamp(min=1).float() / exact) / math.log(config.max_distance / exact) * (half - exact)
    bucket = torch.where(far < exact, far, (exact + steps.long()).clamp(max=half - 1))
    return bucket + half * (distance < 0)


def log_buckets(distance: Tensor, config: RelativeAttention) -> Tensor:
    """Return the signed bucket of each distance: exact up to half of the buckets, then in logarithmic ranges that end
    at `max_distance` (He et al. 2021, DeBERTa-v2)."""
    if not config.buckets:
        return distance
    exact = config.buckets // 2
    far = distance.abs().clamp(min=exact)
    steps = torch.log(far / exact) / torch.log(torch.tensor((config.max_distance - 1) / exact)) * (exact - 1)
    return torch.where(distance.abs() <= exact, distance, (torch.ceil(steps).long() + exact) * distance.sign())
