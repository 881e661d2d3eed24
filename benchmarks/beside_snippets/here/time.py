"""An assumption: what says nothing of a colour is read as blue; the edit on the model."""

import denoscope
from denoscope.editing import time


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    return time(model, {task.source: task.destination})


def use(model, task, edit):
    edit.apply(model)
