"""The synthetic world: sizes, order, determinism, and that each planted effect can be seen in the log."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import ColumnTable, Role
from pipeline.config import load_config
from pipeline.datasets.folder import write_tables
from pipeline.datasets.synthetic import EFFECTS, START, SyntheticWorld
from pipeline.datasets.synthetic_entities import AGE_BANDS, EVENING_GENRES, GENRES, MORNING_GENRES, SECONDS_PER_DAY

DIGEST_WITHOUT_RESUMES = "f9f4cebcad320cbb602d0bac016d5bbaae7021cb1ac08e4f5deab8e5e8de9288"


@functools.cache
def default_world(effects: frozenset[str] = EFFECTS) -> SyntheticWorld:
    return SyntheticWorld(effects=effects)


@st.composite
def worlds(draw: st.DrawFn) -> SyntheticWorld:
    users, items = draw(st.integers(1, 12)), draw(st.integers(2, 15))
    return SyntheticWorld(
        users=users,
        items=items,
        interactions=draw(st.integers(users, users * items)),
        seed=draw(st.integers(0, 2**31)),
        days=draw(st.integers(3, 40)),
        effects=frozenset(draw(st.sets(st.sampled_from(sorted(EFFECTS))))),
    )


@given(world=worlds())
@settings(max_examples=60, deadline=None)
def test_every_world_has_its_sizes_in_order_of_time_without_repeats(world: SyntheticWorld) -> None:
    tables = world.generate()
    log = tables["interactions"]
    for name, length in (("interactions", world.interactions), ("items", world.items), ("users", world.users)):
        assert {len(values) for values in tables[name].values()} == {length}
    assert set(log["user_id"]) == set(tables["users"]["user_id"])
    assert set(log["item_id"]) <= set(tables["items"]["item_id"])
    assert len(set(zip(log["user_id"], log["item_id"], strict=True))) == world.interactions
    assert list(log["timestamp"]) == sorted(log["timestamp"])
    assert log["timestamp"][0] >= START
    assert log["timestamp"][-1] < START + world.days * SECONDS_PER_DAY
    assert set(log["rating"]) <= {1, 2, 3, 4, 5}
    assert len(set(tables["items"]["title"])) == world.items


@given(world=worlds(), share=st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_worlds_with_resumes_keep_sizes_and_times_and_take_no_title_twice_at_once(
    world: SyntheticWorld, share: float
) -> None:
    resuming = dataclasses.replace(world, resume_share=share)
    events = resuming.events
    assert len(events) == world.interactions
    assert (np.sort(events.timestamps) == events.timestamps).all()
    assert (events.timestamps == world.events.timestamps).all() and (events.users == world.events.users).all()
    assert len(np.unique(np.stack([events.users, events.timestamps, events.items]), axis=1).T) == len(events)
    log = resuming.generate()["interactions"]
    assert len({len(values) for values in log.values()}) == 1


def test_a_world_without_resumes_is_what_it_always_was() -> None:
    lines = [
        "\t".join(map(str, row))
        for row in zip(*SyntheticWorld(seed=11).generate()["interactions"].values(), strict=True)
    ]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == DIGEST_WITHOUT_RESUMES


@functools.cache
def resuming_world() -> SyntheticWorld:
    return SyntheticWorld(resume_share=0.3)


def test_the_share_of_resumes_is_the_one_asked_for() -> None:
    events = resuming_world().events
    chances = resumed = 0
    for user in range(resuming_world().users):
        own = events.take(np.flatnonzero(events.users == user))
        for time in np.unique(own.timestamps)[1:]:
            now, past = own.items[own.timestamps == time], own.items[own.timestamps < time]
            chances += len(now)
            resumed += np.isin(now, past).sum()
    assert resumed / chances == pytest.approx(0.3, abs=0.02)


@given(world=worlds())
@settings(max_examples=30, deadline=None)
def test_sequels_are_of_the_same_franchise(world: SyntheticWorld) -> None:
    catalogue = world.catalogue
    items = np.flatnonzero(catalogue.successors >= 0)
    sequels = catalogue.successors[items]
    assert len(set(sequels)) == len(sequels)
    for item, sequel in zip(items, sequels, strict=True):
        name, number = catalogue.titles[sequel].rsplit(" ", 1)
        assert catalogue.titles[item] in ((name,) if number == "2" else (f"{name} {int(number) - 1}",))
        assert catalogue.release_years[item] < catalogue.release_years[sequel]
        assert (catalogue.genres[item] == catalogue.genres[sequel]).all()


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_tables(tmp_path / name, SyntheticWorld(users=20, items=30, interactions=200, seed=seed).generate())
    files = {name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"}
    assert files["a"] == files["b"]
    assert all(files["a"][name] != files["c"][name] for name in files["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": 0}, "users must be at least 1; received 0"),
        ({"items": 1}, "items must be at least 2; received 1"),
        ({"days": 2}, "days must be at least 3; received 2"),
        ({"seed": -1}, "seed must be at least 0; received -1"),
        ({"users": 10, "items": 10, "interactions": 101}, r"users \(10\) and users x items \(100\).*received 101"),
        ({"users": 10, "items": 10, "interactions": 9}, r"users \(10\).*received 9"),
        ({"resume_share": 1.0}, r"resume_share must lie in \[0, 1\); received 1\.0"),
        ({"effects": frozenset({"weather"})}, r"some of \['group', .*received \['weather'\]"),
    ],
)
def test_impossible_worlds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticWorld(**arguments)


def test_effects_change_what_is_chosen_and_nothing_else() -> None:
    full, plain = default_world(), default_world(frozenset())
    assert full.catalogue.titles == plain.catalogue.titles
    assert (full.events.timestamps == plain.events.timestamps).all()
    assert (full.events.items != plain.events.items).any()


def genre_share(world: SyntheticWorld, genre: str, events: np.ndarray) -> float:
    return float(world.catalogue.genres[world.events.items[events], GENRES.index(genre)].mean())


def group_contrast(world: SyntheticWorld) -> float:
    """Correlation of group preferences with how often the group takes the genre, against everybody."""
    everyone = np.full(len(world.events), True)
    groups = world.people.groups[world.events.users]
    lifts = [
        [np.log(genre_share(world, genre, groups == group) / genre_share(world, genre, everyone)) for genre in GENRES]
        for group in range(len(world.group_preferences))
    ]
    return float(np.corrcoef(np.ravel(lifts), world.group_preferences.ravel())[0, 1])


def hour_contrast(world: SyntheticWorld) -> float:
    """Smallest ratio of an evening genre's share in the evening (or a morning genre's in the morning) to the rest."""
    hours = world.events.timestamps % SECONDS_PER_DAY // 3600
    evening, morning = hours >= 18, (hours >= 6) & (hours < 12)
    return min(
        *(genre_share(world, genre, evening) / genre_share(world, genre, ~evening) for genre in EVENING_GENRES),
        *(genre_share(world, genre, morning) / genre_share(world, genre, ~morning) for genre in MORNING_GENRES),
    )


def trend_contrast(world: SyntheticWorld) -> float:
    """Correlation of titles' slopes with the change of their counts from the first half of the log to the second."""
    middle = len(world.events) // 2
    first, second = (np.bincount(items, minlength=world.items) + 1 for items in np.split(world.events.items, [middle]))
    return float(np.corrcoef(np.log(second / first), world.catalogue.slopes)[0, 1])


def sequence_contrast(world: SyntheticWorld) -> float:
    """Share of the events after a title with a sequel, at one instant each, that take the sequel."""
    hits = chances = 0
    for user in range(world.users):
        own = world.events.take(np.flatnonzero(world.events.users == user))
        for position in range(1, len(own)):
            sequel = world.catalogue.successors[own.items[position - 1]]
            if sequel >= 0 and sequel not in own.items[:position]:
                chances += 1
                hits += own.items[position] == sequel
    return hits / chances


@pytest.mark.parametrize(
    ("effect", "contrast", "without", "with_it"),
    [
        ("group", group_contrast, 0.3, 0.7),
        ("hour", hour_contrast, 1.0, 1.3),
        ("trend", trend_contrast, 0.3, 0.8),
        ("sequence", sequence_contrast, 0.02, 0.2),
    ],
)
def test_each_effect_shows_in_the_log_when_it_is_on(effect, contrast, without: float, with_it: float) -> None:
    assert contrast(default_world(EFFECTS - {effect})) < without
    assert contrast(default_world()) > with_it


def test_a_quiet_world_follows_popularity() -> None:
    world = default_world(frozenset())
    counts = np.bincount(world.events.items, minlength=world.items)
    assert np.corrcoef(np.log(counts + 1), world.catalogue.popularity)[0, 1] > 0.9


def test_people_arrive_all_the_time() -> None:
    events = default_world().events
    late = set(events.users[int(0.9 * len(events)) :])
    assert len(late - set(events.users[: int(0.8 * len(events))])) >= 20


def test_some_events_share_an_instant() -> None:
    events = default_world().events
    pairs = np.stack([events.users, events.timestamps], axis=1)
    assert 0.05 < 1 - len(np.unique(pairs, axis=0)) / len(events) < 0.3


def test_the_configuration_and_the_schema_describe_the_tables() -> None:
    config = load_config("synthetic")
    schema = text_format.Parse(config.read_schema_text(), schema_pb2.Schema())
    tables = default_world().generate()
    for name in ("interactions", "items", "users"):
        table_config = getattr(config.data, name)
        assert {column.source for column in table_config.columns.values()} == set(tables[name])
    assert config.evaluation.bands == {"age": tuple(first for first, _ in AGE_BANDS[1:])}
    roles = ColumnTable.from_schema(schema)
    assert roles.names(Role.CONTEXT) == ("device",)
    assert roles.names(Role.USER) == ("age", "gender", "occupation")
    assert roles.names(Role.ITEM) == ("title", "release_year", "genres")

    domains = {domain.name: set(domain.value) for domain in schema.string_domain}
    columns = {name: values for table in tables.values() for name, values in table.items()}
    columns["genres"] = [genre for cell in columns["genres"] for genre in cell.split("|")]
    for feature in schema.feature:
        if feature.domain:
            assert set(columns[feature.name]) == domains[feature.domain]
        for domain in (feature.int_domain, feature.float_domain):
            if feature.HasField("int_domain" if domain is feature.int_domain else "float_domain"):
                assert domain.min <= min(columns[feature.name])
                assert max(columns[feature.name]) <= domain.max
