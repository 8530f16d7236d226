"""Fifteen ways in which photographs are spoilt, each in five severities, after ImageNet-C.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019. Every one is drawn anew by
a seed and needs no file: frost, which is cut from photographs there, is grown here. For images of at most 64 pixels the severities are
those of CIFAR-10-C, for larger ones those of ImageNet-C; lengths follow the size of the image.
"""
