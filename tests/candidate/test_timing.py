from evomerge.candidate.timing import Timing


def test_tokens_a_second_count_what_each_prompt_is_continued_by() -> None:
    assert Timing(50.0, 25.0, 2.0, 0.1, tokens=8).tokens_per_second == 160.0
