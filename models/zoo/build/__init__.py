"""How the embedded models were made, from artwork to weights.

``python -m denoscope.models.zoo.build --help`` shows the steps.
"""
