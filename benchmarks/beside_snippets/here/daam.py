"""Where a word is read, in four pictures."""

import denoscope
from denoscope.analysis import word_maps


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    how = {"seeds": range(4), "steps": task.steps, "settings": "code"}
    return word_maps(model, task.prompts, [task.word], **how).maps
