"""What a device needs of mapsto: packages are opened, inputs prepared and answers given, with NumPy, Pillow and a runtime.

Neither torch nor mapsto is imported; mapsto stands on this package and uses the same preprocessing in training.

    from mapsto_runtime.predictor import Predictor
    Predictor("runs/demo/package").predict(["seven.png"])[0].label
"""

__version__ = "0.1.0.dev0"
"""Of mapsto-runtime and of mapsto, which are released together."""
