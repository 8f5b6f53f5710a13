"""A session over the exact run, and how far to take it."""

from dataclasses import replace

from comfyui_calibri.calibri.session import Session

from .exact_run import CONFIG, SPACE, ExactEvaluator

FIVE = replace(CONFIG, generations=5)


def begin(journal, evaluator=None, config=FIVE, **callbacks):
    return Session(config, SPACE, evaluator or ExactEvaluator(), journal, **callbacks)


def to_the_end(session):
    while session.advance():
        pass
    return session.outcome


def until(session, phase, generation):
    """Advance to the first rest in this phase of this generation."""
    while (session.phase, session.generation) != (phase, generation):
        assert session.advance()
