"""Differentially private similarity: sketches released once and queried for ever."""

from __future__ import annotations

from probkit.similarity.bandwidth import BandwidthChoice, choose_bandwidth
from probkit.similarity.classifier import ClassSketch, PrivateClassifier
from probkit.similarity.data_models import GaussianMixtureRecords, GaussianRecords
from probkit.similarity.design import Answer
from probkit.similarity.distance import PrivateDistance
from probkit.similarity.kde import PrivateKDE
from probkit.similarity.noise_aware import NoiseAwareModel
from probkit.similarity.recommendation import Recommendation, recommend
from probkit.similarity.regression import PrivateGPRegression
from probkit.similarity.release import Release
from probkit.similarity.release_likelihood import ReleaseLikelihood
from probkit.similarity.rff_kernel import PrivateRFFKernel
from probkit.similarity.sketch import Sketch
from probkit.similarity.spectral_laws import KERNELS, CompletelyMonotone

__all__ = [
    "KERNELS",
    "Answer",
    "BandwidthChoice",
    "ClassSketch",
    "CompletelyMonotone",
    "GaussianMixtureRecords",
    "GaussianRecords",
    "NoiseAwareModel",
    "PrivateClassifier",
    "PrivateDistance",
    "PrivateGPRegression",
    "PrivateKDE",
    "PrivateRFFKernel",
    "Recommendation",
    "Release",
    "ReleaseLikelihood",
    "Sketch",
    "choose_bandwidth",
    "recommend",
]
