from __future__ import annotations

from evomerge.candidate import Merge, Size

LAYERS = {"layers.0.mlp.a": 4, "layers.0.b": 6, "layers.1.mlp.a": 10}
WEIGHTS = {"embed": 15, **LAYERS, "head": 5}
ADAPTED = {"/base+/one": 3, "/base+/two": 2}


def layer_of(name: str) -> int | None:
    return int(name.split(".")[1]) if name in LAYERS else None


def alone(model: str) -> Merge:
    return Merge("passthrough", (model,))


def test_weights_are_counted_by_layer() -> None:
    size = Size.count(WEIGHTS, layer_of, ADAPTED, 15)
    assert size == Size((10, 10), 20, (4, 10), ADAPTED, 15)
    assert size.total == 40
    assert Size.from_json(size.to_json()) == size


def test_what_earlier_versions_wrote_is_read() -> None:
    assert Size.from_json({"layers": [10, 10], "rest": 20}) == Size((10, 10), 20)
    assert Size.from_json(None) == Size()


def test_members_stand_in_memory_once() -> None:
    size = Size((10, 10), 20)
    whole = [alone("/base"), alone("/one"), alone("/one")]
    assert size.of_members(whole, "/base") == 80
    merged = [Merge("linear", ("/one", "/two"), seed=seed) for seed in (0, 0, 1)]
    assert size.of_members(merged, "/base") == 80


def test_adapters_share_the_base() -> None:
    size = Size((10, 10), 20, adapters=ADAPTED)
    both = [alone(model) for model in ADAPTED]
    assert size.of_members(both, "/base") == 45
    assert size.of_members([alone("/base"), *both], "/base") == 45
    merged = Merge("linear", tuple(ADAPTED))
    assert size.of_members([*both, merged], "/base") == 85
