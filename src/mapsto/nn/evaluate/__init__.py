"""What answers are judged by: shares with their intervals, confusions, calibration, errors of values. NumPy alone, no torch."""
