"""How the embedded models were made, from artwork to weights.

``python -m denoscope.models.zoo.training --help`` shows the steps.
"""
