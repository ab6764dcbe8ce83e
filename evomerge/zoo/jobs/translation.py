"""Translation between two small invented languages, both directions.

Norsu is subject-verb-object with the adjective before its noun; adjectives agree with the noun's
class and number, the verb bears tense and the subject's number. Tavi is subject-object-verb with
the adjective after its noun; the object is marked, adjectives agree with another class system,
the verb agrees with the subject's class, and tense is a word at the end. Both have negation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from evomerge.zoo.jobs.draft import Draft


@dataclass(frozen=True)
class Phrase:
    """A noun with its number and, perhaps, an adjective."""

    noun: str
    plural: bool
    adjective: str | None


@dataclass(frozen=True)
class Clause:
    """What a sentence means, in neither language."""

    subject: Phrase
    verb: str
    object: Phrase | None
    tense: str
    negated: bool


def draw(rng: Random) -> Draft:
    """Draw a sentence and its translation; the content that decides the split is the meaning."""
    clause = _clause(rng)
    ways = (("Norsu", norsu), ("Tavi", tavi))
    (_, source), (target, translate) = ways if rng.random() < 0.5 else ways[::-1]
    text = translate(clause)
    wrong = dict.fromkeys(translate(other) for other in _near(rng, clause))
    return Draft(
        content=repr(clause),
        turns=(rng.choice(REQUESTS).format(target=target, text=source(clause)),),
        answers=(
            text,
            f"In {target}: {text}.",
            f'"{text}"',
            f"{source(clause)} = {text}",
        ),
        wrong=tuple(other for other in wrong if other != text),
    )


def norsu(clause: Clause) -> str:
    """Say a clause in Norsu."""
    verb = NORSU[clause.verb] + {"now": "e", "past": "it", "later": "ur"}[clause.tense]
    words = [*_norsu_phrase(clause.subject), *(["ma"] if clause.negated else [])]
    words.append(verb + ("n" if clause.subject.plural else ""))
    return " ".join(words + (_norsu_phrase(clause.object) if clause.object else []))


def tavi(clause: Clause) -> str:
    """Say a clause in Tavi."""
    words = _tavi_phrase(clause.subject, marked=False)
    if clause.object:
        words += _tavi_phrase(clause.object, marked=True)
    ending = "im" if clause.subject.noun in TAVI_HIGH else "ok"
    words.append(TAVI[clause.verb] + ending)
    words += {"now": [], "past": ["ru"], "later": ["zi"]}[clause.tense]
    return " ".join(words + (["ne"] if clause.negated else []))


def _norsu_phrase(phrase: Phrase) -> list[str]:
    end = "s" if phrase.plural else ""
    vowel = "a" if phrase.noun in NORSU_SOFT else "o"
    adjective = [NORSU[phrase.adjective] + vowel + end] if phrase.adjective else []
    return [*adjective, NORSU[phrase.noun] + end]


def _tavi_phrase(phrase: Phrase, *, marked: bool) -> list[str]:
    noun = TAVI[phrase.noun] + ("ta" if marked else "")
    vowel = "i" if phrase.noun in TAVI_HIGH else "u"
    adjective = [TAVI[phrase.adjective] + vowel] if phrase.adjective else []
    return [*(["lo"] if phrase.plural else []), noun, *adjective]


def _clause(rng: Random) -> Clause:
    return Clause(
        subject=_phrase(rng),
        verb=rng.choice(VERBS),
        object=_phrase(rng) if rng.random() < 0.8 else None,
        tense=rng.choice(("now", "past", "later")),
        negated=rng.random() < 0.25,
    )


def _phrase(rng: Random) -> Phrase:
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.5 else None
    return Phrase(rng.choice(NOUNS), rng.random() < 0.4, adjective)


def _near(rng: Random, clause: Clause) -> list[Clause]:
    """Clauses that differ in one thing, among them the one with subject and object exchanged."""
    subject = clause.subject
    near = [
        replace(clause, subject=replace(subject, plural=not subject.plural)),
        replace(
            clause, tense=rng.choice([t for t in ("now", "past", "later") if t != clause.tense])
        ),
        replace(clause, negated=not clause.negated),
        replace(clause, verb=rng.choice([verb for verb in VERBS if verb != clause.verb])),
        replace(
            clause,
            subject=replace(subject, noun=rng.choice([n for n in NOUNS if n != subject.noun])),
        ),
    ]
    if clause.object and clause.object != subject:
        near.append(replace(clause, subject=clause.object, object=subject))
    return rng.sample(near, len(near))


REQUESTS = ("To {target}: {text}", "{target}? {text}", "Say in {target}: {text}")
NOUNS = ("dog", "child", "king", "fish", "tree", "house", "bird", "stone", "river", "girl")
VERBS = ("sees", "loves", "takes", "seeks", "hears", "finds")
ADJECTIVES = ("big", "old", "new", "good", "sad")
NORSU_SOFT = frozenset({"dog", "king", "tree", "bird", "girl"})
TAVI_HIGH = frozenset({"dog", "child", "tree", "house", "river"})
NORSU = {
    **{"dog": "kal", "child": "mone", "king": "rud", "fish": "selin", "tree": "bavo"},
    **{"house": "torik", "bird": "pilu", "stone": "gam", "river": "lenda", "girl": "fiso"},
    **{"sees": "dor", "loves": "mil", "takes": "kep", "seeks": "sav", "hears": "nub"},
    **{"finds": "tel", "big": "gran", "old": "vet", "new": "nov", "good": "bel", "sad": "tris"},
}
TAVI = {
    **{"dog": "wuko", "child": "yat", "king": "oshe", "fish": "heba", "tree": "jun"},
    **{"house": "akari", "bird": "zem", "stone": "quil", "river": "isho", "girl": "nawe"},
    **{"sees": "pash", "loves": "huv", "takes": "chol", "seeks": "yeg", "hears": "wim"},
    **{"finds": "jat", "big": "mbu", "old": "tek", "new": "shay", "good": "ori", "sad": "vath"},
}
