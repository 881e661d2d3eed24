"""A direction between two attributes, and one picture at two strengths of it."""

import denoscope
from denoscope.analysis import token_direction


def start(source, task):
    model = denoscope.load(source)
    woman, man = ([f"a noto emoji of a {who} {job}" for job in task.jobs] for who in ("woman", "man"))
    return model, token_direction(model, woman, man, task.jobs)


def work(started, task):
    model, direction = started
    return denoscope.steered(
        model, direction, [task.prompt], seeds=[0], strengths=[0, 1], subject=task.subject, steps=task.steps
    )
