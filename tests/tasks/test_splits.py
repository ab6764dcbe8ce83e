from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.tasks.requested import SplitPlan
from evomerge.tasks.splits import DocumentPool, content_of, document_ids, draw, share_out

DOCS = [{"n": number, "text": f"item {number}"} for number in range(60)]
IDS = document_ids(DOCS)


def pool(plan, ids=IDS, task="task", labels=None):
    labels = [content_of(each) for each in ids] if labels is None else labels
    return DocumentPool(task, {None: ids}, {None: labels}, plan.counts)


def names(drawn):
    return {split: [each.id for each in items] for split, items in drawn.items()}


def chosen(plan, ids=IDS):
    (drawn,) = draw([pool(plan, ids)], plan)
    return names(drawn)


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
    (drawn,) = draw([pool(plan)], plan)
    drawn = drawn["search"]
    assert [each.index for each in drawn] == sorted(each.index for each in drawn)


def test_first_takes_the_first_and_none_takes_all():
    assert chosen(SplitPlan({"search": 5}, first=True))["search"] == list(IDS[:5])
    assert len(chosen(SplitPlan({"search": 500}, first=True))["search"]) == 60
    rest = chosen(SplitPlan({"search": None, "holdout": 10}))
    assert len(rest["search"]) == 50


def test_sources_are_kept_apart():
    plan = SplitPlan({"search": 5, "holdout": 5}, drawn_from={"search": "train"})
    ids = {"train": IDS[:10], None: IDS[5:]}
    contents = {source: [content_of(each) for each in found] for source, found in ids.items()}
    (splits,) = draw([DocumentPool("task", ids, contents, plan.counts)], plan)
    assert {each.source for each in splits["search"]} == {"train"}
    assert not {each.id for each in splits["search"]} & {each.id for each in splits["holdout"]}


def test_too_many_items_says_how_many_there_are():
    with pytest.raises(TaskError, match=r'task "task": 61 items asked for search, but it has 60'):
        chosen(SplitPlan({"search": 61}))
    with pytest.raises(
        TaskError, match=r"only 20 of its 60 documents .* left: 40 are in holdout"
    ) as short:
        chosen(SplitPlan({"search": 30, "holdout": 40}))
    assert str(short.value).endswith(
        "; asked for are search 30, holdout 40 of each task; search 25, holdout 34 would fit"
    )
    assert chosen(SplitPlan({"search": 25, "holdout": 34}))


def sides(found):
    """Side of each document, by content; fails where one is on two."""
    known = {}
    for drawn in found:
        for split, ids in names(drawn).items():
            for each in ids:
                assert known.setdefault(content_of(each), split) == split
    return known


@given(st.permutations(range(60)), st.permutations(range(60)), st.integers(0, 3))
def test_tasks_over_the_same_documents_have_them_on_the_same_side(first, second, seed):
    plan = SplitPlan({"search": 15, "select": 10, "holdout": 20}, seed)
    pools = [
        pool(plan, tuple(IDS[n] for n in first), "one"),
        pool(plan, tuple(IDS[n] for n in second), "two"),
    ]
    found = draw(pools, plan)
    sides(found)
    same = [{split: sorted(ids) for split, ids in names(drawn).items()} for drawn in found]
    assert same[0] == same[1]
    in_order = draw([pool(plan, task=task) for task in ("one", "two")], plan)
    assert sorted(names(in_order[0])["search"]) == same[0]["search"]


@given(st.integers(0, 34), st.integers(0, 5))
def test_tasks_that_overlap_get_what_they_ask_for(offset, seed):
    plan = SplitPlan({"search": 8, "select": 8, "holdout": 10}, seed)
    found = draw([pool(plan, IDS[:40], "one"), pool(plan, IDS[offset:], "two")], plan)
    sides(found)
    for drawn in found:
        assert [len(drawn[split]) for split in ("search", "select", "holdout")] == [8, 8, 10]


def test_a_task_alone_is_drawn_as_if_there_were_no_other():
    plan = SplitPlan({"search": 8, "holdout": 10})
    other = document_ids([{"n": number} for number in range(50)])
    found = draw([pool(plan), pool(plan, other, "other")], plan)
    assert names(found[0]) == chosen(plan)


def test_a_small_task_within_a_large_one_gets_all_that_it_has():
    small = SplitPlan({"search": 4, "select": 4, "holdout": 4})
    large = SplitPlan({"search": 8, "select": 8, "holdout": 40})
    found = draw([pool(large, task="large"), pool(small, IDS[:12], "small")], large)
    sides(found)
    assert [len(found[1][split]) for split in ("search", "select", "holdout")] == [4, 4, 4]
    assert [len(found[0][split]) for split in ("search", "select", "holdout")] == [8, 8, 40]


def test_many_documents_of_one_question_are_packed_where_it_must_be():
    """Thirty questions, asked thrice each with other choices: all 90 documents have a place."""
    ids = document_ids([{"q": n % 30, "choices": n} for n in range(90)])
    labels = [f"{n % 30}" for n in range(90)]
    for count in (10, 30):
        plan = SplitPlan({"search": count, "select": count, "holdout": count})
        (drawn,) = draw([pool(plan, ids, labels=labels)], plan)
        assert {split: len(items) for split, items in drawn.items()} == plan.counts
        parts = [{labels[each.index] for each in items} for items in drawn.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_a_shortage_by_another_tasks_items_says_how_many_are_free():
    plan = SplitPlan({"search": 10, "holdout": 10})
    large = SplitPlan({"search": 1, "holdout": 59})
    with pytest.raises(
        TaskError,
        match=r'task "small": 10 .* only \d of its 20 documents .* left: \d+ are in holdout; .* fewer$',
    ):
        draw([pool(large, task="large"), pool(plan, IDS[:20], "small")], plan)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_shares_follow_sizes(sizes, data):
    count = data.draw(st.integers(len(sizes), sum(sizes)))
    shares = share_out(count, sizes)
    assert sum(shares) == count
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    assert all(shares[a] <= shares[b] + 1 for a, b in pairwise(order))
