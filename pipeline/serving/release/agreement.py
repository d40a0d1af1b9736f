r"""How much two rankings agree.

* The Jaccard index of the first $k$ titles of each: those in both, by those in either.
* Rank-biased overlap: the overlap of the first $d$ titles of each, $A_d = X_d / d$, averaged over all depths with the
  geometric weights $(1 - p) p^{d-1}$, so that the top counts most; with $p = 0.9$ the first ten carry 86 % of it. Lists
  that end are extrapolated as the reference has it (RBO_EXT, its equation 32), uneven ones included.

References:
  Webber, Moffat and Zobel, A similarity measure for indefinite rankings, ACM Transactions on Information Systems 28(4),
  2010.
"""

from __future__ import annotations

from collections.abc import Sequence


def jaccard(first: Sequence[str], second: Sequence[str], k: int) -> float:
    """Returns the Jaccard index of the first `k` of two rankings without repeats; 1 if both are empty."""
    a, b = set(first[:k]), set(second[:k])
    return len(a & b) / len(a | b) if a | b else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = 0.9) -> float:
    """Returns the extrapolated rank-biased overlap of two rankings without repeats, from 0 to 1.

    Args:
      first: a ranking, best first.
      second: another; it may be longer or shorter.
      p: persistence, in (0, 1): how likely a reader is to look at the next position too.
    """
    if not 0 < p < 1:
        raise ValueError(f"p must lie in (0, 1); received {p}")
    shorter, longer = sorted((first, second), key=len)
    if not shorter:
        return float(not longer)
    seen_shorter: set[str] = set()
    seen_longer: set[str] = set()
    overlap = common = 0
    total = 0.0
    for depth, title in enumerate(longer, start=1):
        beyond = max(0, depth - len(shorter))
        if beyond:
            overlap += title in seen_shorter
        else:
            other = shorter[depth - 1]
            overlap += 1 if title == other else (title in seen_shorter) + (other in seen_longer)
            seen_shorter.add(other)
            common = overlap
        seen_longer.add(title)
        total += (overlap + common * beyond / len(shorter)) / depth * p**depth
    rest = ((overlap - common) / len(longer) + common / len(shorter)) * p ** len(longer)
    return (1 - p) / p * total + rest
