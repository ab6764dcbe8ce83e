"""A backend from outside the package: one class and one entry."""

import pytest

from evomerge.scoring import BACKENDS, Scored, backend_type, open_backend
from evomerge.tasks.scores import Asked, LeafValues, assemble
from evomerge.testing.backends import BackendSuite


class Lengths:
    """Prefers the longest continuation, whatever the candidate."""

    takes = "folder"
    races = gradients = False

    def __init__(self, items, *, sign=1):
        self._items, self._sign = items, sign

    def check(self, metrics):
        for task, names in metrics.items():
            Asked.of(self._items, task, self._items.splits[0], names)

    def score(self, model, split, metrics, *, bootstrap_iterations=0):
        asked = {task: Asked.of(self._items, task, split, names) for task, names in metrics.items()}
        found = {
            task: [LeafValues(leaf, each) for leaf in self._items.leaves(task, split)]
            for task, each in asked.items()
        }
        for values in (each for leaves in found.values() for each in leaves):
            responses = [
                [[(float(self._sign * len(request.args[1])), False)] for request in requests]
                for requests in values.leaf.requests
            ]
            values.add(range(len(responses)), responses, {})
        count = sum(len(each.leaf.docs) for leaves in found.values() for each in leaves)
        return Scored(*assemble(self._items, asked, found, bootstrap_iterations), 0, count)


class Choices(BackendSuite):
    @pytest.fixture
    def items(self, llama):
        return llama.items("choice", "both")

    @pytest.fixture
    def metrics(self):
        return {"choice": ("acc",), "both": ("acc",)}

    @pytest.fixture
    def model(self, llama):
        return llama.module


class TestLengths(Choices):
    @pytest.fixture
    def open_backend(self, monkeypatch):
        monkeypatch.setitem(BACKENDS, "lengths", Lengths)
        assert backend_type("lengths").takes == "folder"
        return lambda items: open_backend("lengths", items, {"sign": 1}, {"device": "cpu"})


class TestResident(Choices):
    @pytest.fixture
    def open_backend(self):
        assert backend_type("resident").takes == "module"
        return lambda items: open_backend("resident", items)


class TestLmEvals(Choices):
    @pytest.fixture
    def open_backend(self):
        assert backend_type("hf").takes == "folder"
        return lambda items: open_backend("hf", items, {"batch_size": 4}, {"device": "cpu"})

    @pytest.fixture
    def model(self, llama, tmp_path):
        llama.module.save_pretrained(tmp_path)
        llama.tokenizer.save_pretrained(tmp_path)
        return tmp_path


def test_defaults_that_a_backend_does_not_name_are_dropped(llama):
    items = llama.items("choice")
    backend = open_backend("resident", items, {}, {"batch_tokens": 64, "device": "cpu"})
    assert backend.engine(llama.module).room.batch == 64
