// Which instruction sets this machine has, and which one the kernels use now.
//
// A source file that is listed with several ISAs in model/kernels/build/cpu.py is compiled once for each, with
// that set's flags and with PARLOR_ISA_NS defined as `plain`, `avx2` ... (the sets of kernels.h). Rules for it:
//   - everything it defines lives in `namespace parlor::PARLOR_ISA_NS` (or is static);
//   - no object with a constructor at namespace scope: its initialiser would run AVX on any machine;
//   - C entry points (extern "C") live in files of the plain set only and choose with `pick()`.
// Templates and inline functions that files of several sets share are merged by the linker, which takes the
// first definition: objects are linked in ascending order of their ISA, so it is always the lowest one.
#pragma once

#include "kernels.h"

#if defined(__x86_64__)
#define PARLOR_X86 1
#else
#define PARLOR_X86 0
#endif

// build/cpu.py defines PARLOR_BUILT_ISAS: bit i for each PARLOR_ISA_* i that the compiler makes code for. Code of the
// others is not in the library, so references to it stand in `#if PARLOR_BUILT_AVX2` and so on.
#ifndef PARLOR_BUILT_ISAS
#define PARLOR_BUILT_ISAS 1
#endif
#define PARLOR_BUILT_AVX2 (PARLOR_BUILT_ISAS >> 1 & 1)
#define PARLOR_BUILT_AVX_VNNI (PARLOR_BUILT_ISAS >> 2 & 1)
#define PARLOR_BUILT_AVX512 (PARLOR_BUILT_ISAS >> 3 & 1)
#define PARLOR_BUILT_AMX (PARLOR_BUILT_ISAS >> 4 & 1)
#define PARLOR_BUILT_DOTPROD (PARLOR_BUILT_ISAS >> 5 & 1)
#define PARLOR_BUILT_I8MM (PARLOR_BUILT_ISAS >> 6 & 1)

namespace parlor {

enum class Isa : int {
    kPlain = PARLOR_ISA_PLAIN,
    kAvx2 = PARLOR_ISA_AVX2,
    kAvxVnni = PARLOR_ISA_AVX_VNNI,
    kAvx512 = PARLOR_ISA_AVX512,
    kAmx = PARLOR_ISA_AMX,
    kDotprod = PARLOR_ISA_DOTPROD,
    kI8mm = PARLOR_ISA_I8MM,
};

// The sets of this machine, bit i for PARLOR_ISA_* i (isa_detect.cpp); asks the kernel for AMX tile permission.
unsigned detect_isas();
Isa selected_isa();  // the highest that this machine has and that was built, unless force_isa() (kernels.h) chose another

// The function of the selected set, or the next lower one that there is.
template <class Function>
Function pick(Function plain, Function avx2, Function avx512) {
    const Isa isa = selected_isa();
    if (isa >= Isa::kAvx512) return avx512;
    if (isa >= Isa::kAvx2) return avx2;
    return plain;
}

}  // namespace parlor

// PARLOR_DECLARE(type, f, arguments...) declares parlor::<set>::f for an f compiled as plain, avx2 and avx512;
// PARLOR_PICK(f) is the selected set's.
#define PARLOR_DECLARE_IN(set, type, name, ...) \
    namespace parlor {                          \
    namespace set {                             \
    type name(__VA_ARGS__);                     \
    }                                           \
    }
#if PARLOR_BUILT_AVX512
#define PARLOR_DECLARE(type, name, ...)               \
    PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__) \
    PARLOR_DECLARE_IN(avx2, type, name, __VA_ARGS__)  \
    PARLOR_DECLARE_IN(avx512, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (::parlor::pick(&::parlor::plain::name, &::parlor::avx2::name, &::parlor::avx512::name))
#elif PARLOR_BUILT_AVX2
#define PARLOR_DECLARE(type, name, ...)               \
    PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__) \
    PARLOR_DECLARE_IN(avx2, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (::parlor::pick(&::parlor::plain::name, &::parlor::avx2::name, &::parlor::avx2::name))
#else
#define PARLOR_DECLARE(type, name, ...) PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (&::parlor::plain::name)
#endif
