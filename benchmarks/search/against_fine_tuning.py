r"""What few items give: coefficients of experts against fine-tuning, with controls.

    python -m benchmarks.search.against_fine_tuning [--items 4 16 64 256] [--seeds 0 1 2] [--rows expert ...]
    python -m benchmarks.search.against_fine_tuning --models results/smollm2_models --items 64 --seeds 0 1

Models are the zoo's five experts, or a family that `benchmarks/smollm2/build.py` built. Every row learns
from the same items of each job, chooses on as many others, and is reported on 200 held-out ones of each:
exact match, teacher-forced: greedy generation's, but for answers that are the gold one in other tokens. A
seed draws the items and seeds the row.

best expert, tuned task arithmetic, best naive merge    nothing is learnt; chosen on `select`
gold by groups    `evomerge search` along the gradient of the gold answers, a coefficient for each expert,
                  layer and component; the others add coefficients by tensor and row
gold, expert, both    the losses of a campaign; what the answers' tokens are is known to each of them
expert, no labels    `expert` from prompts alone: each expert's own answers are learnt and selected on
full / lora, gold / expert    fine-tuning of the best naive merge, AdamW, the same losses; at each of
                  several rates (`--rates`) for as many processor seconds as the search of the `expert`
                  campaign took (between its baselines and its finalists: gradients, and trials scored in
                  full); rate and length are chosen on `select`, which costs it nothing
expert, then lora    the `expert` campaign's winner, tuned on for as long again
random, gold      random vectors with the norms of the task vectors, a tensor each, in place of these
unrelated, gold   three jobs only (see `JOBS_ALONE`), from experts of other jobs only; on the zoo

Results are added to one JSON file, so a long run can be split; a run that is there is not done again, unless
`--again`. Fine-tuning reads the time from the `expert` row there, or from `--seconds`; on a GPU (`--device
cuda`) it is the clock's. The table is written beside it, and what the paired test says of `expert` against
parents, merges and fine-tuning: items are paired within jobs, p-values corrected for their number by Holm.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import evomerge
from benchmarks.search._few_items import METRIC, FewItems, Scores, Suite
from benchmarks.search._fine_tuning import Lessons, fine_tune
from benchmarks.search._tables import Record, table_of_scores, table_of_tests
from evomerge.config import Campaign
from evomerge.progress import NoDisplay, Progress
from evomerge.result import Result
from evomerge.space import Baseline

JOBS_ALONE = {
    "extraction": "translation",
    "dialogue": "facts",
    "tools": "formats",
}
"""The jobs of the control with unrelated experts, and whose experts take part."""
TIMED = "expert"
"""The row whose time fine-tuning gets, and which is tested against others."""
OTHERS = (
    "best expert",
    "tuned task arithmetic",
    "full, gold",
    "full, expert",
    "lora, gold",
    "lora, expert",
)
"""The rows that it is tested against."""


class Bench:
    """One draw of the items, and the rows on it.

    Args:
        few: The items.
        folder: For the results folders of campaigns; it is there.
        trials: Budget of a campaign.
        seconds: What fine-tuning gets, as `Suite.now` counts them; None: they are not known yet.
        rates: Of fine-tuning; none: the usual ones.
    """

    def __init__(
        self,
        few: FewItems,
        folder: Path,
        trials: int,
        seconds: float | None,
        rates: Sequence[float] = (),
    ) -> None:
        self._few, self._trials, self._seconds, self._rates = few, trials, seconds, rates
        self._folder, self._models, self._jobs = folder, few.suite.models, few.suite.jobs

    def baseline(self, name: str) -> Record:
        """Score one of the parents or naive merges."""
        chosen: Baseline = getattr(self._few, name)
        scores = self._few.scores(self._few.module(chosen.candidate))
        return {**_said(scores), "select": scores.select, "chosen": chosen.name}

    def campaign(
        self, loss: str, scales: Sequence[str] = ("group", "tensor", "row"), name: str | None = None
    ) -> Record:
        """Search with a loss."""
        experts = {job: self._models[job] for job in self._jobs}
        return self._search(name or loss, self._models["base"], experts, self._jobs, loss, scales)

    def tuned(self, loss: str, *, lora: bool) -> Record:
        """Fine-tune the best naive merge."""
        lessons = Lessons(self._few, loss)
        return self._tune(self._few.module(self._few.naive.candidate), lessons, lora=lora)

    def then_lora(self) -> Record:
        """Fine-tune the winner of the `expert` campaign."""
        if not (self._folder / TIMED / "best").exists():
            raise SystemExit(f"{self._folder / TIMED} has no results: run the row {TIMED} first")
        return self._tune(self._winner(TIMED), Lessons(self._few, "expert"), lora=True)

    def no_labels(self) -> Record:
        """Search with prompts only; the last one is the holdout that a campaign must have."""
        objectives = []
        for job in self._jobs:
            texts = [*self._few.texts(job), *self._few.texts(job, "select")]
            lines = [json.dumps({"prompt": prompt}) for prompt, _ in texts]
            file = (self._folder / f"{job}.jsonl").resolve()
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            objectives.append({"prompts": str(file), "teacher": job, "max_tokens": 48})
        experts = {job: self._models[job] for job in self._jobs}
        counts = {"select": self._few.count - 1, "holdout": 1, "from": {}}
        _, seconds = self._run("prompts", self._models["base"], experts, objectives, counts)
        return {**_said(self._few.scores(self._winner("prompts"))), "seconds": seconds}

    def random(self, loss: str) -> Record:
        """Search with random vectors in place of the task vectors."""
        base = {
            name: value.clone()
            for name, value in self._few.module(self._few.parent("base")).state_dict().items()
        }
        generator = torch.Generator().manual_seed(self._few.seed)
        experts = {}
        for job in self._jobs:
            expert = self._few.module(self._few.parent(job)).state_dict()
            norms = {name: (value - base[name]).norm() for name, value in expert.items()}
            experts[job] = self._save(f"random-{job}", _moved(base, norms, generator))
        return self._search(f"random-{loss}", self._models["base"], experts, self._jobs, loss)

    def unrelated(self, loss: str) -> Record:
        """Search for some jobs with the experts of others."""
        experts = {other: f"zoo:{other}" for other in JOBS_ALONE.values()}
        base = self._models["base"]
        return self._search(f"unrelated-{loss}", base, experts, list(JOBS_ALONE), loss)

    def _search(
        self,
        name: str,
        base: str,
        experts: Mapping[str, str],
        jobs: Sequence[str],
        loss: str,
        scales: Sequence[str] = ("group", "tensor", "row"),
    ) -> Record:
        tasks = map(self._few.suite.task, jobs)
        objectives = [{"task": task, "metric": METRIC, "loss": loss} for task in tasks]
        # held-out items from elsewhere do not move the others: the winner's scores are all that is needed
        counts = {"holdout": 1} if self._few.suite.drawn_from else {}
        result, seconds = self._run(name, base, experts, objectives, counts, scales)
        return {
            **_said(self._few.scores(self._winner(name), jobs)),
            "select": result.leaderboard.winners[0].objective("select"),
            "seconds": seconds,
            "chosen": result.best.name,
        }

    def _run(
        self,
        name: str,
        base: str,
        experts: Mapping[str, str],
        objectives: Sequence[Mapping[str, Any]],
        counts: Mapping[str, Any] = {},
        scales: Sequence[str] = ("group", "tensor", "row"),
    ) -> tuple[Result, float]:
        """Run a campaign; return what it left, and the seconds of the search itself."""
        count, seed, suite = self._few.count, self._few.seed, self._few.suite
        drawn = {"holdout": suite.holdout, "seed": seed, "from": suite.drawn_from}
        settings = {
            "name": name,
            "models": {
                "base": base,
                "experts": [{"model": model, "name": job} for job, model in experts.items()],
                "dtype": suite.dtype,
            },
            "space": suite.space,
            "objectives": objectives,
            "tasks_path": str(suite.tasks_path),
            "items": {"search": count, "select": count, **drawn, **counts},
            "search": {
                "sampler": "gradient",
                "trials": self._trials,
                "seed": seed,
                "scales": list(scales),
            },
            "workers": {"count": 0, "gpus": int(suite.device == "cuda")},
        }
        clock = _Clock(suite.now)
        result = evomerge.search(
            Campaign.model_validate(settings), out=self._folder / name, force=True, display=clock
        )
        return result, clock.seconds

    def _winner(self, name: str) -> Any:
        folder = self._folder / name / "best"
        suite = self._few.suite
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=suite.torch_dtype)
        return model.to(suite.device).eval()

    def _tune(self, start: Any, lessons: Lessons, *, lora: bool) -> Record:
        if self._seconds is None:
            raise SystemExit(
                f"run the row {TIMED} first, or say how long to fine-tune with --seconds"
            )
        tuned = fine_tune(
            self._few, copy.deepcopy(start), lessons, self._seconds, lora=lora, rates=self._rates
        )
        return {
            **_said(tuned.scores),
            "select": tuned.scores.select,
            "seconds": self._seconds,
            "chosen": f"rate {tuned.rate:g}, {tuned.steps} steps of {tuned.steps_in_time}",
        }

    def _save(self, name: str, weights: Mapping[str, torch.Tensor]) -> str:
        folder, live = self._folder / name, self._few.live
        live.module.load_state_dict(weights)
        live.module.save_pretrained(folder)
        live.tokenizer.save_pretrained(folder)
        return str(folder)


class _Clock(NoDisplay):
    """Takes the time at which each stage of a campaign begins."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began: dict[str, float] = {}

    def show(self, progress: Progress) -> None:
        """Note the time of a new stage."""
        self._began.setdefault(progress.stage, self._now())

    @property
    def seconds(self) -> float:
        """Seconds of the search itself."""
        return self._began["select"] - self._began["search"]


def _said(scores: Scores) -> Record:
    return {"holdout": scores.holdout, "right": scores.right}


def _moved(
    base: Mapping[str, torch.Tensor],
    norms: Mapping[str, torch.Tensor],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Move every tensor by a random vector of a norm."""
    moved = {}
    for name, value in base.items():
        way = torch.randn(value.shape, generator=generator).to(value.device)
        moved[name] = value + way * (norms[name] / way.norm())
    return moved


ROWS: dict[str, Callable[[Bench], Record]] = {
    "best expert": partial(Bench.baseline, name="best_expert"),
    "tuned task arithmetic": partial(Bench.baseline, name="task_arithmetic"),
    "best naive merge": partial(Bench.baseline, name="naive"),
    "gold by groups": partial(Bench.campaign, loss="gold", scales=("group",), name="groups"),
    "gold": partial(Bench.campaign, loss="gold"),
    "expert": partial(Bench.campaign, loss="expert"),
    "expert, no labels": Bench.no_labels,
    "both": partial(Bench.campaign, loss="both"),
    "full, gold": partial(Bench.tuned, loss="gold", lora=False),
    "full, expert": partial(Bench.tuned, loss="expert", lora=False),
    "lora, gold": partial(Bench.tuned, loss="gold", lora=True),
    "lora, expert": partial(Bench.tuned, loss="expert", lora=True),
    "expert, then lora": Bench.then_lora,
    "random, gold": partial(Bench.random, loss="gold"),
    "unrelated, gold": partial(Bench.unrelated, loss="gold"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows that are not there yet, and write all that are as JSON and as a table."""
    options = _options(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    suite = Suite.built(options.models, options.dtype) if options.models else Suite.zoo()
    suite = replace(suite, holdout=options.held_out, device=options.device)
    for count in options.items:
        for seed in options.seeds:
            folder = options.folder / f"{count}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            few = FewItems(suite, count, seed, folder / "baselines.json")
            for name in options.rows:
                key = f"{count} {seed} {name}"
                if key in records and not options.again:
                    continue
                timed = records.get(f"{count} {seed} {TIMED}", {}).get("seconds")
                seconds = options.seconds or timed
                bench = Bench(few, folder, options.trials, seconds, options.rates)
                of = {"items": count, "seed": seed, "drawn": few.drawn, "row": name}
                records[key] = {**of, **ROWS[name](bench)}
                shown = {name: value for name, value in records[key].items() if name != "right"}
                print(json.dumps(shown), flush=True)
                options.out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    found = list(records.values())
    report = table_of_scores(found, list(ROWS)) + "\n" + table_of_tests(found, TIMED, OTHERS)
    options.out.with_suffix(".md").write_text(report, encoding="utf-8")
    print(report)
    if not options.keep:
        shutil.rmtree(options.folder, ignore_errors=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of a built family [the zoo]")
    parser.add_argument("--dtype", default="bfloat16", help="of its merges")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="[%(default)s]")
    parser.add_argument("--held-out", type=int, default=200, help="items of each job to report on")
    parser.add_argument("--items", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--trials", type=int, default=40, help="of a campaign")
    parser.add_argument("--seconds", type=float, help="of fine-tuning at each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=(), help="of fine-tuning")
    parser.add_argument("--again", action="store_true", help="run also what is there")
    parser.add_argument("--keep", action="store_true", help="keep the campaigns' results folders")
    results = Path("results/search")
    parser.add_argument("--out", type=Path, default=results / "against_fine_tuning.json")
    parser.add_argument("--folder", type=Path, default=results / "against_fine_tuning")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
