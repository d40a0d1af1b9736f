"""Canary and stable compared on a real server, by requests that it has logged itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from pipeline.serving.errors import ServingError
from pipeline.serving.messages import example_pb2, predict_pb2
from pipeline.serving.prediction_logs import log_files, logged_requests
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.log_pattern import log_pattern
from pipeline.serving.release.model_config_file import (
    plain_config,
    read_config,
    with_labels,
    with_versions,
    write_config,
)
from pipeline.serving.release.plans import plan_canary, plan_stable
from pipeline.serving.release.record import read_moves
from pipeline.serving.release.release import make_release
from pipeline.serving.release.shadow import Limits, _slowdown, compare
from pipeline.serving.release.shadow_report import ShadowReport
from pipeline.serving.server.server import ModelServer
from pipeline.serving.tensors import make_tensor, string_array
from tests.serving.saved_models import publish

Start = Callable[[], ModelServer]


def make_request(*histories: Sequence[str]) -> predict_pb2.PredictRequest:
    examples = []
    for history in histories:
        example = example_pb2.Example()
        example.features.feature["history_item_ids"].bytes_list.value.extend(item.encode() for item in history)
        examples.append(example.SerializeToString())
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.inputs["examples"].CopyFrom(make_tensor(string_array(examples)))
    return request


REQUESTS = [make_request(["i1"]), make_request(["i0"], []), make_request(["i2", "i3"])]


@pytest.fixture
def live(folder: ServingFolder, start: Start, models: dict[str, Path]) -> Iterator[LiveServer]:
    """A server whose canary (2) answers i5 first and whose stable (1) answers i0 first."""
    publish(models["lists the worst first"], folder.versions, 4)
    publish(models["no recommendations"], folder.versions, 5)
    for plan in (plan_stable(1), plan_canary(folder, 2)):
        make_release(folder, plan, None, action="release", who="me@here")
    config = read_config(folder.config)
    logging_config = config.model_config_list.config[0].logging_config
    logging_config.log_collector_config.filename_prefix = str(folder.path / "requests")
    logging_config.sampling_config.sampling_rate = 1.0
    write_config(folder.config, config)
    with LiveServer(start().address, "recommender") as server:
        for version in (1, 2):
            server.wait_until_available(version, 20, {})
        yield server


def make_canary(folder: ServingFolder, server: LiveServer, version: int) -> None:
    make_release(folder, plan_canary(folder, version), server, action="release", who="me@here")


def test_two_versions_are_compared_list_by_list(live: LiveServer) -> None:
    report = compare(live, REQUESTS, Limits(max_slowdown=1000))
    # Lists of five titles: i5 comes first in place of i0, and for the empty history in place of i4 as well.
    assert (report.requests, report.lists, report.k) == (3, 4, 10)
    assert report.top_changed == 1.0
    assert report.overlap == pytest.approx((3 + 4 / 6) / 4)
    assert report.rank_biased_overlap is not None
    assert 0 < report.rank_biased_overlap < 1
    assert (report.canary.version, report.stable.version) == (2, 1)
    assert report.canary.errors == report.canary.malformed == report.stable.errors == report.stable.malformed == 0
    for side in (report.canary, report.stable):
        assert side.p50_ms is not None
        assert side.p95_ms is not None
        assert side.p99_ms is not None
        assert 0 < side.p50_ms <= side.p95_ms <= side.p99_ms
    assert report.refusals == []


def test_a_version_agrees_with_itself(folder: ServingFolder, live: LiveServer) -> None:
    make_canary(folder, live, 1)
    report = compare(live, REQUESTS, Limits(max_slowdown=1000, min_overlap=1.0))
    assert (report.overlap, report.top_changed) == (1.0, 0.0)
    assert report.rank_biased_overlap == pytest.approx(1.0)
    assert report.refusals == []


def test_too_little_overlap_is_refused(live: LiveServer) -> None:
    assert compare(live, REQUESTS, Limits(max_slowdown=1000, min_overlap=0.95)).refusals == [
        "the lists overlap by 0.917 at 10; at least 0.95 is asked for"
    ]


def test_a_canary_that_is_certainly_slower_is_refused(folder: ServingFolder, live: LiveServer) -> None:
    """The delay stands for a slow network or graph, between the real client and the real server."""
    requests = [make_request([f"i{number % 12}"]) for number in range(60)]
    predict = live.predict

    def slow(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        if request.model_spec.version_label == "canary":
            time.sleep(0.05)
        return predict(request)

    live.predict = slow  # type: ignore[method-assign]
    report = compare(live, requests, Limits(max_slowdown=1.5))
    assert report.slowdown is not None
    assert report.slowdown_interval is not None
    assert report.slowdown_interval[0] <= report.slowdown <= report.slowdown_interval[1]
    assert report.slowdown_interval[0] > 1
    (refusal,) = report.refusals
    assert "times stable's" in refusal
    assert refusal.endswith("at most 1.5 times is allowed")
    assert report.notes == []
    few = compare(live, requests[:49], Limits(max_slowdown=1.5))
    assert few.slowdown is not None
    assert few.slowdown > 1.5
    assert few.refusals == []
    assert few.notes == ["latency is not judged: both answered 49 requests; it takes 50"]
    live.predict = predict  # type: ignore[method-assign]


def test_a_few_pauses_of_the_machine_do_not_make_a_canary_slow() -> None:
    stable = [0.004 + 0.00001 * number for number in range(60)]
    paused = [seconds + (0.2 if number in (20, 30, 40) else 0.0) for number, seconds in enumerate(stable)]
    slowdown, interval = _slowdown(paused, stable)
    assert slowdown is not None and interval is not None
    assert slowdown > 1.5
    assert interval[0] <= 1.0 < interval[1]
    slower = _slowdown([2 * seconds for seconds in stable], stable)
    assert slower[0] == pytest.approx(2.0)
    assert slower[1] is not None and slower[1][0] > 1.5


def test_a_canary_that_answers_no_proper_lists_is_refused(folder: ServingFolder, live: LiveServer) -> None:
    make_canary(folder, live, 4)
    report = compare(live, REQUESTS, Limits())
    assert (report.canary.malformed, report.canary.errors, report.lists) == (3, 0, 0)
    assert "3 of 3 requests with no proper list: a logged request: the list is not in order" in report.refusals[0]


def test_a_canary_that_fails_is_refused_and_a_request_that_is_wrong_is_not_its_fault(
    folder: ServingFolder, live: LiveServer
) -> None:
    wrong = predict_pb2.PredictRequest()
    wrong.CopyFrom(REQUESTS[0])
    wrong.inputs["examples"].string_val[0] = b"no example"
    report = compare(live, [*REQUESTS, wrong], Limits(max_slowdown=1000))
    assert (report.canary.errors, report.stable.errors, report.lists) == (0, 0, 4)
    assert report.refusals == []
    assert report.left_out == 1
    assert report.notes[0] == "1 of 4 requests are left out: both refuse them as wrong"
    make_canary(folder, live, 5)
    report = compare(live, REQUESTS, Limits())
    assert report.canary.errors == 3
    assert "FAILED_PRECONDITION: " in report.refusals[0]


def test_stable_moves_only_if_nothing_speaks_against_it_and_the_comparison_is_recorded(
    folder: ServingFolder, live: LiveServer
) -> None:
    for request in REQUESTS:
        live.predict(request)

    def replay(min_overlap: float) -> Callable[[LiveServer], ShadowReport]:
        pattern = f"{folder.path}/requests-*.tfrecord"
        deadline = time.monotonic() + 10
        while len(requests := logged_requests(pattern, "recommender", 200)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return lambda server: compare(server, requests, Limits(max_slowdown=1000, min_overlap=min_overlap))

    before = folder.config.read_bytes()
    with pytest.raises(ReleaseError, match=r"the lists overlap by 0.917 at 10; .* Nothing has changed$"):
        make_release(folder, plan_stable(None), live, action="release", who="me", compare=replay(0.95))
    assert folder.config.read_bytes() == before
    assert live.resolve("stable") == 1
    with pytest.raises(ReleaseError, match="only the canary, version 2, can be compared; received version 3"):
        make_release(folder, plan_stable(3), live, action="release", who="me", compare=replay(0.0))
    make_release(folder, plan_stable(None), live, action="release", who="me", compare=replay(0.5))
    assert live.resolve("stable") == 2
    recorded = read_moves(folder.record)[-1]
    assert recorded.shadow is not None
    assert (recorded.shadow.requests, recorded.shadow.stable.version) == (3, 1)
    # What was replayed is logged too, but counts once.
    assert len(logged_requests(f"{folder.path}/requests-*.tfrecord", "recommender")) == 3
    (model,) = read_config(folder.config).model_config_list.config
    assert model.logging_config.sampling_config.sampling_rate == 1.0


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED],
    ids=lambda code: code.name,
)
def test_a_failure_of_both_that_is_not_the_requests_own_excuses_nobody(live: LiveServer, code: grpc.StatusCode) -> None:
    """An overloaded machine, between the real client and the real server."""
    predict = live.predict

    def fail(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        if request.inputs["examples"] == REQUESTS[0].inputs["examples"]:
            raise ServingError(code, "too much", live.address)
        return predict(request)

    live.predict = fail  # type: ignore[method-assign]
    report = compare(live, REQUESTS, Limits(max_slowdown=1000))
    assert (report.canary.errors, report.stable.errors, report.left_out, report.lists) == (1, 1, 0, 3)
    assert report.refusals == [f"the canary fails on 1 of 3 requests: {code.name}: too much"]


def test_a_server_that_goes_away_during_the_comparison_is_no_comparison(
    folder: ServingFolder, start: Start, live: LiveServer
) -> None:
    server = start()
    before = folder.config.read_bytes()
    with LiveServer(server.address, "recommender", 5.0) as other:
        for version in (1, 2):
            other.wait_until_available(version, 20, {})
        predict = other.predict
        asked: list[str] = []

        def stop_at_the_twelfth(request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
            asked.append(request.model_spec.version_label)
            if len(asked) == 12:
                server.stop()
            return predict(request)

        other.predict = stop_at_the_twelfth  # type: ignore[method-assign]
        with pytest.raises(ReleaseError, match=r"the server became unavailable during the comparison, when '\w+' was"):
            make_release(
                folder,
                plan_stable(None),
                other,
                action="release",
                who="me",
                compare=lambda server: compare(server, REQUESTS, Limits(max_slowdown=1000)),
            )
    assert folder.config.read_bytes() == before


def test_only_the_version_that_was_compared_becomes_stable(folder: ServingFolder, live: LiveServer) -> None:
    """The file says another canary than the server, as one that does not poll it may."""
    publish_config = with_labels(read_config(folder.config), "recommender", {"stable": 1, "canary": 4})
    served = read_config(folder.config)

    def compare_as_served(server: LiveServer) -> ShadowReport:
        server.reload(with_versions(served, "recommender", folder.versions, [1, 2, 4], {"stable": 1, "canary": 2}), 20)
        return compare(server, REQUESTS, Limits(max_slowdown=1000))

    write_config(folder.config, publish_config)
    with pytest.raises(
        ReleaseError, match=r"^the server answers for 'canary' with version 2, not 4\. Nothing has changed$"
    ):
        make_release(folder, plan_stable(None), live, action="release", who="me", compare=compare_as_served)
    assert read_config(folder.config) == publish_config
    assert [move.to_version for move in read_moves(folder.record)] == [1, 2]


def test_the_log_files_of_a_model_are_found_whatever_their_folder_and_prefix_are_called(tmp_path: Path) -> None:
    folder = ServingFolder(tmp_path / "exp[1]" / "serving", "recommender")
    config = plain_config(folder.model_name, folder.versions)
    collector = config.model_config_list.config[0].logging_config.log_collector_config
    collector.filename_prefix = str(folder.path / "a[b]*")
    folder.path.mkdir(parents=True)
    write_config(folder.config, config)
    wanted = folder.path / "a[b]*-20260101T000000Z-1.tfrecord"
    for path in (wanted, folder.path / "ab-20260101T000000Z-1.tfrecord"):
        path.write_bytes(b"")
    assert log_files(log_pattern(folder)) == [wanted]


def test_logged_requests_are_the_latest_recommendations_of_the_model(folder: ServingFolder, live: LiveServer) -> None:
    requests = [make_request([f"i{number}"]) for number in range(6)]
    for request in requests:
        live.predict(request)
    other = make_request([])
    other.model_spec.signature_name = "rank"
    other.inputs["candidate_ids"].CopyFrom(make_tensor(string_array([["i1"]])))
    live.predict(other)
    pattern = f"{folder.path}/requests-*.tfrecord"
    deadline = time.monotonic() + 10
    while len(logged_requests(pattern, "recommender")) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = logged_requests(pattern, "recommender", 2)
    assert [request.inputs["examples"] for request in found] == [
        request.inputs["examples"] for request in requests[:-3:-1]
    ]
    assert logged_requests(pattern, "another model") == []
    assert len(log_files(pattern)) == 1


def test_a_label_that_the_server_does_not_know_is_named(start: Start) -> None:
    with (
        LiveServer(start().address, "recommender") as server,
        pytest.raises(ReleaseError, match=r"label 'canary' cannot be compared: .*Unrecognized servable version label"),
    ):
        compare(server, REQUESTS, Limits())
