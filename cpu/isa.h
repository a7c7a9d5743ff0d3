// Which instruction sets this machine has, and which one the kernels use now.
//
// A source file that is listed with several ISAs in model/kernels/build/cpu.py is compiled once for each, with
// that set's flags and with PARLOR_ISA_NS defined as `plain`, `avx2`, `avx512` or `amx`. Rules for it:
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

// build/cpu.py defines PARLOR_BUILT_ISA: the highest PARLOR_ISA_* that the compiler knows (0 on other processors than
// x86-64). Code of a higher set is not in the library, so references to it stand in `#if PARLOR_BUILT_ISA >= n`.
#ifndef PARLOR_BUILT_ISA
#define PARLOR_BUILT_ISA 0
#endif

namespace parlor {

enum class Isa : int {
    kPlain = PARLOR_ISA_PLAIN,
    kAvx2 = PARLOR_ISA_AVX2,
    kAvx512 = PARLOR_ISA_AVX512,
    kAmx = PARLOR_ISA_AMX,
};

Isa detect_isa();     // the highest set of this machine (isa_detect.cpp); asks the kernel for AMX tile permission
Isa best_isa();       // the highest that was also built; detects at its first call
Isa selected_isa();   // best_isa(), unless force_isa() (kernels.h) chose another

// The function of the selected set. Pass nullptr where a set has no own version: the next lower one is used.
template <class Function>
Function pick(Function plain, Function avx2, Function avx512, Function amx = nullptr) {
    const Isa isa = selected_isa();
    if (isa >= Isa::kAmx && amx) return amx;
    if (isa >= Isa::kAvx512 && avx512) return avx512;
    if (isa >= Isa::kAvx2 && avx2) return avx2;
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
#if PARLOR_BUILT_ISA >= 2
#define PARLOR_DECLARE(type, name, ...)               \
    PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__) \
    PARLOR_DECLARE_IN(avx2, type, name, __VA_ARGS__)  \
    PARLOR_DECLARE_IN(avx512, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (::parlor::pick(&::parlor::plain::name, &::parlor::avx2::name, &::parlor::avx512::name))
#elif PARLOR_BUILT_ISA == 1
#define PARLOR_DECLARE(type, name, ...)               \
    PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__) \
    PARLOR_DECLARE_IN(avx2, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (::parlor::pick(&::parlor::plain::name, &::parlor::avx2::name, &::parlor::avx2::name))
#else
#define PARLOR_DECLARE(type, name, ...) PARLOR_DECLARE_IN(plain, type, name, __VA_ARGS__)
#define PARLOR_PICK(name) (&::parlor::plain::name)
#endif
