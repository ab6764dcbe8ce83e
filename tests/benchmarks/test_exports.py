import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.speed._exports import (
    export_models,
    older_config,
    older_tokenizer_config,
    write_tasks,
)
from evomerge import zoo
from evomerge.tasks import SplitPlan, TaskRequest, load_items

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COUNTS = {"train": 6, "validation": 8, "test": 5}


def test_a_config_gets_its_older_names() -> None:
    new = {
        "dtype": "bfloat16",
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
        "x": 1,
    }
    assert older_config(new) == {"torch_dtype": "bfloat16", "rope_theta": 5e5, "x": 1}
    scaled = {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}
    assert older_config(scaled)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


def test_a_tokenizer_gets_a_class_and_fields_that_older_releases_know() -> None:
    new = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"]}
    expected = {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<a>"]}
    assert older_tokenizer_config(new) == expected


def test_models_are_copied_and_their_originals_left_alone(tmp_path: Path) -> None:
    models = export_models(tmp_path / "models", ("base", "facts"))
    source = zoo.resolve("zoo:facts")
    assert "dtype" in json.loads((source / "config.json").read_text())
    assert json.loads((models["facts"] / "config.json").read_text())["torch_dtype"] == "bfloat16"
    weights = "model.safetensors"
    assert (models["facts"] / weights).read_bytes() == (source / weights).read_bytes()


@pytest.mark.parametrize(("kind", "shots"), [("choice", 0), ("choice", 5), ("generation", 0)])
def test_tasks_hold_the_zoos_items(tmp_path: Path, kind: str, shots: int) -> None:
    (name,) = write_tasks(tmp_path, kind, ["extraction"], COUNTS, shots)
    items = load_items(
        [TaskRequest(name)],
        tokenizer=AutoTokenizer.from_pretrained(zoo.resolve("zoo:base")),
        tasks_path=str(tmp_path),
        plan=SplitPlan(
            {"search": 5, "select": 4, "holdout": 4},
            drawn_from={"search": "test", "select": "validation", "holdout": "validation"},
        ),
    )
    assert len(items.ids(name, "search")) == 5
    assert not set(items.ids(name, "select")) & set(items.ids(name, "holdout"))


def test_the_search_gets_the_first_of_a_jobs_items_and_the_others_those_behind(
    tmp_path: Path,
) -> None:
    import pyarrow.parquet

    write_tasks(tmp_path, "choice", ["tools"], COUNTS)
    prompts = [item.prompt for item in zoo.items("tools", "test", 13)]
    for split, expected in (("test", prompts[:5]), ("validation", prompts[5:])):
        table = pyarrow.parquet.read_table(tmp_path / f"tools_{split}.parquet")
        assert table.column("prompt").to_pylist() == expected
        assert not table.schema.metadata  # a newer data set library's own schema stops an older one
