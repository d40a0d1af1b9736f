"""`RuntimeParameters`: what may be said when a compiled pipeline is submitted, instead of when it is compiled."""

from __future__ import annotations

import dataclasses

from tfx.orchestration.data_types import RuntimeParameter


@dataclasses.dataclass(frozen=True)
class RuntimeParameters:
    """Parameters by place; None where the configuration's value stands.

    Attributes:
      data_directory: folder of the source tables; with a `{SPAN}` in the configuration, the part before it.
      newest_span: number of the newest span to learn from, -1 for the latest; where the folder is one of spans.
      max_epochs: passes over the training split.
      feature_groups: the groups that the model may use, separated by commas.
      data_fingerprint: what tells the source files apart. Not said at submission, but found by the step that looks
        whether new data have come; where a run is to be skipped if none have.
    """

    data_directory: RuntimeParameter | None = None
    newest_span: RuntimeParameter | None = None
    max_epochs: RuntimeParameter | None = None
    feature_groups: RuntimeParameter | None = None
    data_fingerprint: RuntimeParameter | None = None

    def said_at_submission(self) -> list[RuntimeParameter]:
        """Returns those that there are, but for what a step finds."""
        values = (self.data_directory, self.newest_span, self.max_epochs, self.feature_groups)
        return [value for value in values if value is not None]
