"""Study: classification by mean similarity in one private release, against DP-SGD.

    python models/private_classification.py --out results   # digits and simulated embeddings
    python models/private_classification.py --smoke         # simulated, small, under a minute

Both sides protect the same thing: one labelled record added or removed, (epsilon, 1e-5)-DP. The
other side is logistic regression by Opacus (Poisson batches, clipping at 1, noise set by its own
accountant), as the extra "bench" installs it. The similarity is a lower bar on little data and a
thousand times quicker on embeddings.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from probkit.infer.provenance import versions
from probkit.plot import plot_curves
from probkit.report import write_report
from probkit.similarity import PrivateClassifier

DELTA = 1e-5
CLASSES = 10


class Split(NamedTuple):
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def embeddings(size: int, dim: int, seed: int) -> Split:
    """Simulated features of a network: rectified class means plus noise, scaled to norm 1."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CLASSES, dim, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (size,), generator=generator)
    noise = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    return split((means[y] + 1.5 * noise).clamp_min(0), y, generator)


def digits(seed: int) -> Split:
    """1797 handwritten digits of 8 x 8 pixels (scikit-learn, from UCI)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.as_tensor(data.data, dtype=torch.float64)
    return split(x, torch.as_tensor(data.target), torch.Generator().manual_seed(seed))


def split(x: Tensor, y: Tensor, generator: torch.Generator) -> Split:
    """Rows of norm 1; three in ten for the test."""
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    order = torch.randperm(len(x), generator=generator)
    test, train = order[: 3 * len(x) // 10], order[3 * len(x) // 10 :]
    return Split(x[train], y[train], x[test], y[test])


def by_similarity(data: Split, epsilon: float) -> tuple[float, float]:
    """Accuracy and CPU seconds; the bandwidth is fixed beforehand, since rows have norm 1."""
    start = time.process_time()
    model = PrivateClassifier(
        range(CLASSES),
        bandwidth=1.0,
        num_features=1024,
        epsilon=epsilon,
        delta=DELTA,
        relation="add_remove",
    )
    accuracy = model.fit(data.x, data.y).score(data.test_x, data.test_y)
    return accuracy, time.process_time() - start


def by_gradients(data: Split, epsilon: float, steps: int, seed: int) -> tuple[float, float]:
    """Accuracy and CPU seconds of logistic regression by DP-SGD."""
    from opacus import PrivacyEngine

    start = time.process_time()
    torch.manual_seed(seed)
    model = torch.nn.Linear(data.x.shape[1], CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=4.0)
    batch = min(1024, len(data.x) // 2)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data.x.float(), data.y), batch_size=batch
    )
    epochs = max(1, round(steps * batch / len(data.x)))
    with warnings.catch_warnings():
        # Opacus warns that its generator is not for production, and of hooks on the inputs
        warnings.simplefilter("ignore")
        model, optimizer, loader = PrivacyEngine(accountant="rdp").make_private_with_epsilon(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            epochs=epochs,
            target_epsilon=epsilon,
            target_delta=DELTA,
            max_grad_norm=1.0,
        )
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    with torch.no_grad():
        accuracy = float((model(data.test_x.float()).argmax(1) == data.test_y).double().mean())
    return accuracy, time.process_time() - start


def draw(scores: dict[str, dict[str, dict[str, float]]], out: Path) -> dict[str, str]:
    """A figure a data set, accuracy against epsilon; file names by caption."""
    figures = {}
    for title, methods in scores.items():
        path = out / "figures" / f"accuracy_{title}.png"
        accuracies = {
            name: {float(k): v for k, v in found.items() if k != "seconds"}
            for name, found in methods.items()
        }
        curves = {name: (list(found.values()),) * 3 for name, found in accuracies.items()}
        epsilons = list(next(iter(accuracies.values())))
        plot_curves(epsilons, curves, ("epsilon", "accuracy"), path, log_x=True)
        figures[f"Accuracy on {title}"] = path.relative_to(out).as_posix()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small, quick, on simulated data")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="private_classification_"))
    out.mkdir(parents=True, exist_ok=True)

    budgets = (4.0,) if options.smoke else (0.5, 1.0, 2.0, 8.0)
    sets = {"embeddings": embeddings(*((3000, 32) if options.smoke else (20_000, 512)), seed=1)}
    if not options.smoke:
        sets["digits"] = digits(options.seed)
    opacus = importlib.util.find_spec("opacus") is not None
    if not opacus:
        print('DP-SGD is left out: pip install "probkit[bench]" for Opacus')
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for title, data in sets.items():
        methods = {"similarity": lambda e, data=data: by_similarity(data, e)}
        if opacus:
            steps = 20 if options.smoke else 300
            methods["DP-SGD"] = lambda e, data=data, steps=steps: by_gradients(
                data, e, steps, options.seed
            )
        scores[title] = {}
        for name, fit in methods.items():
            found = {e: fit(e) for e in budgets}
            table = {str(e): accuracy for e, (accuracy, _) in found.items()}
            seconds = sum(cost for _, cost in found.values()) / len(found)
            scores[title][name] = {**table, "seconds": seconds}
            text = ", ".join(f"{e}: {accuracy:.3f}" for e, accuracy in table.items())
            print(f"{title}, {name}: {text}; {seconds:.2f} CPU s a fit")
    record = {
        "title": "Private classification by similarity and by gradients",
        "data": {"relation": "add_remove", "delta": DELTA},
        "scores": scores,
        "figures": draw(scores, out),
        "versions": versions(),
    }
    print(f"report: {write_report(out, record)}")


if __name__ == "__main__":
    main()
