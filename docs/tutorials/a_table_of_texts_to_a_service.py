# %% [markdown]
# # A table of texts to a service
#
# A library answers questions at its desk, and wants a program to sort those that come by mail: six kinds of questions, six examples
# of each. On this page they become a package that answers a text; we find out how good it is and what it does not know, let it
# learn a seventh kind while questions come in, and put it behind HTTP. It needs the extras `text` and `serve` (`pip install
# 'mapsto[text,serve]'`); the encoder, MiniLM, knows English.
#
# $$(\text{a pretrained encoder},\ \text{thirty-six texts}) \;\mapsto\; \text{a package}$$

# %%
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())


def mapsto(*arguments):
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout, done.stderr


# %% [markdown]
# ## 1. The table
#
# A column of texts and one of what they are. The names of the kinds say what they mean: each counts as one more example, and with few
# examples that helps a lot.

# %%
QUESTIONS = {
    "opening hours": [
        "when do you open tomorrow?", "are you open on Sundays", "until what time can I come today",
        "is the reading room closed over Christmas", "what are your hours in summer", "do you close at noon",
    ],
    "renew a loan": [
        "I need another two weeks for my book", "can I keep the novel longer?", "please extend my loans",
        "my book is due today and I am not done", "how do I renew online", "prolong the three items on my card",
    ],
    "lost card": [
        "I can't find my library card", "my wallet was stolen with my card in it", "I lost my pass, what now",
        "need a replacement card", "my card broke in two", "somebody may be using my card",
    ],
    "reserve a book": [
        "put me on the waiting list for Dune", "the cookbook is out, can you hold it for me?", "reserve the new Ferrante please",
        "I'd like to order a title from another branch", "how long is the queue for this book", "can I place a hold by phone",
    ],
    "fees and fines": [
        "why do I owe 4.50", "what does it cost to be late a week?", "I want to pay my fine",
        "is there a fee for students", "you charged me twice", "I damaged a book, how much is it",
    ],
    "computers and printing": [
        "how do I print from my laptop", "the wifi password does not work", "can I scan to a stick here",
        "is there a computer that I can use", "the printer on the second floor is jammed", "how many pages may I copy",
    ],
}  # fmt: skip

with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
    rows = csv.writer(file)
    rows.writerow(["question", "kind"])
    rows.writerows([text, kind] for kind, texts in QUESTIONS.items() for text in texts)

# %% [markdown]
# ## 2. One command
#
# How to adapt is chosen by cross-validation on the examples themselves, and the same says how often the package will be right.

# %%
out, _ = mapsto(
    "adapt", "questions.csv", "--text", "question", "--target", "kind", "--minutes", 0, "--out", "runs/desk"
)
print(out)

# %% [markdown]
# What comes out is a folder: the network for ONNX Runtime, the tokenizer that splits texts into the pieces it knows, and a manifest.
# A machine that only answers needs `mapsto-runtime[text]` and neither PyTorch nor transformers.

# %%
for path in sorted((folder / "runs/desk/package").iterdir()):
    print(f"{path.name:16} {path.stat().st_size:12,} bytes")
print(mapsto("predict", "runs/desk", "do you have longer hours before exams?", "may I keep it until Friday")[0])

# %% [markdown]
# ## 3. How good is it?
#
# On questions that it has never seen, with the mistakes one by one:

# %%
HELD_OUT = [
    ("what time does the library shut on Saturday", "opening hours"),
    ("are you open on public holidays?", "opening hours"),
    ("could I get more time for the atlas", "renew a loan"),
    ("two more weeks please, I read slowly", "renew a loan"),
    ("the dog ate my library card", "lost card"),
    ("block my card, it is gone", "lost card"),
    ("save me a copy when it comes back", "reserve a book"),
    ("is someone before me for the atlas?", "reserve a book"),
    ("how high is the late charge", "fees and fines"),
    ("I'd like to settle what I owe", "fees and fines"),
    ("nothing comes out of the copier", "computers and printing"),
    ("where can I charge and use my own laptop", "computers and printing"),
]
with (folder / "held_out.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("question", "kind"), *HELD_OUT])
said, _ = mapsto("predict", "runs/desk", "held_out.csv", "--json", "--top", 6)
answers = json.loads(said)
for (text, kind), answer in zip(HELD_OUT, answers, strict=True):
    mark = " " if answer["label"] == kind else "✗"
    print(f"{mark} {answer['probability']:.2f}  {answer['label']:24} {text}")
right = np.mean([answer["label"] == kind for (_, kind), answer in zip(HELD_OUT, answers, strict=True)])
assert right >= 0.75

# %%
kinds = list(QUESTIONS)
shares = np.array([[answer["top"].get(kind, 0.0) for kind in kinds] for answer in answers])
figure, axis = plt.subplots(figsize=(8, 4.2))
shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
axis.set_xticks(range(len(kinds)), kinds, rotation=20, ha="right")
axis.set_yticks(range(len(HELD_OUT)), [text for text, _ in HELD_OUT], fontsize=8)
for row, (_, kind) in enumerate(HELD_OUT):
    axis.add_patch(plt.Rectangle((kinds.index(kind) - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black"))
figure.colorbar(shown, label="probability")
axis.set_title("questions that it has not seen; the true kind is framed")
# %% [markdown]
# ## 4. What it does not know
#
# It answers every text with one of six kinds, also where none fits: a recipe for soup becomes a reservation, and the probability is no
# guard. And it knows English: of German and Japanese it sees pieces that mean nothing to it. With `--out-of-scope` the package says "none
# of these" instead; [Tasks on texts](../text_tasks.md) shows how, and how often that is right.

# %%
for text in ("simmer the leeks for twenty minutes", "Ich habe meinen Ausweis verloren", "図書館は何時に開きますか"):
    said, noted = mapsto("predict", "runs/desk", text)
    print(said.strip(), noted.strip(), sep="\n")

# %% [markdown]
# ## 5. New kinds while questions come in
#
# Nobody thought of questions about rooms. On a stream each question is answered before its kind is told, and then learnt from; a kind that
# was never seen is just learnt. The encoder stays as it is, and only a ridge regression on its features changes.

# %%
ROOMS = [
    "is a group room free at three?", "book the small study room", "can eight of us meet somewhere quiet",
    "cancel my room for tomorrow", "does the seminar room have a screen", "I want the room for two hours",
    "where do I get the key of the meeting room", "may we eat in the group room",
]  # fmt: skip
generator = np.random.default_rng(0)
first = [(text, kind) for kind, texts in QUESTIONS.items() for text in texts]
generator.shuffle(first)
later = [*[(text, "rooms") for text in ROOMS], *HELD_OUT]
generator.shuffle(later)
with (folder / "stream.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("question", "kind"), *first, *later])
_, _ = mapsto(
    "stream",
    "stream.csv",
    "--text",
    "question",
    "--target",
    "kind",
    "--predictions",
    "answers.csv",
    "--out",
    "runs/learning",
)
with (folder / "answers.csv").open(encoding="utf-8") as file:
    told = list(csv.DictReader(file))
print({name: told[-1][name] for name in list(told[-1])[:4]})

# %% [markdown]
# ## 6. Behind HTTP
#
# The package is served as any other: `mapsto serve runs/desk` prints an address, a key, and lines for `curl` that work. A text is the input
# `text`; clients may bring kinds of their own, and labels for answers become new versions.

# %%
import re
import time

from mapsto.service.client import Client

log = (folder / "serve.log").open("w+")
service = subprocess.Popen(
    [sys.executable, "-m", "mapsto", "serve", "runs/desk", "--port", "0"],
    cwd=folder,
    stdout=log,
    stderr=subprocess.STDOUT,
)
while "feedback" not in (text := (folder / "serve.log").read_text()) and service.poll() is None:
    time.sleep(0.2)
client = Client(re.search(r"http://[\d.:]+", text)[0], re.search(r"for this run: (\S+)", text)[1])
try:
    print(client.infer("desk", ["my pass is gone", "how late are you there today"]).labels)
    own = client.adapt(
        "desk",
        ["thank you so much!", "great service", "this is a shame", "I am angry"],
        ["praise", "praise", "complaint", "complaint"],
    )
    print(client.infer("desk", ["you were so kind", "what a mess"], version=own).labels)
finally:
    service.terminate()
    service.wait(timeout=60)
    log.close()

# %% [markdown]
# ## What you have made
#
# - a package that sorts texts by thirty-six examples, and says what it does not know;
# - a service that learnt a seventh kind, and made a client a version of its own.
#
# Next: [A model that learns on the job](learning_on_the_job.ipynb). **Go on with** [Texts](../texts.md): smaller and faster packages,
# several labels, pairs of texts, a domain that the encoder does not know; [Serve, adapt and learn over HTTP](../service.md);
# [Learn online](../learn_online.md).
