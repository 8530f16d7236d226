"""The nouns of mapsto: what mappings take and give.

A small closed set of frozen values: `Network`, `Dataset`, `Tasks`, `Stream`, `Report`, `Package`, `Model` and `Forked`. Nothing here
imports torch until a network is built, so that a recipe can be read, typed and keyed in milliseconds.
"""

from mapsto.kinds.data import Dataset, Episode, Episodes, Samples, Tasks
from mapsto.kinds.forked import Forked
from mapsto.kinds.frozen import Frozen, Json
from mapsto.kinds.model import EventColumn, EventSignature, Model
from mapsto.kinds.network import Adaptation, Edit, Factory, Network, detached, load_strictly, trusting, vouched
from mapsto.kinds.package import Package
from mapsto.kinds.report import Metric, Report, Series, Table
from mapsto.kinds.stored_rows import StoredRows
from mapsto.kinds.stream import Block, ColumnType, Stream, Task
from mapsto_runtime.signature import Column, Preprocessing, Signature, TensorSpec

__all__ = [
    "Adaptation",
    "Block",
    "Column",
    "ColumnType",
    "Dataset",
    "Edit",
    "Episode",
    "Episodes",
    "EventColumn",
    "EventSignature",
    "Factory",
    "Forked",
    "Frozen",
    "Json",
    "Metric",
    "Model",
    "Network",
    "Package",
    "Preprocessing",
    "Report",
    "Samples",
    "Series",
    "Signature",
    "StoredRows",
    "Stream",
    "Table",
    "Task",
    "Tasks",
    "TensorSpec",
    "detached",
    "load_strictly",
    "trusting",
    "vouched",
]
