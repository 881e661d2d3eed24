"""One word read as another by all layers that read the text, two others kept; the edit on the model."""

import denoscope
from denoscope.editing import uce


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    return uce(model, {task.word: task.target}, keep=["", *task.kept])


def use(model, task, edit):
    edit.apply(model)
