"""Which layers have to read another prompt for its picture to be painted: each alone, scored."""

import denoscope
from denoscope.analysis import locogen
from denoscope.analysis.metrics import latent_distance


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    how = {"seeds": [0], "steps": task.steps, "metric": latent_distance(), "widest": 1}
    return locogen(model, [task.prompt], [task.other], **how)
