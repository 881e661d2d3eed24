"""A steering vector from the means of two classes at the first step; pictures with it and without."""

import denoscope
from denoscope.analysis import site_direction


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    d = site_direction(model, task.site, task.positive, task.negative, seeds=[0], steps=1)
    return denoscope.steered(model, d, task.prompts, seeds=[0], strengths=[0, 2], steps=task.steps)
