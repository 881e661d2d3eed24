"""The strongest feature of what a block adds to a picture, and the picture with more of it."""

import denoscope
from denoscope.probes import Learning, train_dictionary


def start(source, task):
    model = denoscope.load(source)
    learning = Learning(updates=task.updates, rows=256)
    run = {"seeds": range(len(task.train)), "steps": task.steps, "kind": "update", "source": task.before}
    return model, train_dictionary(model, task.site, task.train, learning=learning, **run)


def work(started, task):
    model, dictionary = started
    run = {"seeds": [0], "steps": task.steps}
    seen = denoscope.trace(model, [task.prompt], sites=[task.before, task.site], **run)
    codes = dictionary.encode(seen[task.site] - seen[task.before])
    strongest = int(codes.dense().flatten(0, -2).mean(0).argmax())
    return denoscope.trace(model, [task.prompt], interventions=[dictionary.edit(strongest, scale=3.0)], **run)
