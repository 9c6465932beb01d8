"""Names of the bundled data sets; imports nothing, so that a shell completes them at once."""

from __future__ import annotations

__all__ = ["DATASETS", "WHOLE"]

DATASETS = {
    "sst": "Pacific winter sea-surface temperature anomalies, 50 winters x 18 x 30 (eofs, GPL-3.0)",
    "kinetic": "kinetic fluorescence, 64 x 12 x 10 x 60 (tensorly; source site's terms)",
    "il2": "IL-2 response, 13 ligands x 4 times x 12 doses x 8 cells (tensorly; Univ. California)",
    "indian_pines": "hyperspectral image, 145 x 145 x 200 (tensorly, CC BY 3.0)",
    "elnino": "El Nino sea-surface temperature, 61 years x 12 months (statsmodels, public domain)",
    "sp500_volatility": "log Garman-Klass volatility of the S&P 500, 5031 days, 1999-2018 (arch)",
    "vix": "log of the VIX volatility index, 1305 weekdays, 2014-2018 (arch)",
    "nile": "annual flow of the Nile at Aswan, 100 years (statsmodels, public domain)",
}
"""Name and one line on each data set, with the package that carries it and the licence."""

WHOLE = {"sst": {"time": 2}}
"""Whole slices that the standard hold-out of a data set hides, by input"""
