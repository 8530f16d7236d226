"""Operations that training on a CPU spends its time in, fused; the C++ is in `mapsto.native`."""
