"""What is asked of the words of a model: bias, kinds of pairs, and which words a picture hangs on.

The experiments of DiffusionPID (Dewan, Zawar et al., NeurIPS 2024) and of Kong et al. (ICLR 2024,
arXiv:2310.07972), each beside what it claims to measure, with intervals.
"""
