"""Statistics are taken once a campaign: of which prompts, in which order, and what may not change."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound
from evomerge.candidate.recipe import STATISTICS
from evomerge.candidate.trial import Entry, Failure, FailureKind
from evomerge.errors import CampaignStopped, ResultsError
from evomerge.progress import NoDisplay
from evomerge.search.activations import take_statistics

EXPERTS = [Entry(name, Merge("passthrough", (f"/{name}",)), role="expert") for name in "abc"]
MERGE = Merge("regmean", ("/a", "/b", "/c"), "/base")


class Backwards:
    """A pool that finishes the last piece of work first; a model's number stands for what it read."""

    size = 3

    def __init__(self, failing=None):
        self.jobs, self.waiting, self.failing = [], deque(), failing

    @property
    def free(self):
        return self.size - len(self.waiting)

    def submit(self, work):
        self.jobs.append(work)
        self.waiting.append(work)

    def next(self, timeout=None):
        job = self.waiting.pop()
        if job.experts:
            return job, ActivationsFound(merged=[{"w": np.full((2, 2), n)} for n in range(3)])
        name = job.candidate.experts[0]
        if name == self.failing:
            return job, ActivationsFound(failure=Failure(FailureKind.TASK, "it cannot read"))
        number = np.float32(ord(name[1]))
        pairs = {"w": np.full((2, 2), number)} if job.moments else {}
        return job, ActivationsFound({"w": np.full((1, 2), number)}, pairs)


class Arrays(dict):
    has = dict.__contains__
    get = dict.__getitem__
    keep = dict.__setitem__


@pytest.fixture
def bench(tmp_path):
    goals = [SimpleNamespace(task="t", teacher="b"), SimpleNamespace(task="u", teacher=None)]
    return SimpleNamespace(
        store=SimpleNamespace(folder=tmp_path, arrays=Arrays()),
        campaign=SimpleNamespace(objectives=goals, statistics=None),
        pool=Backwards(),
        display=NoDisplay(),
    )


def test_experts_stand_in_their_order_and_teachers_read_their_tasks(bench, tmp_path):
    take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    found = load_file(tmp_path / STATISTICS)
    assert {key: one[0, 0] for key, one in found.items()} == {"0/w": 97, "1/w": 98, "2/w": 99}
    assert {job.candidate.experts: job.tasks for job in bench.pool.jobs} == {
        ("/a",): (),
        ("/b",): ("t",),
        ("/c",): (),
    }
    assert [path.name for path in tmp_path.iterdir()] == [STATISTICS]


def test_second_moments_only_where_they_are_read(bench, tmp_path):
    take_statistics(bench, EXPERTS, {"moment", "importance"}, MERGE)
    assert load_file(tmp_path / STATISTICS).keys() == {
        f"{kind}{place}/w" for kind in ("", "moment/") for place in range(3)
    }


@pytest.mark.parametrize("others", [set(), {"importance"}])
def test_moments_in_a_merge_are_of_one_job_beside_what_else_is_read(bench, tmp_path, others):
    take_statistics(bench, EXPERTS, {"merged"} | others, MERGE)
    together, *alone = bench.pool.jobs
    assert together.candidate == MERGE
    assert [(job.candidate, job.tasks) for job in together.experts] == [
        (EXPERTS[0].candidate, ()),
        (EXPERTS[1].candidate, ("t",)),
        (EXPERTS[2].candidate, ()),
    ]
    assert alone == list(together.experts if others else ())
    found = {key: one[0, 0] for key, one in load_file(tmp_path / STATISTICS).items()}
    own = {"0/w": 97, "1/w": 98, "2/w": 99} if others else {}
    assert found == {"merged/0/w": 0, "merged/1/w": 1, "merged/2/w": 2} | own


def test_they_are_taken_once_and_nothing_where_nothing_is_read(bench, tmp_path):
    take_statistics(bench, EXPERTS, set(), MERGE)
    assert not bench.pool.jobs
    for _ in range(2):
        take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    assert len(bench.pool.jobs) == 3


def test_what_a_killed_driver_left_is_taken_again(bench, tmp_path):
    (tmp_path / STATISTICS).write_bytes(b"of a campaign that recorded nothing")
    take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    assert len(load_file(tmp_path / STATISTICS)) == 3


def test_one_that_is_gone_is_taken_again_and_another_one_refused(bench, tmp_path):
    take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    before = (tmp_path / STATISTICS).read_bytes()
    (tmp_path / STATISTICS).unlink()
    take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    assert (tmp_path / STATISTICS).read_bytes() == before
    (tmp_path / STATISTICS).write_bytes(before[:-1] + b"x")
    with pytest.raises(ResultsError, match="is not what the campaign began with"):
        take_statistics(bench, EXPERTS, {"importance"}, MERGE)


def test_a_file_of_the_users_is_copied_and_nobody_reads(bench, tmp_path):
    save_file({f"{n}/w": np.ones((1, 2), np.float32) for n in range(3)}, tmp_path / "mine")
    bench.campaign.statistics = str(tmp_path / "mine")
    content = (tmp_path / "mine").read_bytes()
    for _ in range(2):  # a campaign that is resumed has the copy
        take_statistics(bench, EXPERTS, {"importance"}, MERGE)
        (tmp_path / "mine").unlink(missing_ok=True)
    assert (tmp_path / STATISTICS).read_bytes() == content
    assert not bench.pool.jobs


def test_an_expert_that_cannot_read_stops_the_campaign(bench, tmp_path):
    bench.pool = Backwards(failing="/b")
    with pytest.raises(CampaignStopped, match='statistics of "b": it cannot read'):
        take_statistics(bench, EXPERTS, {"importance"}, MERGE)
    assert not (tmp_path / STATISTICS).exists()
