"""What holds for every kind of candidate."""

from __future__ import annotations

import random
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from evomerge import yaml_file
from evomerge.candidate import Candidate, Size
from evomerge.config import SpaceSettings
from evomerge.errors import RecipeError
from evomerge.kinds import KINDS, Kind, SearchSpace, kind_of, read
from evomerge.space import Family

CORNERS = (0.0, 0.25, 0.5, 1.0)
"""Where points are taken in the ranges of all dimensions, besides random ones."""
DRAWN = 20
SIZE = Size((3, 3, 3, 3), 2, (2, 2, 2, 2))
"""Of the base, for kinds that count their weights."""


class KindSuite:
    """Tests of a kind, for which no model is opened. Override `name` and `kind`.

    `settings` where the kind takes keys of the campaign's `space`; `family` where two experts are too few,
    or the kind opens the models.
    """

    @pytest.fixture
    def name(self) -> str:
        """Return what campaigns call it."""
        pytest.fail("override the fixture `name`")

    @pytest.fixture
    def kind(self) -> Kind:
        """Return the kind under test."""
        pytest.fail("override the fixture `kind`")

    @pytest.fixture
    def settings(self, name: str) -> SpaceSettings:
        """Return a campaign's `space`."""
        return SpaceSettings(kind=name)

    @pytest.fixture
    def family(self) -> Family:
        """Return a base and two experts of four layers, at paths where nothing is."""
        return Family("/base", {"one": "/one", "two": "/two"}, num_layers=4, dtype="float32")

    @pytest.fixture
    def space(
        self,
        name: str,
        kind: Kind,
        settings: SpaceSettings,
        family: Family,
        monkeypatch: pytest.MonkeyPatch,
    ) -> SearchSpace:
        """Return the space of the settings, in a campaign that knows the kind by its name."""
        monkeypatch.setitem(KINDS, name, kind)
        kind.check(settings)
        return kind.space(settings, family, 0)

    @pytest.fixture
    def points(self, space: SearchSpace) -> list[dict[str, float]]:
        """Return points all over the space."""
        rng, ranges = random.Random(0), space.distributions
        shares = [[share] * len(ranges) for share in CORNERS]
        shares += [[rng.random() for _ in ranges] for _ in range(DRAWN)]
        return [
            {
                name: found.low + share * (found.high - found.low)
                for (name, found), share in zip(ranges.items(), each, strict=True)
            }
            for each in shares
        ]

    def test_its_keys_are_those_of_a_campaign(self, kind: Kind) -> None:
        assert kind.keys <= SpaceSettings.model_fields.keys() - {"kind"}

    def test_dimensions_are_ranges_in_a_fixed_order(
        self, kind: Kind, settings: SpaceSettings, family: Family, space: SearchSpace
    ) -> None:
        ranges = space.distributions
        assert ranges
        assert all(found.low < found.high for found in ranges.values())
        assert set(space.differentiable) <= ranges.keys()
        assert list(kind.space(settings, family, 0).distributions.items()) == list(ranges.items())

    def test_every_point_is_a_candidate_of_the_familys_models(
        self, name: str, family: Family, space: SearchSpace, points: list[dict[str, float]]
    ) -> None:
        for point in points:
            made = space.candidate(point)
            assert made.kind == name
            used = made.model_names()
            assert set(used) <= {family.base, *family.experts.values()}
            assert len(set(used)) == len(used) > 0
            assert 0 < made.active(SIZE) <= made.size(SIZE) < 100

    def test_equal_points_are_equal_candidates(
        self, space: SearchSpace, points: list[dict[str, float]]
    ) -> None:
        found = [space.candidate(point) for point in points]
        again = [space.candidate(dict(point)) for point in points]
        assert found == again
        texts = [made.text() for made in found]
        assert texts == [made.text() for made in again]
        assert len(set(texts)) > 1, "every point is the same candidate"

    def test_the_text_gives_the_candidate_back(
        self, kind: Kind, space: SearchSpace, points: list[dict[str, float]]
    ) -> None:
        for made in self._candidates(space, points):
            assert "\n" not in made.text()
            found = read(made.text())
            assert found == made
            assert found.text() == made.text()
        assert kind_of(space.candidate(points[0])) is kind

    def test_the_file_is_yaml_that_names_every_model(
        self, space: SearchSpace, points: list[dict[str, float]], tmp_path: Path
    ) -> None:
        for made in self._candidates(space, points):
            path = tmp_path / "recipe.yaml"
            path.write_text(made.file(), encoding="utf-8")
            yaml_file.read_all(path, RecipeError)
            assert all(model in made.file() for model in made.model_names())

    def test_models_are_renamed_and_nothing_else(
        self, space: SearchSpace, points: list[dict[str, float]]
    ) -> None:
        for made in self._candidates(space, points):
            moved = made.renamed(lambda model: f"/moved{model}")
            assert moved.model_names() == tuple(f"/moved{model}" for model in made.model_names())
            assert moved.renamed(lambda model: model.removeprefix("/moved")) == made
            assert made.renamed(lambda model: model) == made

    def test_a_candidate_is_frozen_and_can_be_shown(
        self, space: SearchSpace, points: list[dict[str, float]]
    ) -> None:
        made = space.candidate(points[-1])
        with pytest.raises(FrozenInstanceError):
            setattr(made, next(iter(vars(made))), None)
        assert made.label()
        assert "\n" not in made.label()
        assert all("value" in row for row in made.numbers())

    def test_parents_are_among_the_baselines_and_their_points_lie_in_the_space(
        self, family: Family, space: SearchSpace
    ) -> None:
        found = space.baselines()
        assert len({each.name for each in found}) == len(found)
        assert [each.role for each in found].count("base") == 1
        assert [each.name for each in found if each.role == "expert"] == list(family.experts)
        for each in found:
            if each.params is None:
                continue
            assert each.params.keys() == space.distributions.keys()
            assert all(
                space.distributions[name].low <= value <= space.distributions[name].high
                for name, value in each.params.items()
            )
            space.candidate(each.params)

    def _candidates(self, space: SearchSpace, points: list[dict[str, float]]) -> list[Candidate]:
        baselines = [each.candidate for each in space.baselines()]
        return [*map(space.candidate, points), *baselines]
