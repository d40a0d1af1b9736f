"""The baseline of an evaluation: the last blessed model that is not the candidate itself."""

from __future__ import annotations

import ml_metadata
from tfx import types
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

CANDIDATE_KEY = "candidate"


class PreviousBlessedModelStrategy(LatestBlessedModelStrategy):
    """Resolves the latest blessed model among all but the candidate.

    TFX's own strategy resolves to the candidate once that is blessed, so the run after a blessing would compare a
    model to itself instead of finding its evaluation in the cache.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Resolves `model` and `model_blessing`; see the base class.

        Args:
          store: ML Metadata.
          input_dict: all models and blessings, and the `candidate`.
        """
        candidates = input_dict[CANDIDATE_KEY]
        candidate_ids = {artifact.id for artifact in candidates}
        others = {key: artifacts for key, artifacts in input_dict.items() if key != CANDIDATE_KEY}
        others["model"] = [artifact for artifact in others["model"] if artifact.id not in candidate_ids]
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, CANDIDATE_KEY: candidates}
