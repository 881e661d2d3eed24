"""What one module gives, at every step of two prompts."""

import denoscope


def start(source, task):
    return denoscope.load(source)


def work(model, task):
    run = denoscope.trace(model, task.prompts, seeds=[0, 1], steps=task.steps, sites=task.site)
    return run[task.site]
