"""`CuratedSchema`: brings the reviewed, tagged schema into the pipeline.

The schema's text itself is the execution parameter. So a changed schema is a changed execution (nothing is cached by
path), and no file needs to exist where the component runs.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from tfx import types
from tfx.components.schema_gen.executor import DEFAULT_FILE_NAME
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from modules.features import ColumnTable, catalogue_schema, parse_schema

SCHEMA_KEY = "schema"
CATALOGUE_SCHEMA_KEY = "catalogue_schema"
SCHEMA_TEXT_KEY = "schema_text"


class CuratedSchemaSpec(ComponentSpec):
    """Inputs, outputs and parameters of `CuratedSchema`."""

    PARAMETERS: ClassVar = {SCHEMA_TEXT_KEY: ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {
        SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
        CATALOGUE_SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
    }


class CuratedSchemaExecutor(base_executor.BaseExecutor):
    """Checks the schema and writes it, and the catalogue's part of it, as SchemaGen would."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `schema.pbtxt` into both artifacts.

        Raises:
          SchemaError: if the text is no schema, or its tags contradict each other.
        """
        schema = parse_schema(exec_properties[SCHEMA_TEXT_KEY], SCHEMA_TEXT_KEY)
        for key, content in ((SCHEMA_KEY, schema), (CATALOGUE_SCHEMA_KEY, catalogue_schema(schema))):
            uri = artifact_utils.get_single_uri(output_dict[key])
            io_utils.write_pbtxt_file(os.path.join(uri, DEFAULT_FILE_NAME), content)


class CuratedSchema(base_component.BaseComponent):
    """Emits the curated schema of the interactions, and that of the catalogue derived from it.

    Outputs: `schema` and `catalogue_schema`, both standard `Schema` artifacts.
    """

    SPEC_CLASS = CuratedSchemaSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CuratedSchemaExecutor)

    def __init__(self, schema_text: str):
        """Checks the schema, so that a bad one is refused before anything runs.

        Args:
          schema_text: TFMD schema of the interactions in text format, with tags as `modules.features` reads them.

        Raises:
          SchemaError: if the text is no schema, or its tags contradict each other.
        """
        ColumnTable.from_schema(parse_schema(schema_text, SCHEMA_TEXT_KEY))
        super().__init__(
            CuratedSchemaSpec(
                **{
                    SCHEMA_TEXT_KEY: schema_text,
                    SCHEMA_KEY: types.Channel(type=standard_artifacts.Schema),
                    CATALOGUE_SCHEMA_KEY: types.Channel(type=standard_artifacts.Schema),
                }
            )
        )
