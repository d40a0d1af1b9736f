"""The recommendation tasks that models are judged on, and what their metrics are called. The one place that names them.

| task | candidates | truth | asked for with |
| --- | --- | --- | --- |
| `next_title` | every title of the catalogue that the user has not seen | the title taken next | `serving_default` |
| `continue_watching` | the titles seen so far | the one resumed | `rank`, with the seen titles |
| `because_you_watched` | every unseen title, by likeness to the latest one | the title taken next | `similar` |
| `rank` | the titles that a user gave feedback on | which of them were liked, and how much | `rank` |

An event whose title its user had seen before is a *repeat*. It belongs to `continue_watching`, all others to
`next_title` and `because_you_watched`.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import typing
from typing import Literal

Task = Literal["next_title", "because_you_watched", "continue_watching", "rank"]
TASKS: tuple[Task, ...] = typing.get_args(Task)

NEXT_TITLE: Task = "next_title"
BECAUSE_YOU_WATCHED: Task = "because_you_watched"
CONTINUE_WATCHING: Task = "continue_watching"
RANK: Task = "rank"

RANKING_TASKS = (NEXT_TITLE, BECAUSE_YOU_WATCHED, CONTINUE_WATCHING)
"""Tasks with one true title among candidates; `rank` has many titles, each with its feedback."""


def metric_prefix(task: str) -> str:
    """Returns what the names of a task's metrics begin with: nothing for `next_title`, else the task's own name."""
    return "" if task == NEXT_TITLE else f"{task}_"


def main_metric(task: str) -> str:
    """Returns the name of the metric that stands for a task where there is room for one only."""
    return "rank_user_auc" if task == RANK else f"{metric_prefix(task)}ndcg@10"
