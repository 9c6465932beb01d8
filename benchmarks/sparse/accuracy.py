"""S5, S6, S12, S14: accuracy on synthetic problems."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, median

from benchmarks.frame import Context, Line, row
from probkit.sparse import (
    KroneckerSBL,
    nmse,
    oracle_least_squares,
    simulate_recovery,
    support_recovery,
)


@row("S5", "x of rank one, three SNRs")
def rank_one(context: Context) -> Iterator[Line]:
    for snr in (5, 15, 25):
        errors: dict[str, list[float]] = {"evidence": [], "svd": [], "am": []}
        for seed in range(context.size(20, 2)):
            p = simulate_recovery(structure="rank1", snr_db=float(snr), seed=seed)
            for method, found in errors.items():
                recovered = KroneckerSBL(method, noise=p.noise).recover(p.y, p.dictionaries)
                found.append(nmse(recovered.mean, p.x))
        ours, svd, am = (errors[m] for m in ("evidence", "svd", "am"))
        yield Line(f"mean_{snr}", f"{snr} dB: mean NMSE (baseline: SVD)", fmean(ours), fmean(svd))
        what = f"{snr} dB: median NMSE (baseline: SVD)"
        yield Line(f"median_{snr}", what, median(ours), median(svd))
        yield Line(f"am_{snr}", f"{snr} dB: mean NMSE (baseline: AM)", fmean(ours), fmean(am))


@row("S6", "x free on a Kronecker support")
def free(context: Context) -> Iterator[Line]:
    for snr in (5, 15):
        ours, svd, oracle, srr = [], [], [], []
        for seed in range(context.size(20, 2)):
            p = simulate_recovery(snr_db=float(snr), seed=seed)
            found = KroneckerSBL(noise=p.noise).recover(p.y, p.dictionaries)
            ours.append(nmse(found.mean, p.x))
            srr.append(support_recovery(found.mean, p.x))
            other = KroneckerSBL("svd", noise=p.noise).recover(p.y, p.dictionaries)
            svd.append(nmse(other.mean, p.x))
            oracle.append(nmse(oracle_least_squares(p.y, p.dictionaries, p.x), p.x))
        yield Line(f"oracle_{snr}", f"{snr} dB: mean NMSE (oracle)", fmean(ours), fmean(oracle))
        yield Line(f"svd_{snr}", f"{snr} dB: mean NMSE (baseline: SVD)", fmean(ours), fmean(svd))
        yield Line(f"srr_{snr}", f"{snr} dB: mean support recovery", fmean(srr))


@row("S12", "noise learned")
def noise(context: Context) -> Iterator[Line]:
    ratios = []
    for seed in range(context.size(20, 2)):
        p = simulate_recovery(snr_db=20.0, seed=seed)
        ratios.append(float(KroneckerSBL().recover(p.y, p.dictionaries).noise) / p.noise)
    yield Line("mean", "mean estimated over true noise variance", fmean(ratios))
    yield Line("least", "the least of them", min(ratios))


@row("S14", "snapshots")
def snapshots(context: Context) -> Iterator[Line]:
    found: dict[int, list[float]] = {1: [], 4: []}
    for seed in range(context.size(10, 2)):
        for count, rates in found.items():
            p = simulate_recovery(
                num_measurements=(5, 6, 7), snr_db=15.0, num_snapshots=count, seed=seed
            )
            recovered = KroneckerSBL().recover(p.y, p.dictionaries, snapshots=True)
            rates.append(support_recovery(recovered.mean, p.x))
    four, one = fmean(found[4]), fmean(found[1])
    yield Line("four", "mean support recovery, 4 snapshots (baseline: 1)", four, one)
    yield Line("gain", "4 snapshots less 1", four - one)
