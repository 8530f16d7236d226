"""Why a network answers as it does: attributions by gradients, the examples that an answer rests on, and how both are checked."""
