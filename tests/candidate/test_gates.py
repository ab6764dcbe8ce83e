from __future__ import annotations

import numpy as np

from evomerge.candidate.gates import Gates

RNG = np.random.default_rng(0)
GATES = {layer: RNG.normal(size=(2, 3)).astype(np.float32) for layer in (0, 11)}
SHARED = {11: RNG.normal(size=(1, 3)).astype(np.float32)}
ACCURACY = np.array([[0.5, 0.75]], dtype=np.float32)


def test_layers_are_found_again_in_the_file() -> None:
    again = Gates.read(Gates.of(GATES, SHARED, ACCURACY).content)
    for layer, gate in GATES.items():
        np.testing.assert_array_equal(again.layer(layer), gate)
    np.testing.assert_array_equal(again.shared(11), SHARED[11])
    assert again.layer(1) is None
    assert again.shared(0) is None


def test_how_well_they_route_is_said_where_it_was_measured() -> None:
    assert Gates.of(GATES, None, ACCURACY).accuracy == (0.5, 0.75)
    assert Gates.of(GATES, None, ACCURACY).remark().endswith("layer by layer: 0.50, 0.75.")
    assert Gates.of(GATES).accuracy == ()
    assert Gates.of(GATES).remark() == ""
