"""Operations one by one, on every instruction set and on the GPU's kernels played by the CPU."""
