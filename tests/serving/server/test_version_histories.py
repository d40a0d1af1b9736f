"""Whatever is pushed, removed, repaired or configured in whatever order: the policy is obeyed and the model answers."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.serving.errors import StatusError
from pipeline.serving.server.leases import Lease
from pipeline.serving.server.version_folders import Policy
from pipeline.serving.server.versions import LoadOptions, ModelVersions, State, Target
from tests.serving.server.text_models import TextModel

VERSIONS = st.integers(1, 5)
POLICIES = st.one_of(
    st.integers(1, 3).map(lambda count: Policy(latest=Policy.Latest(num_versions=count))),
    st.just(Policy(all=Policy.All())),
    st.sets(VERSIONS, max_size=3).map(lambda chosen: Policy(specific=Policy.Specific(versions=sorted(chosen)))),
)


class VersionHistory(RuleBasedStateMachine):
    """Does to a base path and a configuration what operators, pushers and accidents do to them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.base_path = self.folder / "m"
        self.base_path.mkdir()
        self.on_disk: dict[int, str] = {}
        self.policy = Policy()
        self.leases: list[Lease] = []
        self.clock = itertools.count(1)
        self.versions = ModelVersions(
            "m",
            TextModel,  # type: ignore[arg-type]
            Target(str(self.base_path), self.policy),
            options=LoadOptions(max_num_load_retries=0),
        )

    def teardown(self) -> None:
        for lease in self.leases:
            lease.__exit__(None, None, None)
        self.versions.close()
        assert self.in_state(State.AVAILABLE) == self.in_state(State.UNLOADING) == set()
        shutil.rmtree(self.folder)

    def in_state(self, state: State) -> set[int]:
        return {version for version, status in self.versions.statuses.items() if status.state is state}

    # What happens to the folders.

    @rule(version=VERSIONS, kind=st.sampled_from(["good", "broken", "incomplete"]), looks=st.booleans())
    def push(self, version: int, kind: str, looks: bool) -> None:
        path = self.base_path / str(version)
        path.mkdir(exist_ok=True)
        if kind == "incomplete":
            (path / "saved_model.pb").unlink(missing_ok=True)
        else:
            (path / "saved_model.pb").write_text(kind)
            os.utime(path / "saved_model.pb", ns=(0, next(self.clock)))
        self.on_disk[version] = kind
        if looks:
            self.manage()

    @precondition(lambda self: self.on_disk)
    @rule(data=st.data(), looks=st.booleans())
    def remove(self, data: st.DataObject, looks: bool) -> None:
        version = data.draw(st.sampled_from(sorted(self.on_disk)))
        del self.on_disk[version]
        shutil.rmtree(self.base_path / str(version))
        if looks:
            self.manage()

    @rule(policy=POLICIES, looks=st.booleans())
    def configure(self, policy: Policy, looks: bool) -> None:
        self.policy = policy
        self.versions.target = Target(str(self.base_path), policy)
        if looks:
            self.manage()

    # What requests do.

    @precondition(lambda self: self.in_state(State.AVAILABLE) and len(self.leases) < 3)
    @rule(data=st.data())
    def borrow(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from([None, *sorted(self.in_state(State.AVAILABLE))]))
        lease = self.versions.lend(version)
        assert version in (None, lease.version)
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))).__exit__(None, None, None)

    # What the server does.

    @rule()
    def manage_while_the_base_path_is_away(self) -> None:
        self.versions.poll()
        while self.versions.advance():
            pass
        before = self.in_state(State.AVAILABLE)
        self.base_path.rename(self.folder / "away")
        self.versions.poll()
        while self.versions.advance():
            pass
        (self.folder / "away").rename(self.base_path)
        assert self.in_state(State.AVAILABLE) == before

    @rule()
    def manage(self) -> None:
        loaded = self.in_state(State.AVAILABLE)
        complete = {version for version, kind in self.on_disk.items() if kind != "incomplete" or version in loaded}
        kind = self.policy.WhichOneof("policy_choice")
        if kind == "specific":
            wanted = set(self.policy.specific.versions) & self.on_disk.keys()
        elif kind == "all":
            wanted = set(self.on_disk)
        else:
            count = max(self.policy.latest.num_versions, 1)
            good_enough = sorted(complete)[-count:]
            wanted = {version for version in self.on_disk if len(good_enough) < count or version >= good_enough[0]}
        chosen = wanted & complete

        answered = bool(loaded)
        self.versions.poll()
        while self.versions.advance():
            try:
                self.versions.lend().__exit__(None, None, None)
                answered = True
            except StatusError:
                assert not answered or not wanted, "what served before no longer does"

        available = self.in_state(State.AVAILABLE)
        draining = self.in_state(State.UNLOADING)
        good = {version for version, kind in self.on_disk.items() if kind == "good"}
        assert (chosen & good) - draining <= available, "a good version that the policy chooses is not served"
        if available & chosen:
            assert available <= chosen, "the policy does not choose what is served"
        else:
            assert len(available) <= 1, "one old version is enough"
        if not wanted:
            assert not available, "nothing is to be served"
        elif loaded:
            assert available, "what served before no longer does"
        if kind in (None, "latest") and good - draining and not chosen & draining:
            assert available, "a good version is there, but none is served"

    @invariant()
    def borrowed_versions_stay_loaded(self) -> None:
        for lease in self.leases:
            assert not lease.servable.is_closed  # type: ignore[attr-defined]

    @invariant()
    def the_latest_available_version_answers(self) -> None:
        available = self.in_state(State.AVAILABLE)
        if available:
            with self.versions.lend() as lease:
                assert lease.version == max(available)


VersionHistory.TestCase.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestVersionHistory = VersionHistory.TestCase
