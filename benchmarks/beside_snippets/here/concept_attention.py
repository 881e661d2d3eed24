"""Where three concepts are in a picture."""

import denoscope
from denoscope.analysis import concept_maps


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    how = {"seeds": [0], "steps": task.steps, "guidance": 1.0, "within": task.within, "score": "softmax"}
    return concept_maps(model, [task.prompt], task.concepts, **how).maps
