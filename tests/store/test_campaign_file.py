from __future__ import annotations

from pathlib import Path

from evomerge.config import Campaign
from evomerge.store.campaign_file import difference, with_facts, with_trials


def test_facts_are_read_by_people_and_ignored_by_programs(
    campaign: Campaign, tmp_path: Path
) -> None:
    text = with_facts(campaign, {"items": {"task": {"search": ["a1", "b2"]}}})
    (tmp_path / "campaign.yaml").write_text(text)
    assert Campaign.load(tmp_path / "campaign.yaml") == campaign
    assert "#       search: [a1, b2]" in text


def test_the_budget_alone_is_changed(campaign: Campaign) -> None:
    more = with_trials(campaign, 999)
    assert more.search.trials == 999
    assert difference(campaign, more) == "search.trials"
    assert with_trials(more, campaign.search.trials) == campaign


def test_a_difference_is_named(campaign: Campaign) -> None:
    assert difference(campaign, campaign) is None
    goals = campaign.objectives[:1]
    assert difference(campaign, campaign.model_copy(update={"objectives": goals})) == "objectives"
    prompt = campaign.prompt.model_copy(update={"apply_chat_template": True})
    changed = campaign.model_copy(update={"prompt": prompt})
    assert difference(campaign, changed) == "prompt.apply_chat_template"
