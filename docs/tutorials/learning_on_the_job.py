# %% [markdown]
# # A model that learns on the job
#
# A model that was trained once gets worse as the world moves on. An *online learner* answers each event before it sees the label, and
# learns from the label after. On this page one learns from a file whose rule changes three times and in which a new class turns up; it
# is killed in the middle, goes on as if nothing had happened, and is used.
#
# $$(\text{state}, \text{events}) \;\mapsto\; \text{state}$$

# %%
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())


def mapsto(*arguments, wait=True):
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    if not wait:
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


# %% [markdown]
# ## 1. A file that drifts
#
# Requests for a loan, each with an income, an age and a town. Who is granted one changes at event 10,000 and 20,000 without notice;
# from event 30,000 on some requests are *examined*, which nobody had seen before. One label in twenty is wrong.

# %%
generator = np.random.default_rng(0)
count, towns = 40_000, ["north", "south", "port"]
income, age = generator.normal(40, 15, count).clip(5), generator.uniform(18, 80, count)
town = generator.integers(0, 3, count)
rules = [income > 40, income + age > 95, (income > 30) & (town != 2), income > 40]
era = np.arange(count) // 10_000
granted = np.choose(era, rules) ^ (generator.random(count) < 0.05)
label = np.where(granted, "granted", "refused").astype(object)
label[(era == 3) & (age > 65)] = "examined"

rows = [f"{i},{income[i]:.1f},{age[i]:.0f},{towns[town[i]]},{label[i]}" for i in range(count)]
(folder / "loans.csv").write_text("\n".join(["number,income,age,town,decision", *rows]) + "\n")
print("\n".join(["number,income,age,town,decision", *rows[:3]]))

# %% [markdown]
# ## 2. Learn from it
#
# In a terminal the command shows the accuracy as it moves, the drifts it noticed, and whose answer it is among the learner's
# members. Here we let it print its summary.

# %%
command = ("stream", "loans.csv", "--target", "decision", "--id", "number")
print(mapsto(*command, "--out", "runs/loans", "--quiet"))

# %% [markdown]
# The record has a row every thousand events. At each change the accuracy falls, and comes back within some hundred events: the forests
# are rebuilt tree by tree from the last events, and mixtures move their weight to the members that are right.

# %%
(log,) = (folder / "runs" / "loans" / "logs").glob("*/metrics.csv")
record = np.genfromtxt(log, delimiter=",", names=True)
events = record[record.dtype.names[0]]
plt.figure(figsize=(8, 3))
plt.plot(events, record["accuracy"], label="the learner")
plt.plot(events, record["window_majority"], label="the class that came most often")
for change in (10_000, 20_000, 30_000):
    plt.axvline(change, color="grey", linestyle=":")
plt.xlabel("events")
plt.ylabel("right, %")
plt.legend()
plt.show()
print(
    f"{record['accuracy'][:9].mean():.1f} % before the first change, {record['accuracy'][-5:].mean():.1f} % at the end; 95 is the most"
)

# %% [markdown]
# ## 3. Kill it
#
# `kill -9` in the middle. The same command goes on from the last checkpoint, and ends with the same model, to the bit, as the run that
# nobody disturbed: its digest is the same. Each event counts once.

# %%
summary = json.loads((folder / "runs" / "loans" / "report.json").read_text())
undisturbed = summary["steps"][0]["digest"]

elsewhere = ("--store", folder / "another_store", "--out", "runs/killed", "--quiet")
running = mapsto(*command, *elsewhere, wait=False)
while running.poll() is None and not list((folder / "another_store").glob("states/*")):
    time.sleep(0.1)
running.send_signal(signal.SIGKILL)
print("killed" if running.wait() == -signal.SIGKILL else "it had ended by then")

mapsto(*command, *elsewhere)
again = json.loads((folder / "runs" / "killed" / "report.json").read_text())["steps"][0]["digest"]
print(again == undisturbed)
assert again == undisturbed

# %% [markdown]
# ## 4. Ask it
#
# `--from` answers and learns nothing. In Python the same model says more: what each member thought, which past events were nearest, and
# which columns matter.

# %%
(folder / "new.csv").write_text("number,income,age,town\n1,70,30,north\n2,20,30,south\n3,70,79,port\n")
print(mapsto("stream", "new.csv", "--from", "runs/loans"))

# %%
from mapsto import streams
from mapsto.store.store import Store

store = next(path for path in (folder / ".mapsto", folder / "another_store") if path.is_dir())
model = Store(store).load(undisturbed)
learner = model.open()
question = next(streams.csv(file=str(folder / "new.csv")).open())
print({name: round(share, 2) for name, share in learner.importance().items()})
for why in learner.explain(question):
    nearest = why["nearest"][0]
    print(nearest["label"], nearest["features"], f"at a distance of {nearest['distance']:.2f}")

# %% [markdown]
# ## 5. Labels that come late
#
# Often the label is known hours after the question. A line with the id and the label alone is the label of that event: the learner has
# kept the features, and what its members had said, and learns from those. What it is measured by is the answer that it gave when it was
# asked.

# %%
delay = 500
late = ["number,income,age,town,decision"]
for i in range(10_000):
    late.append(rows[i].rsplit(",", 1)[0] + ",")
    if i >= delay:
        late.append(f"{i - delay},,,,{label[i - delay]}")
(folder / "late.csv").write_text("\n".join(late) + "\n")
print(mapsto("stream", "late.csv", "--target", "decision", "--id", "number", "--quiet"))

# %% [markdown]
# ## What you have made
#
# - a learner that follows a rule which changes, and takes in a class that was new;
# - one that was killed and went on to the same bit, and one that learns from labels which come late.
#
# [Learn from a stream](../learn_online.md) says the rest. Next:
# [From the demo to a monitored service that learns](from_the_demo_to_a_service_that_learns.ipynb).
