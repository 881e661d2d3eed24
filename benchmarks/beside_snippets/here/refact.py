"""One word read as another by one layer of the text encoder, its value found by optimisation."""

import denoscope
from denoscope.editing import refact
from denoscope.models import zoo


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    captions = list(zoo.data().captions.texts)[: task.captions]
    return refact(model, {task.word: task.target}, captions=captions)


def use(model, task, edit):
    edit.apply(model)
