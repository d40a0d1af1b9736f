"""How the answers of two labels compare, as it is recorded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SideReport(BaseModel):
    """One label's part of a comparison."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    label: str
    """The label."""
    version: int
    """The version that answered for it."""
    errors: int
    """Requests that were answered with an error, or not."""
    malformed: int
    """Requests that were answered with what is no list of recommendations for them."""
    first_failure: str = ""
    """The first of either, in words."""
    p50_ms: float | None
    """Median latency of the requests that both answered, in milliseconds; None without any."""
    p95_ms: float | None
    """Their 95 % quantile."""
    p99_ms: float | None
    """Their 99 % quantile."""


class ShadowReport(BaseModel):
    """How canary and stable answer the same logged requests."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    requests: int
    """Requests sent to each."""
    left_out: int = 0
    """Those of them that both refused with the same code, since the request itself is wrong."""
    lists: int
    """Lists compared: a request may be for several users."""
    k: int
    """Cut-off of the overlap."""
    overlap: float | None
    """Mean Jaccard index of the two lists' first `k` titles, from 0 to 1; None without lists."""
    rank_biased_overlap: float | None
    """Mean extrapolated rank-biased overlap at p = 0.9, from 0 to 1."""
    top_changed: float | None
    """Share of lists whose first title differs."""
    slowdown: float | None
    """The canary's 95 % latency as a multiple of stable's; None if no request was answered by both."""
    slowdown_interval: tuple[float, float] | None
    """Its 95 % interval, by a bootstrap over the requests."""
    canary: SideReport
    """The candidate's part."""
    stable: SideReport
    """The part of what serves."""
    notes: list[str] = []
    """What the comparison leaves open, in sentences."""
    refusals: list[str]
    """Why the canary should not become stable, in sentences; empty if nothing speaks against it."""
