from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.score.requested import SplitPlan
from evomerge.score.splits import content_of, document_ids, draw, share_out

DOCS = [{"n": number, "text": f"item {number}"} for number in range(60)]
IDS = document_ids(DOCS)


def chosen(plan, ids=IDS):
    return {
        split: [each.id for each in items]
        for split, items in draw("task", {None: ids}, plan).items()
    }


def test_ids_follow_the_content_not_the_place():
    assert document_ids(reversed(DOCS)) == tuple(reversed(IDS))
    assert document_ids([{"text": "item 0", "n": 0}]) == IDS[:1]
    assert len(set(IDS)) == len(IDS)


def test_copies_are_told_apart():
    ids = document_ids([DOCS[0], DOCS[1], DOCS[0]])
    assert len(set(ids)) == 3
    assert content_of(ids[0]) == content_of(ids[2]) != content_of(ids[1])


@given(
    st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 3), st.integers(1, 3)
)
def test_splits_are_disjoint_also_in_content(search, select, holdout, seed, copies):
    ids = document_ids(DOCS[:30] * copies + DOCS[30:])
    splits = chosen(SplitPlan({"search": search, "select": select, "holdout": holdout}, seed), ids)
    assert [len(splits[s]) for s in ("search", "select", "holdout")] == [search, select, holdout]
    contents = [{content_of(each) for each in part} for part in splits.values()]
    assert sum(map(len, contents)) == len(set.union(*contents))


def test_what_is_reported_does_not_move_with_what_is_searched():
    few = chosen(SplitPlan({"search": 4, "select": 4, "holdout": 20}))
    many = chosen(SplitPlan({"search": 20, "select": 4, "holdout": 20}))
    assert few["holdout"] == many["holdout"]
    assert few["select"] == many["select"]
    assert set(few["search"]) < set(many["search"])


def test_drawing_depends_on_seed_and_not_on_order():
    plan = SplitPlan({"search": 10})
    assert chosen(plan) != chosen(SplitPlan({"search": 10}, seed=1))
    assert set(chosen(plan)["search"]) == set(chosen(plan, tuple(reversed(IDS)))["search"])
    drawn = draw("task", {None: IDS}, plan)["search"]
    assert [each.index for each in drawn] == sorted(each.index for each in drawn)


def test_first_takes_the_first_and_none_takes_all():
    assert chosen(SplitPlan({"search": 5}, first=True))["search"] == list(IDS[:5])
    assert len(chosen(SplitPlan({"search": 500}, first=True))["search"]) == 60
    rest = chosen(SplitPlan({"search": None, "holdout": 10}))
    assert len(rest["search"]) == 50


def test_sources_are_kept_apart():
    plan = SplitPlan({"search": 5, "holdout": 5}, drawn_from={"search": "train"})
    splits = draw("task", {"train": IDS[:10], None: IDS[5:]}, plan)
    assert {each.source for each in splits["search"]} == {"train"}
    assert not {each.id for each in splits["search"]} & {each.id for each in splits["holdout"]}


def test_too_many_items_says_how_many_there_are():
    with pytest.raises(TaskError, match=r'task "task": 61 items asked for search, but it has 60'):
        chosen(SplitPlan({"search": 61}))
    with pytest.raises(TaskError, match=r"has 60 .* 20 of them not in another split"):
        chosen(SplitPlan({"search": 30, "holdout": 40}))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_shares_follow_sizes(sizes, data):
    count = data.draw(st.integers(len(sizes), sum(sizes)))
    shares = share_out(count, sizes)
    assert sum(shares) == count
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    assert all(shares[a] <= shares[b] + 1 for a, b in pairwise(order))
