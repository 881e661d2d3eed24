"""Features that a class hangs on, of a dictionary trained here; and pictures with them made stronger."""

import denoscope
from denoscope.analysis import bias_features
from denoscope.guidance import Asymmetric
from denoscope.probes import Learning, train_dictionary


def start(source, task):
    model, texts = denoscope.load(source), [*task.classes["woman"], *task.classes["man"]]
    how = {"steps": task.steps, "guidance": 1.0}
    learning = Learning(updates=task.updates, rows=256)
    dictionary = train_dictionary(model, task.site, texts, seeds=range(len(texts)), learning=learning, **how)
    found = bias_features(model, dictionary, task.classes, seeds=range(task.pictures), **how)
    return model, found.towards(dictionary, "woman", 0.5, features=8, branch="edited")


def work(started, task):
    model, push = started
    how = {"steps": task.steps, "guidance": Asymmetric(), "seeds": range(task.pictures)}
    return denoscope.trace(model, task.classes["man"], interventions=[push], **how).images
