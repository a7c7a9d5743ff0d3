// Measurements of the machine's limits, compiled for each instruction set (limits.cpp).
#pragma once

#include <cstdint>

#include "isa.h"

PARLOR_DECLARE(uint64_t, read_memory, const char* memory, int64_t bytes)
PARLOR_DECLARE(int64_t, multiply_registers, int64_t rounds)
#if PARLOR_BUILT_AVX_VNNI
PARLOR_DECLARE_IN(avx_vnni, int64_t, multiply_registers, int64_t rounds)
#endif
#if PARLOR_BUILT_DOTPROD
PARLOR_DECLARE_IN(dotprod, int64_t, multiply_registers, int64_t rounds)
#endif
#if PARLOR_BUILT_I8MM
PARLOR_DECLARE_IN(i8mm, int64_t, multiply_registers, int64_t rounds)
#endif
#if PARLOR_BUILT_AMX
PARLOR_DECLARE_IN(amx, int64_t, multiply_registers, int64_t rounds)
#endif
