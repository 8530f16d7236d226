"""Distillation: the one loop, teacher and student, and the losses by which they are compared."""
