"""Schemas of logs of impressions: what is completed, what is proposed, and that clean logs raise no anomaly."""

import pytest
import tensorflow_data_validation as tfdv

from modules.features import ColumnTable, Role, SchemaError, parse_schema
from pipeline.column_profile import profile_tables
from pipeline.config import load_config
from pipeline.config_files import ConfigError
from pipeline.impression_schema import with_impressions
from pipeline.schema_inference import propose_schema, render_proposal
from tests.components.test_impressions import even_log, impression_data, run, write_log


def proposal(data):
    tables = profile_tables(data, 10_000)
    return render_proposal("mine", propose_schema(data, tables), tables)


@pytest.mark.parametrize("separator", [None, "|"])
def test_a_proposal_for_a_log_of_impressions_fits_all_its_splits(tmp_path, separator):
    rows = even_log(240)
    if separator:
        rows = [[*row[:4], "0.5|0.25" if row[4] else None, row[5]] for row in rows]
    write_log(tmp_path, rows)
    data = impression_data(tmp_path, separator, max_rejected_share=0.0)
    text = with_impressions(proposal(data), data)
    schema = parse_schema(text)
    columns = ColumnTable.from_schema(schema)
    assert columns.names(Role.PROPENSITY, Role.POSITION, Role.IMPRESSION) == ("position", "propensity", "impression")
    assert columns.with_role(Role.PROPENSITY)[0].multivalent == bool(separator)
    artifact = run(data, tmp_path)
    for split in ("train", "impressions_train", "impressions_test"):
        statistics = tfdv.generate_statistics_from_tfrecord(f"{artifact.uri}/Split-{split}/*.gz")
        anomalies = tfdv.validate_statistics(statistics, schema).anomaly_info
        assert not anomalies, (split, anomalies)


def test_without_propensities_the_schema_is_left_as_it_is(tmp_path):
    data = impression_data(tmp_path, propensity=None, position=None)
    assert with_impressions("no schema at all", data) == "no schema at all"


def test_columns_must_be_tagged_as_what_they_are(tmp_path):
    write_log(tmp_path, even_log())
    data = impression_data(tmp_path)
    text = proposal(data).replace('tag: "position"', 'tag: "context"')
    with pytest.raises(
        SchemaError, match=r"data.position: exactly 'position' must be tagged 'position'; received \[\]"
    ):
        with_impressions(text, data)


def test_settings_that_need_propensities_are_refused_without():
    for override in ("evaluation.policy={positions: 5}", "model.propensity_weighting={clip: 5.0}"):
        with pytest.raises(ConfigError, match=r"needs data\.propensity; received"):
            load_config("synthetic", [override])
    columns = [
        *("data.interactions.columns.propensity=propensity", "data.propensity=propensity"),
        *("data.interactions.columns.position=position", "data.position=position"),
    ]
    policies = [load_config("synthetic", given).policy for given in (columns, columns[:2])]
    assert [policy and policy.positions for policy in policies] == [10, 1]
    assert load_config("synthetic", []).policy is None
    with pytest.raises(
        ConfigError, match=r"evaluation.policy.positions must be at most serving.top_k, 100; received 101"
    ):
        load_config("synthetic", [*columns, "evaluation.policy={positions: 101}"])
