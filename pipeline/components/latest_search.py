"""Which search's settings a model is trained with: those of the latest one."""

from __future__ import annotations

import ml_metadata
from tfx import types
from tfx.dsl.components.common.resolver import ResolverStrategy

from pipeline.search_results import latest_output


class LatestSearchStrategy(ResolverStrategy):
    """Resolves, of each input, the artifact that was put out last.

    TFX's `LatestArtifactStrategy` goes by when an artifact was written; a search that is asked for again and found in
    the cache is the latest all the same.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Resolves every input; None if one has no artifact.

        Args:
          store: ML Metadata.
          input_dict: all artifacts that come into question.
        """
        resolved = {}
        for key, artifacts in input_dict.items():
            latest = latest_output(store, [artifact.id for artifact in artifacts])
            if latest is None:
                return None
            resolved[key] = [artifact for artifact in artifacts if artifact.id == latest]
        return resolved
