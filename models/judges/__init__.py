"""Frozen scorers of pictures: the embedded ones, CLIP, SigLIP, image classifiers, functions."""

from .choosing import CallableJudge, TextJudge, any_judge, callable_judge
from .classifier import ClassifierJudge, classifier_judge
from .clip import ClipJudge, clip_judge
from .embedded import Attributes, ImageTower, Judge, load_judge, read_judge

__all__ = [
    "Attributes",
    "CallableJudge",
    "ClassifierJudge",
    "ClipJudge",
    "ImageTower",
    "Judge",
    "TextJudge",
    "any_judge",
    "callable_judge",
    "classifier_judge",
    "clip_judge",
    "load_judge",
    "read_judge",
]
