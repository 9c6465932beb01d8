"""GPyTorch kernels: Markov processes, mixture spectra, fractional motion, and sparse regression."""

from probkit.kernels.categorical import CategoricalKernel
from probkit.kernels.composition import MarkovProductKernel, MarkovScaleKernel, MarkovSumKernel
from probkit.kernels.fractional import (
    FractionalBrownianKernel,
    FractionalNoiseKernel,
    MarkovFractionalKernel,
)
from probkit.kernels.kronecker_sparse import KroneckerSBLKernel
from probkit.kernels.markov import MarkovKernel
from probkit.kernels.matern import MaternKernel
from probkit.kernels.named import KERNEL_NAMES, kernel_from_name
from probkit.kernels.periodic import CosineKernel, PeriodicKernel, QuasiPeriodicKernel
from probkit.kernels.spectral import HarmonicFeatures, SpectralMixtureKernel
from probkit.kernels.spectral_derivatives import SpectralDerivativeKernel
from probkit.kernels.wiener import IntegratedWienerKernel, WienerKernel

__all__ = [
    "KERNEL_NAMES",
    "CategoricalKernel",
    "CosineKernel",
    "FractionalBrownianKernel",
    "FractionalNoiseKernel",
    "HarmonicFeatures",
    "IntegratedWienerKernel",
    "KroneckerSBLKernel",
    "MarkovFractionalKernel",
    "MarkovKernel",
    "MarkovProductKernel",
    "MarkovScaleKernel",
    "MarkovSumKernel",
    "MaternKernel",
    "PeriodicKernel",
    "QuasiPeriodicKernel",
    "SpectralDerivativeKernel",
    "SpectralMixtureKernel",
    "WienerKernel",
    "kernel_from_name",
]
