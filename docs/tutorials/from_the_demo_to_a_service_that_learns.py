# %% [markdown]
# # From the demo to a monitored service that learns
#
# A package answers as it was trained to, for ever. Behind a *service* it does more: clients ask it over HTTP, a few labelled examples give
# a client a version of its own, and labels for what was answered become new versions, which take over once they prove better. On this
# page the package of the demo is served; the world turns under it, quite literally; we watch that in its metrics, and see it learn. It
# needs the extra `serve` (`pip install 'mapsto[serve]'`).
#
# $$(\text{a package},\ \text{labels}) \;\mapsto\; \text{versions of it}$$

# %%
import atexit
import io
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mapsto import datasets
from mapsto.service.client import Client, ServiceError

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())


def mapsto(*arguments):
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


# %% [markdown]
# ## 1. A package
#
# The demo trains a network on printed characters, makes it small, and lets it read ten handwritten digits from five examples of each.
# Here it runs with its quick settings, a minute instead of five: what comes out reads badly, which leaves something to learn.

# %%
mapsto("run", "demo", "--quick", "--out", "runs/demo")
print(*sorted(path.name for path in (folder / "runs" / "demo" / "package").iterdir()))

# %% [markdown]
# ## 2. A service
#
# `mapsto serve runs/demo` prints its address, a key that is valid as long as it runs, and lines for `curl`. In a terminal it would stay
# there; on this page it runs beside. `--admin` lets the key see metrics and change which version answers.

# %%
service = subprocess.Popen(
    [sys.executable, "-m", "mapsto", "serve", "runs/demo", "--port", "0", "--admin", "--every", "1"],
    cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
)  # fmt: skip
atexit.register(service.terminate)  # should a cell below fail
said = [service.stdout.readline() for _ in range(3)]
url, admin = said[0].split()[3].rstrip(";"), said[1].split()[-1]
print(said[0], said[2].replace(admin, "KEY"), sep="")

# %% [markdown]
# Clients get keys of their own: each with a name, a tenant whose data nobody else sees, and what it may do. The service takes them over
# within a second.

# %%
kitchen = mapsto("keys", "make", "runs/demo", "--name", "kitchen", "--tenant", "kitchen", "--days", "90").strip()
office = mapsto("keys", "make", "runs/demo", "--name", "office", "--tenant", "office", "--scope", "predict").strip()
print(mapsto("keys", "list", "runs/demo"))
time.sleep(1)

# %% [markdown]
# ## 3. Ask it
#
# Images are sent as files; the service prepares them as training did. An answer says which version gave it: `1` is the package itself.

# %%
digits = datasets.digits(size=28).open()
order = np.random.default_rng(0).permutation(len(digits))
images, labels = digits.inputs[order], [digits.classes[number] for number in digits.labels[order]]


def png(image, turned=False):
    content = io.BytesIO()
    pixels = np.rot90(image[0], -1) if turned else image[0]
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
    return content.getvalue()


client = Client(url, kitchen)
answer = client.infer("demo", [png(image) for image in images[:12]])
_, axes = plt.subplots(1, 12, figsize=(10, 1.4))
for axis, image, given, right in zip(axes, images, answer.labels, labels, strict=False):
    axis.imshow(image[0], cmap="gray_r")
    axis.set_title(given, color="tab:green" if given == right else "tab:red")
    axis.axis("off")
plt.show()
print(f"version {answer.version}: {sum(map(str.__eq__, answer.labels, labels))} of 12 are right")

# %% [markdown]
# ## 4. Adapt it to a few labels
#
# The kitchen has labels of its own. From each number of them we have the service make a version: the features stay as they are, a head is
# fitted to them in closed form. Each is private to the kitchen; 300 other digits say how good it is.


# %%
def score(version, batch=100, first=500, count=300):
    found = []
    for start in range(first, first + count, batch):
        part = [png(image) for image in images[start : start + batch]]
        found += map(str.__eq__, client.infer("demo", part, version=version).labels, labels[start : start + batch])
    return 100 * np.mean(found)


shots, scores, times = (1, 2, 5, 10, 20), [], []
for number in shots:
    chosen = [place for name in digits.classes for place in [i for i in range(500) if labels[i] == name][:number]]
    began = time.perf_counter()
    mine = client.adapt("demo", [png(images[place]) for place in chosen], [labels[place] for place in chosen])
    times.append(1000 * (time.perf_counter() - began))
    scores.append(score(mine))

before = score("1")
plt.figure(figsize=(6, 3))
plt.plot(shots, scores, marker="o", label="versions from the kitchen's labels")
plt.axhline(before, color="grey", linestyle=":", label="the package, from five of each")
plt.xscale("log")
plt.xticks(shots, shots)
plt.xlabel("labelled examples of each digit")
plt.ylabel("right, %")
plt.legend()
plt.show()
print(
    f"{min(times):.0f} to {max(times):.0f} ms a version, from sending {10 * shots[0]} or {10 * shots[-1]} images to its name"
)
assert scores[-1] > scores[0]

# %% [markdown]
# To the office the kitchen's version is not there.

# %%
try:
    Client(url, office).infer("demo", [png(images[0])], version=mine)
except ServiceError as refused:
    print(refused.status, refused.what)

# %% [markdown]
# ## 5. Tell it what was right
#
# A label names the answer that it is for. It is acknowledged once it is stored, and never lost after. The service learns from four of
# five; the fifth is held back, and decides: where a new version is right on those more often than the one that answers, and a sign test
# says that this is no chance, it takes over by itself.
#
# Six hundred digits come upright. Then somebody mounts the camera on its side. We keep what an operator would look at, all of it from
# `/metrics`: how often late answers were right, and whether inputs are as they were.


# %%
def metrics():
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {admin}"})
    with urllib.request.urlopen(request) as answered:
        return answered.read().decode()


def value(text, name):
    found = [float(number) for number in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)]
    return min(found, default=np.nan)


UPRIGHT, BATCH = 600, 20
stream = [*range(500, len(images)), *range(300)]  # those before 500 came as the kitchen's examples, upright
record = []
for event in range(0, len(stream) - BATCH, BATCH):
    places = stream[event : event + BATCH]
    answer = client.infer("demo", [png(images[place], turned=event >= UPRIGHT) for place in places])
    truth = [labels[place] for place in places]
    client.feedback("demo", answer, truth)
    seen = metrics()
    accuracy, chance = (value(seen, f"mapsto_{name}") for name in ("online_accuracy_ratio", "input_drift_p_value"))
    record.append((event, np.mean([*map(str.__eq__, answer.labels, truth)]), accuracy, chance, answer.version))
    while client.learner("demo")["behind"] > 60:  # so that few labels do here: real clients wait for nobody
        time.sleep(0.05)

# %%
events, share, late, chances, versions = zip(*record, strict=True)
_, (above, below) = plt.subplots(2, 1, figsize=(8, 4.5), sharex=True)
above.plot(events, 100 * np.array(share), ".", color="lightgrey", label="each request of 20")
above.plot(events, 100 * np.array(late), label="the last 100 labels")
above.set_ylabel("right, %")
below.semilogy(events, np.maximum(chances, 1e-30))
below.axhline(0.001, color="tab:red", linestyle="--", label="an alert below")
below.set_ylabel("p-value: inputs as before")
below.set_xlabel("digits")
for axis in (above, below):
    axis.axvline(UPRIGHT, color="black", linestyle=":", label="the camera turns")
changes = [event for event, one, other in zip(events[1:], versions[1:], versions, strict=False) if one != other]
above.vlines(changes, 0, 100, color="tab:green", alpha=0.4, label="another version answers")
above.legend(fontsize=8, loc="lower left")
below.legend(fontsize=8, loc="lower left")
plt.show()
turn = events.index(UPRIGHT)
print(
    f"upright {100 * np.mean(share[:turn]):.0f} %, after the turn {100 * np.mean(share[turn : turn + 3]):.0f} %,",
    end=" ",
)
print(f"at the end {100 * np.mean(share[-10:]):.0f} %; {len(set(versions))} versions answered")
assert chances[-1] < 0.001
assert np.mean(share[-10:]) > np.mean(share[turn : turn + 3])

# %% [markdown]
# What was learnt lies in versions: here is how often each was right, and the last labels. If the version that answers is no good,
# `mapsto versions runs/demo --rollback` lets the one before answer again.

# %%
print(mapsto("feedback", "runs/demo", "--last", "3"))

# %% [markdown]
# ## 6. Watch it
#
# Nobody looks at metrics all day. One command writes what Prometheus, Alertmanager and Grafana need, with a key that may read metrics and
# nothing else. Start both as its README says, and the two things that happened above come as alerts, `MapstoInputDrift` and
# `MapstoAccuracyDrop`. What each of them means, and what to do, is in [Operate a service](../operations.md).

# %%
mapsto("monitor", "init", "monitoring", "runs/demo", "--url", url, "--webhook", "http://127.0.0.1:9000/alarms")
print(*sorted(path.name for path in (folder / "monitoring").iterdir()))
rules = (folder / "monitoring" / "alerts.yml").read_text()
print(rules[rules.index("- alert: MapstoInputDrift") : rules.index("- alert: MapstoAccuracyDrop")])

# %% [markdown]
# ## 7. Keep it
#
# A new key takes the place of one that may have been seen; both open the service for a day. A backup may be made while it runs. At the end
# SIGTERM, or Ctrl-C in a terminal: what was begun is answered, what was acknowledged is kept, and the next
# `mapsto serve runs/demo` goes on from here.

# %%
renewed = mapsto("keys", "rotate", "runs/demo", "--name", "kitchen", "--grace", "1d").strip()
print(mapsto("state", "backup", "runs/demo", "--out", "monday.sqlite"))
service.send_signal(signal.SIGTERM)
print("ended with", service.wait())

# %% [markdown]
# ## What you have made
#
# - a service that adapts to a client, learns from labels, and puts a better version into use by itself;
# - metrics and alerts that show when the world turns, keys, and a backup.
#
# [Operate a service](../operations.md) says the rest. Next: [Searching for a recipe](searching_for_a_recipe.ipynb).
