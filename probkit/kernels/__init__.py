"""GPyTorch kernels: Markov processes, which know their state space, and sparse regression."""

from probkit.kernels.categorical import CategoricalKernel
from probkit.kernels.composition import MarkovProductKernel, MarkovScaleKernel, MarkovSumKernel
from probkit.kernels.kronecker_sparse import KroneckerSBLKernel
from probkit.kernels.markov import MarkovKernel
from probkit.kernels.matern import MaternKernel
from probkit.kernels.named import KERNEL_NAMES, kernel_from_name
from probkit.kernels.periodic import CosineKernel, PeriodicKernel, QuasiPeriodicKernel
from probkit.kernels.wiener import IntegratedWienerKernel, WienerKernel

__all__ = [
    "KERNEL_NAMES",
    "CategoricalKernel",
    "CosineKernel",
    "IntegratedWienerKernel",
    "KroneckerSBLKernel",
    "MarkovKernel",
    "MarkovProductKernel",
    "MarkovScaleKernel",
    "MarkovSumKernel",
    "MaternKernel",
    "PeriodicKernel",
    "QuasiPeriodicKernel",
    "WienerKernel",
    "kernel_from_name",
]
