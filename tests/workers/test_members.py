from __future__ import annotations

from evomerge.candidate import Merge
from evomerge.kinds import Assignment
from evomerge.workers.members import routes_of, tokens_read

MERGE = Merge("passthrough", ("/a",))


def test_every_item_has_the_member_that_answers_it_and_its_tokens() -> None:
    parts = [
        Assignment("two", MERGE, {"t": (1,), "u": (0,)}),
        Assignment("one", MERGE, {"t": (0, 2)}),
    ]
    routes = routes_of(parts, ["one", "two", "three"])
    assert routes == {"t": (0, 1, 0), "u": (1,)}
    prompts = {"t": [(1, 2), (3,), (4, 5, 6)], "u": [(7, 8, 9, 10)]}
    assert tokens_read(routes, prompts, 3) == {"t": (5, 1, 0), "u": (0, 4, 0)}
