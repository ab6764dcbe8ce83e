import pytest


def test_workers_are_as_many_as_the_machine_holds_unless_counted(read):
    assert read().workers.count == "auto"
    workers = read(new="workers: {count: 0, gpus: 0.5, batch_tokens: 4096}\n").workers
    assert (workers.count, workers.gpus, workers.batch_tokens) == (0, 0.5, 4096)
    assert (workers.cpus, workers.retries) == (1, 2)


def test_the_scorer_is_resident_unless_lm_evals(read):
    assert read().scorer.backend == "resident"
    scorer = read(new="scorer: {backend: hf, args: {batch_size: 4}}\n").scorer
    assert (scorer.backend, scorer.args) == ("hf", {"batch_size": 4})


def test_what_weights_are_quantised_to_is_named_by_whoever_does_it(read):
    assert read().scorer.quantised_to == ""
    assert read(new="scorer: {quantise: nf4}\n").scorer.quantised_to == "nf4"
    vllm = read(new="scorer: {backend: vllm, args: {quantization: fp8}}\n").scorer
    assert vllm.quantised_to == "fp8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: {count: -1}", "c.yaml:11: workers.count: found -1, expected"),
        ("workers: {count: many}", 'c.yaml:11: workers.count: found "many", expected'),
        ("workers: {cpus: 0}", "c.yaml:11: workers.cpus: found 0, expected more than 0"),
        ("workers: {gpus: -1}", "c.yaml:11: workers.gpus: found -1"),
        (
            "workers: {gpus: 1.5}",
            "c.yaml:11: workers.gpus: found 1.5, expected a fraction of one GPU, such as 0.5, or a whole "
            "number of them",
        ),
        ("workers: {retries: -1}", "c.yaml:11: workers.retries: found -1"),
        ("workers: {cpu: 1}", 'c.yaml:11: workers.cpu: unknown key "cpu"; did you mean "cpus"?'),
        ("scorer: {args: {x: 1}}", "c.yaml:11: scorer.args: args are for vLLM and"),
        ("scorer: {quantise: nf5}", 'c.yaml:11: scorer.quantise: found "nf5"'),
        (
            "scorer: {quantise: nf4, backend: vllm}",
            "c.yaml:11: scorer.quantise: is of the resident scorer",
        ),
        ("scorer: {backend: ''}", 'c.yaml:11: scorer.backend: found ""'),
    ],
)
def test_wrong_workers_are_refused(refusal, text, message):
    assert message in refusal(new=f"{text}\n")
